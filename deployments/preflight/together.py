"""What several findings propose, made one: following one of them must not lead to what the others refuse.

A rule knows its own subject: one says how a layer can be split, another what a node has, a third what memory holds.
Where their proposals contradict one another, or one alone only uncovers the next refusal, they are followed to the end,
and what that changes in all is proposed in place of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from deployments.engine.options import MENDS, Option
from deployments.findings import Change, Finding
from deployments.preflight.roles import TITLES
from deployments.preflight.trials import Trials, with_changes
from deployments.spec import DeploymentSpec, Role, canonical

Look = Callable[[DeploymentSpec], Sequence[Finding]]
Left = Callable[[DeploymentSpec, Collection[str]], Sequence[Finding]]

MOST_STEPS = 8
# What codes of findings begin with that are about something else than how a model runs.
ELSEWHERE = ("name_", "source_", "credential_", "quota_", "claim_", "cluster_", "adapter_")
MEMORY, FLAVOR = "memory", "/spec/flavor"
# What stands where a spec leaves these out.
USUAL: Mapping[str, int] = {"/spec/nodes": 1, "/spec/surge": 0}
NOWHERE = "No value of this field is enough by itself"


def coherent(spec: DeploymentSpec, findings: Sequence[Finding], look: Look, trials: Trials) -> list[Finding]:
    """The findings with proposals of which each leads on, alone and with all others.

    `look` says what is refused of a changed wish, with what its rules propose.
    """
    refused = [finding for finding in findings if finding.is_error]
    fixes, left_of = [finding for finding in refused if of_spec(finding)], _left(look, trials)
    if not fixes or _all_lead_on(spec, refused, fixes, left_of):
        return list(findings)
    best, end = _followed(spec, refused, look, trials)
    if best is None or any(item.code == MEMORY and not of_spec(item) for item in best.refused):
        return _parted(spec, findings, refused, end, left_of)
    whole, left = _differences(spec, best.spec), set(map(_place, best.refused))
    # What stays refused keeps its own proposal where the one for all leaves it room.
    kept = {
        finding
        for finding in findings
        if not finding.is_error or (_place(finding) in left and _beside(spec, refused, finding, whole, left_of))
    }
    return [
        finding
        if finding in kept
        else _without(finding, best, findings)
        if _place(finding) in left
        else _with_whole(finding, spec, whole)
        for finding in findings
    ]


def _beside(
    spec: DeploymentSpec,
    refused: Sequence[Finding],
    finding: Finding,
    whole: tuple[Change, ...],
    left_of: Left,
) -> bool:
    """True for a finding without a proposal of the spec, or with one that leads on with and without the other."""
    if not of_spec(finding):
        return True
    both = dataclasses.replace(finding, also=(*finding.also, *whole))
    alone = _leads_on(spec, refused, [finding], left_of)
    return alone and not _contradict([finding, both]) and _leads_on(spec, refused, [both], left_of)


def _left(look: Look, trials: Trials) -> Left:
    """How what is refused of a changed wish is looked at.

    Memory is said where something mends it, which is dear to find: only for changes of what that may be.
    """

    def left_of(changed: DeploymentSpec, sets: Collection[str]) -> Sequence[Finding]:
        bare = trials.refused(changed)
        mends = any(pointer.rpartition("/")[2] in MENDS for pointer in sets)
        if not mends or not any(item.code == MEMORY for item in bare):
            return bare
        return [item for item in look(changed) if item.is_error]

    return left_of


def completed(spec: DeploymentSpec, changes: Sequence[Change], look: Look, trials: Trials) -> tuple[Change, ...] | None:
    """These changes, and what else must change for a wish with them to be admitted; None where nothing does.

    What no way of running a model mends is left to be mended elsewhere: a name, an address, a token, quota.
    """
    changed = with_changes(spec, changes)
    if changed is None:
        return None
    end = _Step(changed, trials.refused(changed))
    if any(not item.code.startswith(ELSEWHERE) for item in end.refused):
        best, _ = _followed(changed, [item for item in look(changed) if item.is_error], look, trials)
        if best is None or any(not item.code.startswith(ELSEWHERE) for item in best.refused):
            return None
        return (*changes, *_differences(changed, best.spec))
    return tuple(changes)


def with_all(way: Option, changes: Sequence[Change]) -> Option:
    """A way to run a model with everything that must change for it, and its words for that."""
    more = changes[len(way.changes) :]
    if not more:
        return way
    return dataclasses.replace(way, also=(*way.also, *more), text=f"{way.text}, with {in_words(more)}")


def changes_of(finding: Finding) -> tuple[Change, ...]:
    """Everything that a finding proposes to set."""
    return ((finding.pointer, finding.value), *finding.also)


def of_spec(finding: Finding) -> bool:
    """True where a finding proposes a change of the spec itself."""
    return finding.value is not None and finding.pointer.startswith("/spec/")


def _place(finding: Finding) -> tuple[str, str]:
    return finding.code, finding.pointer


def _all_lead_on(spec: DeploymentSpec, refused: Sequence[Finding], fixes: Sequence[Finding], left_of: Left) -> bool:
    """True where each proposal alone, and all together, leave less refused, and nothing of what they are about."""
    if _contradict(fixes) or not all(_leads_on(spec, refused, [fix], left_of) for fix in fixes):
        return False
    return len(fixes) == 1 or _leads_on(spec, refused, fixes, left_of)


def _contradict(fixes: Sequence[Finding]) -> bool:
    sets: dict[str, object] = {}
    return any(sets.setdefault(pointer, value) != value for fix in fixes for pointer, value in changes_of(fix))


def _leads_on(spec: DeploymentSpec, refused: Sequence[Finding], fixes: Sequence[Finding], left_of: Left) -> bool:
    changes = [change for fix in fixes for change in changes_of(fix)]
    changed = with_changes(spec, changes)
    if changed is None:
        return False
    sets = {pointer for pointer, _ in changes}
    left = left_of(changed, sets)
    new = {item.code for item in left} - {item.code for item in refused}
    stays = {_place(item) for item in left} & set(map(_place, fixes))
    return not new and not stays and len(left) < len(refused) and not any(item.pointer in sets for item in left)


@dataclasses.dataclass(frozen=True)
class _Step:
    """A wish on the way, and what is refused of it."""

    spec: DeploymentSpec
    refused: Sequence[Finding]


def _followed(
    spec: DeploymentSpec, refused: Sequence[Finding], look: Look, trials: Trials
) -> tuple[_Step | None, _Step]:
    """Where proposals lead that are followed, at each step all at once where that helps, else the one that leaves least
    refused: the wish of which least is refused and nothing new, if there is one, and the last.
    """
    now, best, known = _Step(spec, refused), None, {item.code for item in refused}
    been = {canonical(spec.to_json())}
    for _ in range(MOST_STEPS):
        ahead = _ahead(now, been, trials)
        if ahead is None:
            break
        been.add(canonical(ahead.to_json()))
        # Remedies are looked for where something is refused.
        now = _Step(ahead, [item for item in look(ahead) if item.is_error] if any(trials.look(ahead)) else ())
        if len(now.refused) < len(best.refused if best else refused) and _is_better(spec, now, known):
            best = now
        if not now.refused:
            break
    return (_Step(_plainest(spec, best, trials), best.refused) if best else None), now


def _is_better(spec: DeploymentSpec, now: _Step, known: set[str]) -> bool:
    """True where nothing new is refused, and nothing where something was changed."""
    sets = {pointer for pointer, _ in _differences(spec, now.spec)}
    return not any(item.code not in known or item.pointer in sets for item in now.refused)


def _ahead(now: _Step, been: Collection[bytes], trials: Trials) -> DeploymentSpec | None:
    """The next wish: with one proposal where that is enough, else with all at once where that helps, else with the one
    that leaves least refused. What this changes needlessly is left out at the end.
    """
    fixes = list(filter(of_spec, now.refused))
    # Other GPUs are a large change, and often not needed once the rest is mended.
    here = [fix for fix in fixes if FLAVOR not in dict(changes_of(fix))]
    single, several = (
        [way for some in ways if (way := _with(now.spec, some)) and canonical(way.to_json()) not in been]
        for ways in ([[fix] for fix in fixes], [_agreeing(here), _agreeing(fixes)])
    )
    for way in single:
        if not any(trials.look(way)):
            return way
    for way in several:
        if len(trials.refused(way)) < len(now.refused):
            return way
    return min(single, key=lambda way: len(trials.refused(way)), default=None)


def _agreeing(fixes: Iterable[Finding]) -> list[Finding]:
    """Of these as many as set nothing to two values, the first of those that do."""
    kept: list[Finding] = []
    for fix in fixes:
        kept += [] if _contradict([*kept, fix]) else [fix]
    return kept


def _with(spec: DeploymentSpec, fixes: Iterable[Finding]) -> DeploymentSpec | None:
    """The wish with everything that these propose; None where that makes no wish."""
    return with_changes(spec, [change for fix in fixes for change in changes_of(fix)])


def _plainest(spec: DeploymentSpec, best: _Step, trials: Trials) -> DeploymentSpec:
    """The same without what was changed on the way and is not needed at its end."""
    kept, most = list(_differences(spec, best.spec)), {_place(item) for item in best.refused}
    for change in list(kept):
        fewer = [other for other in kept if other is not change]
        changed = with_changes(spec, fewer) if fewer else None
        if changed is not None and all(_place(item) in most for item in trials.look(changed)):
            kept = fewer
    return with_changes(spec, kept) or best.spec


def _differences(before: DeploymentSpec, after: DeploymentSpec) -> tuple[Change, ...]:
    """The changes that make one wish of the other, as they stand in it."""
    return tuple(_between("/spec", before.to_json(), after.to_json()))


def _between(pointer: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(new, Mapping):
            yield from _between(f"{pointer}/{name}", old if isinstance(old, Mapping) else {}, new)
        else:
            place = f"{pointer}/{name}"
            yield place, USUAL.get(place) if new is None else new


def _with_whole(finding: Finding, spec: DeploymentSpec, whole: tuple[Change, ...]) -> Finding:
    """The finding with the proposal that mends all. It stays at its field, also where others alone are changed."""
    if of_spec(finding) and dict(changes_of(finding)) == dict(whole):
        return finding
    remedy, own = f"Change together: {in_words(whole)}.", dict(whole)
    value = own.get(finding.pointer, _value_at(spec, finding.pointer))
    gone = any(to is None and finding.pointer.startswith(f"{pointer}/") for pointer, to in whole)
    if value is not None and not gone:
        others = tuple(change for change in whole if change[0] != finding.pointer)
        return dataclasses.replace(finding, value=value, also=others, remedy=remedy)
    (pointer, first), *others_of = sorted(whole, key=lambda change: change[1] is None)
    return dataclasses.replace(finding, pointer=pointer, value=first, also=tuple(others_of), remedy=remedy)


def _parted(
    spec: DeploymentSpec, findings: Sequence[Finding], refused: Sequence[Finding], end: _Step, left_of: Left
) -> list[Finding]:
    """Where nothing makes the whole work: proposals that lead on by themselves stay, the others say what stands in
    their way.
    """
    kept: list[Finding] = []
    for fix in filter(of_spec, refused):
        if _leads_on(spec, refused, [fix], left_of) and not _contradict([*kept, fix]):
            kept += [fix] if not kept or _leads_on(spec, refused, [*kept, fix], left_of) else []
    return [
        finding if finding in kept or not (finding.is_error and of_spec(finding)) else _without(finding, end, findings)
        for finding in findings
    ]


def _without(finding: Finding, end: _Step, findings: Sequence[Finding]) -> Finding:
    """The finding without its proposal, and what stands in the way of it, where that is told by none of `findings`."""
    item = next((item for item in end.refused if item.remedy and not of_spec(item)), None)
    told = item is not None and any(item.code == each.code for each in findings)
    because = "" if item is None else item.remedy if told else f"{item.message} {item.remedy}"
    return dataclasses.replace(finding, value=None, also=(), remedy=f"{NOWHERE}. {because}".strip())


def _value_at(spec: DeploymentSpec, pointer: str) -> Any:
    """What stands there now, if it is one value."""
    inner: Any = spec.to_json()
    for name in pointer.removeprefix("/spec/").split("/"):
        inner = inner.get(name) if isinstance(inner, Mapping) else None
    return None if isinstance(inner, Mapping | list) else inner


def in_words(changes: Iterable[Change]) -> str:
    """Changes of a wish as people read them: “tensor-parallel-size 8, nodes 2”."""
    return ", ".join(
        f"no {_name(pointer)}" if value is None else f"{_name(pointer)} {value}" for pointer, value in changes
    )


def _name(pointer: str) -> str:
    parts = pointer.removeprefix("/spec/").split("/")
    title = TITLES[Role(parts[0])].lower() if parts[0] in set(TITLES) and len(parts) > 1 else ""
    words = {"min": "fewest replicas", "max": "most replicas"}.get(parts[-1], parts[-1])
    return f"{title} {words}".strip()
