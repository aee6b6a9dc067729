"""Rules about the cluster as it is: what it lacks, which versions it serves, what is free of its GPUs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from deployments.engine.sizing import FitState
from deployments.findings import Finding, error, info, warning
from deployments.preflight.facts import ClusterFacts, FlavorFacts
from deployments.preflight.rollout import IN_PLACE
from deployments.preflight.rules import Case, Rules, plural
from deployments.sources import Scheme
from deployments.spec import DeploymentSpec, Replicas, Role, Strategy, gpus_of

rules = Rules()

# API groups and the version of each that objects are written in, and how people call what brings them.
COMMON = (
    ("serving.kserve.io", "v1beta1", "KServe"),
    ("serving.kserve.io", "v1alpha1", "KServe"),
    ("gateway.networking.k8s.io", "v1", "Gateway API"),
    ("monitoring.coreos.com", "v1", "Prometheus operator"),
)
NEEDED: Mapping[Strategy, tuple[tuple[str, str, str], ...]] = {
    Strategy.STANDARD: COMMON,
    Strategy.DISAGGREGATED: (
        ("serving.kserve.io", "v1alpha2", "KServe's LLMInferenceService"),
        ("inference.networking.k8s.io", "v1", "Gateway API inference extension"),
        *COMMON[2:],
    ),
    Strategy.OCI_VOLUME: COMMON,
}
ACROSS_NODES = (
    ("serving.kserve.io", "v1alpha2", "KServe's LLMInferenceService"),
    ("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet"),
    *COMMON[2:],
)
EVERYWHERE = {group: part for group, _, part in COMMON}
KEDA = "keda.sh"
# What Deployments of an LLMInferenceService add while they roll; nothing in a wish changes it.
SURGE = 0.25


@rules.rule
def cluster_ready(case: Case) -> Iterator[Finding]:
    """The cluster must have what a deployment is made of; what is not known of it is no reason to refuse."""
    cluster = case.facts.cluster
    if not cluster.seen:
        yield warning(
            "cluster_unseen",
            "",
            "The cluster has not been seen for a while; what it offers may have changed.",
            "You can send the request: it is carried out when the cluster is back.",
        )
    for part in dict.fromkeys((*cluster.missing, *_missing(case.spec, cluster))):
        yield error(
            "cluster_missing",
            "",
            f"The cluster has no {part}, which every deployment is made with: nothing would start.",
            "An admin has to install it. Ask again then.",
        )


def _needed(spec: DeploymentSpec) -> tuple[tuple[str, str, str], ...]:
    return ACROSS_NODES if spec.nodes > 1 else NEEDED[spec.strategy]


def _missing(spec: DeploymentSpec, cluster: ClusterFacts) -> Iterator[str]:
    """The names of what every strategy needs and the cluster has not; silent while its groups are not known."""
    for group, _, _ in _needed(spec) if cluster.groups else ():
        if group not in cluster.groups and group in EVERYWHERE:
            yield EVERYWHERE[group]


@rules.rule
def strategy_parts(case: Case) -> Iterator[Finding]:
    """A strategy of its own needs parts of its own; what KServe serves must be the version that is written."""
    cluster, strategy = case.facts.cluster, case.spec.strategy
    if not cluster.groups:
        return
    wide = case.spec.nodes > 1
    for group, version, part in _needed(case.spec):
        served = cluster.groups.get(group)
        if served is None and group not in EVERYWHERE:
            what = "A replica that spans nodes" if wide else f"The strategy “{strategy.value}”"
            yield error(
                "strategy_parts",
                "/spec/nodes" if wide else "/spec/strategy",
                f"{what} needs {part}, which the cluster does not have.",
                f"Choose {'one node' if wide else 'standard'}, or ask an admin to install it.",
                1 if wide else Strategy.STANDARD.value,
            )
        elif served is not None and version not in served:
            yield error(
                "cluster_version",
                "/spec/strategy",
                f"The cluster serves {group} as {', '.join(served) or 'nothing'}; “{strategy.value}” needs {version}.",
                "An admin has to install a version of it that serves this.",
            )


@rules.rule
def scaling_parts(case: Case) -> Iterator[Finding]:
    """Scaling by waiting requests and cache use is KEDA's; without it the processor's load is what counts."""
    cluster = case.facts.cluster
    scaled = _first_range(case.roles)
    if scaled is None:
        return
    pointer, replicas = scaled
    if cluster.groups and KEDA not in cluster.groups:
        yield info(
            "scaling_by_load",
            pointer,
            "The cluster has no KEDA: replicas are added by the load of processors, not by waiting requests.",
            "An admin can install KEDA.",
        )
    elif not cluster.groups and not cluster.seen:
        # Which autoscaler is written is decided, and signed, as a request is sent.
        yield info(
            "replicas_fixed",
            pointer,
            f"What the cluster scales by is not known yet: Slipway would run {plural(replicas.min, 'replica')} and "
            f"reserve GPUs for {replicas.max:,}.",
            "Send the request once the cluster has been seen, or set both to the same number.",
            replicas.min,
        )


def _first_range(roles: Mapping[Role, DeploymentSpec]) -> tuple[str, Replicas] | None:
    """Where replicas stand that are no fixed number, and these; decode's before prefill's, None where all are fixed."""
    for role in (Role.BOTH, Role.DECODE, Role.PREFILL):
        part = roles.get(role)
        if part is not None and part.replicas.min != part.replicas.max:
            return ("/spec" if role is Role.BOTH else f"/spec/{role}") + "/replicas/max", part.replicas
    return None


@rules.rule
def claim_exists(case: Case) -> Iterator[Finding]:
    """A volume must be there before a pod mounts it: KServe admits a missing one, and the pod waits for ever.

    One that was made since the cluster was looked at last is there all the same: nobody is told that it is not.
    """
    claims, own = case.facts.cluster.claims, case.facts.cluster.own_claims
    source = case.loads
    if source is None or source.scheme is not Scheme.PVC:
        return
    claim = source.container
    others = sorted((claims or frozenset()) - own)
    instead = f"The team's own: {', '.join(others)}." if others else "Create one of your own, or use another source."
    if claim in own:
        yield error(
            "claim_of_a_cache",
            "/spec/source/uri",
            f"The volume claim “{claim}” holds weights that Slipway fetched ahead for one deployment, and goes when "
            "that is deleted or loads another model: what else runs from it would lose them.",
            f"Name where that deployment's model comes from. {instead}",
        )
    elif claims is not None and claim not in claims:
        yield error(
            "claim_unknown",
            "/spec/source/uri",
            f"The team's namespace had no volume claim “{claim}” when it was looked at{_ago(case)}.",
            f"One that was made since is seen in a moment: ask again then. {_instead(others)}",
        )


def _ago(case: Case) -> str:
    age = case.facts.cluster.claims_age
    return f" {plural(age, 'second')} ago" if age is not None else " last"


def _instead(claims: Sequence[str]) -> str:
    if not claims:
        return "If none was made, create it first, or use another source."
    return f"If none was made, these are there: {', '.join(claims)}."


@rules.rule
def room_now(case: Case) -> Iterator[Finding]:
    """Within quota is not the same as free: say when the cluster is full at the moment."""
    flavor, needed = case.flavor, case.spec.gpus_per_pod
    if flavor is None or flavor.free is None or needed > flavor.gpus_per_node:
        return
    asked = case.spec.gpus_at_first
    if flavor.free < asked:
        yield warning(
            "no_room_now",
            "/spec/flavor",
            f"Only {flavor.free:,} of {flavor.total or 0:,} {flavor.label} are free now; this starts with {asked:,}.",
            "It would wait until GPUs are free. Another flavor may start at once.",
        )
    elif flavor.largest_free_block is not None and flavor.largest_free_block < needed:
        yield warning(
            "no_block_now",
            "/spec/flavor",
            f"{flavor.free:,} {flavor.label} are free, but no node has {needed:,} of them together "
            f"(the most is {flavor.largest_free_block:,}).",
            "It would wait until one node has room. A smaller tensor-parallel-size may start at once.",
        )


@rules.rule
def more_than_there_is(case: Case) -> Iterator[Finding]:
    """Quota may be larger than the cluster: then the last replicas never come, or not even the first."""
    flavor = case.flavor
    if flavor is None or not flavor.total or case.spec.gpus <= flavor.total:
        return
    if case.spec.gpus_at_first > flavor.total and not case.facts.cluster.grows:
        yield _never_whole(case, flavor)
        return
    yield warning(
        "more_than_there_is",
        "/spec/replicas/max",
        f"At most this takes {case.spec.gpus:,} {flavor.label}; the cluster has {flavor.total:,} of them altogether.",
        "Replicas beyond that wait until the cluster grows.",
        None if case.spec.strategy is Strategy.DISAGGREGATED else max(1, flavor.total // case.spec.gpus_per_replica),
    )


def _never_whole(case: Case, flavor: FlavorFacts) -> Finding:
    """What would hold GPUs and wait for others that are not there: fewer replicas, else a flavor with more."""
    spec, total = case.spec, flavor.total or 0
    first = spec.gpus_at_first
    # Only remedies name them: of a wish that is looked at without these nobody would read it.
    there = case.facts.flavors.items() if case.admits is not None else ()
    holding = ((item.label, slug) for slug, item in there if _holds(case, item))
    others = dict(islice(holding, 1 if case.brief else None))
    apart = spec.strategy is Strategy.DISAGGREGATED
    replicas = 0 if apart else total // spec.gpus_per_replica
    ways = [f"at most {plural(replicas, 'replica')} to begin with"] if replicas else []
    if apart:
        ways.append("fewer replicas of prefill or decode to begin with")
    ways += [f"{label}, of which there are enough" for label in others]
    fix: tuple[str, int | str | None] = ("/spec/flavor", next(iter(others.values()), None))
    if replicas:
        fix = ("/spec/replicas/min", replicas)
    elif apart and not others:
        ways.append(f"the strategy {Strategy.STANDARD.value}")
        fix = ("/spec/strategy", Strategy.STANDARD.value)
    return error(
        "never_whole",
        fix[0],
        f"With its fewest replicas this takes {first:,} {flavor.label}; the cluster has {total:,} altogether.",
        f"Use {', or '.join(ways)}." if ways else "Use fewer GPUs, or ask an admin for more nodes.",
        fix[1],
    )


def _holds(case: Case, flavor: FlavorFacts) -> bool:
    """True where a flavor is offered, has GPUs enough to begin with, and as far as is known holds what they run."""
    spec = case.spec
    if not flavor.enabled or (flavor.total or 0) < spec.gpus_at_first or spec.gpus_per_pod > flavor.gpus_per_node:
        return False
    moved = (own.model_copy(update={"flavor": flavor.slug}) for own in case.roles.values())
    estimates = (dataclasses.replace(case, spec=own).estimate for own in moved)
    if any(estimate is not None and estimate.state is FitState.NO for estimate in estimates):
        return False
    return case.admits is not None and case.admits([("/spec/flavor", flavor.slug)])


@rules.rule
def room_to_roll(case: Case) -> Iterator[Finding]:
    """Some strategies start new pods before the old ones go: that takes GPUs on top, for a while."""
    flavor, extra, chosen = case.flavor, surge_of(case.spec), case.spec.surge
    if flavor is None or flavor.free is None or not extra:
        return
    left = flavor.free - (0 if case.quota and case.quota.held else case.spec.gpus)
    if left < extra:
        yield warning(
            "no_room_to_roll",
            "/spec/surge" if chosen else "/spec/strategy",
            f"While a new revision rolls out, it takes {plural(extra, 'more GPU')} of {flavor.label} for a while, and "
            f"{max(0, left):,} would be free.",
            f"{IN_PLACE}, or keep that many free: else the change waits, and what serves now goes on."
            if chosen
            else "Stop it before a change (Recreate), or keep that many free: else the change waits half done.",
            0 if chosen else None,
        )


def surge_of(spec: DeploymentSpec) -> int:
    """GPUs that a rollout takes on top of those at the most replicas.

    Each role rolls by itself, as many replicas as its autoscaler may have made of it; other replicas are replaced
    within what they hold, unless the wish starts some first.
    """
    if spec.strategy is not Strategy.DISAGGREGATED:
        return spec.gpus_per_replica * spec.surge
    return sum(gpus_of(args) * math.ceil(replicas.max * SURGE) for args, replicas in spec.engines())
