"""A remedy is tried through all rules before it is offered: it must not lead to what the next rule refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from deployments.findings import Change, Finding, arg_pointer
from deployments.preflight.roles import TITLES
from deployments.spec import DeploymentSpec
from deployments.spec_errors import parse_spec

Check = Callable[[DeploymentSpec], Iterable[Finding]]


class Refusals:
    """What is refused of one wish, worked out as far as somebody asks: one refusal is enough to drop a remedy."""

    def __init__(self, found: Iterable[Finding]) -> None:
        self._known: list[Finding] = []
        self._rest = (finding for finding in found if finding.is_error)

    def __iter__(self) -> Iterator[Finding]:
        """Every refusal once."""
        place = 0
        while place < len(self._known) or self._goes_on():
            yield self._known[place]
            place += 1

    def _goes_on(self) -> bool:
        following = next((finding for finding in self._rest if finding not in self._known), None)
        if following is not None:
            self._known.append(following)
        return following is not None


# By the JSON of a wish.
Seen: TypeAlias = dict[str, Refusals]


class Trials:
    """Changes of one wish, tried. What is refused of it already, in the same words, does not count against them.

    `seen` is shared by the trials of wishes that follow one from the other.
    """

    def __init__(self, spec: DeploymentSpec, check: Check, seen: Seen | None = None) -> None:
        self._spec = spec
        self._check = check
        self._refused: frozenset[str] | None = None
        self._seen: Seen = {} if seen is None else seen
        self._admitted: dict[str, bool] = {}

    def admits(self, changes: Sequence[Change]) -> bool:
        """True when the wish with these changes is one, and nothing is refused of it that is not refused now.

        What is put somewhere must not be refused there either, whatever stood there before.
        """
        tried = repr([*changes])
        if tried not in self._admitted:
            self._admitted[tried] = self._admits(changes)
        return self._admitted[tried]

    def _admits(self, changes: Sequence[Change]) -> bool:
        changed = with_changes(self._spec, changes)
        if changed is None:
            return False
        if self._refused is None:
            self._refused = frozenset(map(_words, self.refused(self._spec)))
        sets = {pointer for pointer, _ in changes}
        return all(finding.pointer not in sets and _words(finding) in self._refused for finding in self.look(changed))

    def whole(self, finding: Finding) -> Finding:
        """The finding with what else must change for its value to make a wish; without a value where nothing does."""
        changes: tuple[Change, ...] = ((finding.pointer, finding.value), *finding.also)
        of_spec = finding.pointer.startswith("/spec/")
        if finding.value is None or not of_spec or with_changes(self._spec, changes) is not None:
            return finding
        ways = [
            more for more in _beside(self._spec, finding) if with_changes(self._spec, (*changes, *more)) is not None
        ]
        if not ways:
            return dataclasses.replace(finding, value=None, also=())
        best = next((more for more in ways if self.admits((*changes, *more))), ways[-1])
        return dataclasses.replace(finding, also=(*finding.also, *best))

    def refused(self, spec: DeploymentSpec) -> tuple[Finding, ...]:
        """Everything that is refused of another wish."""
        return tuple(self.look(spec))

    def look(self, spec: DeploymentSpec) -> Refusals:
        """What is refused of another wish, one after the other; each wish is looked at once."""
        key = spec.model_dump_json()
        if key not in self._seen:
            self._seen[key] = Refusals(self._check(spec))
        return self._seen[key]


def _words(finding: Finding) -> str:
    """What is refused, whichever role it is said of: of two alike it is said once."""
    for title in TITLES.values():
        if finding.message.startswith(f"{title}: "):
            return finding.message.removeprefix(f"{title}: ")
    return finding.message


def _beside(spec: DeploymentSpec, finding: Finding) -> Iterator[tuple[Change, ...]]:
    """What may stand in the way of a change: the other bound, parts of roles (decode's flags stay), many nodes."""
    place, _, bound = finding.pointer.rpartition("/")
    if place.endswith("/replicas"):
        yield ((f"{place}/{'min' if bound == 'max' else 'max'}", finding.value),)
    if spec.decode is not None:
        kept = ((arg_pointer(flag), value) for flag, value in spec.decode.args.items())
        yield (("/spec/prefill", None), ("/spec/decode", None), *kept)
    if spec.surge:
        yield (("/spec/surge", None),)
    for nodes in range(1, spec.nodes):
        yield (("/spec/nodes", nodes),)


def with_changes(spec: DeploymentSpec, changes: Sequence[Change]) -> DeploymentSpec | None:
    """The spec with values put where JSON pointers say; None where that makes no spec. None as a value takes away."""
    data = spec.to_json()
    for pointer, value in changes:
        *path, last = pointer.removeprefix("/spec/").split("/")
        inner: Any = data
        for name in path:
            inner = inner.setdefault(name, {})
        if value is None:
            inner.pop(last, None)
        else:
            inner[last] = value
    return parse_spec(data)[0]
