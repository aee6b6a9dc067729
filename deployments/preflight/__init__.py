"""Pure rules: a spec and facts in, findings out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from deployments.engine.options import Option
from deployments.engine.sizing import Fit, Sizer
from deployments.findings import Finding, Severity, has_errors
from deployments.preflight import (
    adapters,
    architecture,
    attention,
    cache,
    cluster,
    credential,
    engine,
    fetching,
    formats,
    handover,
    images,
    kv_cache,
    memory,
    model,
    nodes,
    parallel,
    quantised,
    reading,
    request,
    roles,
    rollout,
    sources,
    speculation,
    tokenizers,
)
from deployments.preflight.facts import ClusterFacts, CredentialFacts, Facts, FlavorFacts, QuotaFacts, Serving
from deployments.preflight.rules import Case, Rule, said
from deployments.preflight.together import coherent, completed, with_all
from deployments.preflight.trials import Seen, Trials
from deployments.spec import DeploymentSpec, Role, Strategy
from deployments.spec_errors import parse_request, parse_spec, profile_named

__all__ = [
    "ClusterFacts",
    "CredentialFacts",
    "Facts",
    "Finding",
    "FlavorFacts",
    "QuotaFacts",
    "Serving",
    "Severity",
    "check",
    "check_raw",
    "estimate",
    "estimates",
    "has_errors",
    "sizer",
    "ways",
]

# About the wish as a whole; and about what one engine runs, which each role of a wish has of its own.
OF_WISH: tuple[Rule, ...] = (
    *request.rules,
    *credential.rules,
    *cluster.rules,
    *images.rules,
    *nodes.rules,
    *adapters.rules,
    *sources.rules,
    *reading.of_wish,
    *cache.rules,
    *fetching.rules,
    *roles.rules,
    *handover.rules,
    *rollout.rules,
)
OF_ENGINE: tuple[Rule, ...] = (
    *engine.rules,
    *speculation.rules,
    *kv_cache.rules,
    *parallel.rules,
    *model.rules,
    *architecture.rules,
    *tokenizers.rules,
    *formats.rules,
    *reading.rules,
    *attention.rules,
    *quantised.rules,
    *memory.rules,
)
# About the engine of a role: also what it must be like to hand its KV cache over, or to take it.
OF_ROLES: tuple[Rule, ...] = (*OF_ENGINE, *handover.of_role)
RULES: tuple[Rule, ...] = (*OF_WISH, *OF_ROLES)


def check(spec: DeploymentSpec, name: str, team: str, facts: Facts) -> list[Finding]:
    """Everything there is to say about this wish before it is sent; errors first, each finding once."""
    look, trials = _looks(Case(spec=spec, name=name, team=team, facts=facts))
    order = list(Severity)
    found = coherent(spec, look(spec, brief=False), look, trials(spec))
    return sorted(found, key=lambda finding: order.index(finding.severity))


class _Look(Protocol):
    """Looks at a wish like another one; `brief` where no person reads the remedies."""

    def __call__(self, spec: DeploymentSpec, *, brief: bool = True) -> list[Finding]: ...


def _looks(case: Case) -> tuple[_Look, Callable[[DeploymentSpec], Trials]]:
    """How a wish like this one is looked at, with values that make a wish of each; and how its changes are tried."""
    seen: Seen = {}
    known: dict[str, Trials] = {}
    looked: dict[tuple[str, bool], list[Finding]] = {}

    def trials(spec: DeploymentSpec) -> Trials:
        key = spec.model_dump_json()
        if key not in known:
            known[key] = Trials(spec, lambda changed: _found(dataclasses.replace(case, spec=changed)), seen)
        return known[key]

    def look(spec: DeploymentSpec, *, brief: bool = True) -> list[Finding]:
        key, tried = (spec.model_dump_json(), brief), trials(spec)
        if key not in looked:
            found = _found(dataclasses.replace(case, spec=spec, tries=tried.admits, brief=brief))
            looked[key] = list(map(tried.whole, dict.fromkeys(found)))
        return looked[key]

    return look, trials


def _found(case: Case) -> Iterator[Finding]:
    """What the rules say one after the other: whoever has seen enough asks no further."""
    for finding in said(case, OF_WISH):
        yield roles.placed(finding, case.spec)
    yield from roles.of_engines(case, OF_ROLES if case.spec.strategy is Strategy.DISAGGREGATED else OF_ENGINE)


def ways(spec: DeploymentSpec, name: str, team: str, facts: Facts) -> dict[Role, list[Option]]:
    """Changes with which what a role runs fits, and that nothing refuses; empty where nothing is known."""
    look, trials = _looks(Case(spec=spec, name=name, team=team, facts=facts))
    case = Case(spec=spec, name=name, team=team, facts=facts, tries=trials(spec).admits)
    found: dict[Role, list[Option]] = {}
    for role in spec.by_role():
        own = [roles.own_option(way, role, spec) for way in memory.ways_to_fit(roles.alone(case, role))]
        whole = [(way, completed(spec, way.changes, look, trials(spec))) for way in own]
        found[role] = [with_all(way, changes) for way, changes in whole if changes is not None]
    return found


def check_raw(data: Mapping[str, Any], facts: Facts) -> tuple[DeploymentSpec | None, list[Finding]]:
    """The same for decoded JSON `{team, name, spec}`; errors of its shape come as findings too."""
    profile = facts.profiles.get(profile_named(data.get("spec")))
    request, problems = parse_request(data, profile.version if profile else "")
    if request is not None:
        return request.spec, check(request.spec, request.name, request.team, facts)
    name = data.get("name")
    # Of a name that is text the rules say more: what is wrong with it, and one that is right.
    wrong = [each.as_finding() for each in problems if each.pointer != "/name" or not isinstance(name, str)]
    spec, _ = parse_spec(data.get("spec"))
    if spec is None:
        return None, wrong
    found = check(spec, name if isinstance(name, str) else "", str(data.get("team") or ""), facts)
    return spec, [*wrong, *(each for each in found if each.pointer not in {item.pointer for item in wrong})]


def estimate(spec: DeploymentSpec, facts: Facts) -> Fit | None:
    """The memory estimate of this spec, of two roles that of decode; None while model, flavor or shape are unknown."""
    return list(estimates(spec, facts).values())[-1]


def estimates(spec: DeploymentSpec, facts: Facts) -> dict[Role, Fit | None]:
    """The memory estimate of what each role runs, prefill before decode; None while something of it is not known."""
    return {role: Case(spec=own, name="", team="", facts=facts).estimate for role, own in spec.by_role().items()}


def sizer(spec: DeploymentSpec, facts: Facts) -> Sizer | None:
    """What estimates how the model sits on any GPU, as the engine of this wish runs it; None while it is not known."""
    return Case(spec=spec, name="", team="", facts=facts).sizer
