"""Rules about the request itself: its name, source, strategy, flavor, replicas, quota."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deployments.engine.options import most_nodes, splits, splits_beside
from deployments.findings import Change, Finding, arg_pointer, error, info, warning
from deployments.preflight.cluster import surge_of
from deployments.preflight.facts import FlavorFacts, QuotaFacts
from deployments.preflight.rollout import IN_PLACE
from deployments.preflight.rules import Case, Rules, plural
from deployments.sources import RESOLVED, Scheme, SourceCode, check_uri
from deployments.spec import MAX_LABEL, MAX_NAME, PARALLEL, Strategy

rules = Rules()

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
# Names of parts of the cluster, or paths of the portal.
RESERVED = frozenset({"vllm", "kubernetes", "default", "slipway", "kserve", "main", "metrics", "v1", "live", "api"})
# What each strategy's kind of KServe loads by itself. Registries are asked first for an address of these.
LOADS = {
    Strategy.STANDARD: frozenset({Scheme.HF, Scheme.S3, Scheme.GS, Scheme.PVC, Scheme.HTTPS}),
    Strategy.DISAGGREGATED: frozenset({Scheme.HF, Scheme.S3, Scheme.PVC, Scheme.OCI}),
    Strategy.OCI_VOLUME: frozenset({Scheme.OCI}),
}
# In which order another strategy is proposed for a source.
NEAREST = (Strategy.STANDARD, Strategy.OCI_VOLUME, Strategy.DISAGGREGATED)
WAITS_FOR_GPUS = "Sent as it is, an admin decides; approved, it waits until the team has GPUs free."
WAITS_FOR_GRANT = "Sent as it is, an admin decides; approved, it waits until the team's quota is raised."


@rules.rule
def name_form(case: Case) -> Iterator[Finding]:
    """The name must be what KServe admits for an InferenceService."""
    name = case.name
    if not name:
        yield error("name_required", "/name", "Give the deployment a name.")
    elif len(name) > MAX_NAME:
        yield error("name_length", "/name", f"At most {MAX_NAME} characters, this has {len(name):,}.")
    elif not NAME.fullmatch(name):
        proposal = proposed_name(name)
        yield error(
            "name_form",
            "/name",
            "Use lower-case letters, digits and “-”, beginning with a letter and not ending with “-”.",
            f"For example “{proposal}”." if proposal else "",
            proposal or None,
        )


@rules.rule
def name_reserved(case: Case) -> Iterator[Finding]:
    """Some names would collide with parts of the cluster."""
    if case.name in RESERVED or case.name.endswith("-predictor") or "-slipway-" in f"{case.name}-":
        yield error(
            "name_reserved",
            "/name",
            f"“{case.name}” is reserved: parts of the cluster already use it.",
            f"For example “{case.name[: MAX_NAME - 6]}-model”.",
        )


@rules.rule
def name_in_environment(case: Case) -> Iterator[Finding]:
    """A Service called vllm-… sets VLLM_…_PORT in every pod beside it, and vLLM reads all that begins so."""
    if case.name.startswith("vllm-"):
        proposal = proposed_name(case.name.removeprefix("vllm-"))
        yield error(
            "name_environment",
            "/name",
            "A service whose name begins with “vllm” sets variables VLLM_… in other pods, where vLLM reads them.",
            f"For example “{proposal}”." if proposal else "",
            proposal or None,
        )


@rules.rule
def name_taken(case: Case) -> Iterator[Finding]:
    """Within a team a name is used once."""
    if case.facts.name_taken:
        yield error(
            "name_taken",
            "/name",
            f"The team {case.team} already has a deployment called “{case.name}”.",
            "Choose another name, or edit that deployment.",
        )


@rules.rule
def name_fits_address(case: Case) -> Iterator[Finding]:
    """KServe makes one DNS label out of name and namespace."""
    joined = len(case.name) + 1 + len(case.facts.namespace)
    if case.facts.namespace and joined > MAX_LABEL and len(case.name) <= MAX_NAME:
        most = MAX_LABEL - 1 - len(case.facts.namespace)
        yield error(
            "name_too_long_here",
            "/name",
            f"Together with the namespace {case.facts.namespace} the name makes {joined} characters; "
            f"an address has room for {MAX_LABEL}.",
            f"Use at most {most} characters.",
        )


@rules.rule
def source_address(case: Case) -> Iterator[Finding]:
    """The address must be one that this release can serve from."""
    yield from check_uri(case.spec.source.uri)


@rules.rule
def source_for_strategy(case: Case) -> Iterator[Finding]:
    """Each strategy loads from some kinds of sources; KServe admits the others, and they never start."""
    source = case.loads
    if source is None:
        return  # said by source_address
    scheme, strategy = source.scheme, case.spec.strategy
    # Replicas that span nodes are of the same kind of KServe's as roles are.
    loads = LOADS[Strategy.DISAGGREGATED if case.spec.nodes > 1 else strategy]
    if scheme in RESOLVED or scheme in loads:
        return
    takes = ", ".join(f"{item.value}://" for item in Scheme if item in loads)
    if case.spec.nodes > 1:
        yield _source_across_nodes(case, scheme, takes)
        return
    other = next((item for item in NEAREST if scheme in LOADS[item]), None)
    yield error(
        "source_strategy",
        "/spec/strategy",
        f"The strategy “{strategy.value}” loads from {takes} only, not from {scheme.value}://.",
        f"Choose {other.value}, or another source." if other else "Choose another source.",
        other.value if other else None,
    )


def _source_across_nodes(case: Case, scheme: Scheme, takes: str) -> Finding:
    """One node takes what several do not, where the GPUs of a replica stand in one."""
    one = case.flavor is not None and case.spec.gpus_per_replica <= case.flavor.gpus_per_node
    one = one and scheme in LOADS[Strategy.STANDARD]
    return error(
        "source_strategy",
        "/spec/nodes",
        f"Replicas that span nodes load from {takes} only, not from {scheme.value}://.",
        "Use one node, or another source." if one else "Choose another source.",
        1 if one else None,
    )


@rules.rule
def source_answer(case: Case) -> Iterator[Finding]:
    """What the hub said about the model: found, gated, missing, not reached."""
    found = case.facts.source_check
    if found is None or found.found:
        return
    pointer = "/spec/source/uri"
    if found.code is SourceCode.GATED:
        known = case.facts.credentials.get(case.spec.source.credential or "")
        if known is not None and not known.asked:
            return  # Nobody asked with the token yet.
        yield error("source_gated", "/spec/source/credential", found.message, found.remedy)
    elif found.code is SourceCode.BAD_TOKEN:
        yield error("source_bad_token", "/spec/source/credential", found.message, found.remedy)
    elif found.code is SourceCode.UNREACHABLE:
        yield warning("source_unreachable", pointer, found.message, found.remedy)
    else:
        yield error(f"source_{found.code.value}", pointer, found.message, found.remedy)


@rules.rule
def source_gated_without_credential(case: Case) -> Iterator[Finding]:
    """A gated model needs a credential even where the hub was not asked with one."""
    model, checked = case.model, case.facts.source_check
    if model is None or not model.gated or case.spec.source.credential or (checked and not checked.found):
        return
    yield error(
        "source_gated",
        "/spec/source/credential",
        f"{model.id} is gated: it can be downloaded only with a token.",
        "Choose a credential with a token of an account that accepted the licence.",
    )


@rules.rule
def flavor_known(case: Case) -> Iterator[Finding]:
    """The flavor must be offered."""
    if case.flavor is None or not case.flavor.enabled:
        offered = ", ".join(sorted(slug for slug, item in case.facts.flavors.items() if item.enabled))
        yield error(
            "flavor_unknown",
            "/spec/flavor",
            f"There is no flavor “{case.spec.flavor}”.",
            f"Offered: {offered}." if offered else "No flavor is offered yet; ask an admin.",
        )


@rules.rule
def quota(case: Case) -> Iterator[Finding]:
    """Beyond the team's quota a request may be sent all the same: an admin decides, and approved it waits in line."""
    if case.flavor is None:
        return
    allowance, surge = case.quota, surge_of(case.spec)
    asked, label = case.spec.gpus + surge, case.flavor.label
    if allowance is None or allowance.limit == 0:
        yield warning(
            "quota_none",
            "/spec/flavor",
            f"The team {case.team} has no quota of {label}; this needs {plural(asked, 'GPU')}.",
            f"{WAITS_FOR_GRANT} Or choose a flavor the team has.",
        )
        return
    if asked <= allowance.available:
        if allowance.queued and asked > allowance.held:
            line = "1 deployment waits" if allowance.queued == 1 else f"{allowance.queued:,} deployments wait"
            yield info(
                "quota_line",
                "/spec/flavor",
                f"{line} for {label} of the team's quota: approved, this is served after.",
                "Choose another flavor to start at once.",
            )
        return
    if case.spec.surge and case.spec.gpus <= allowance.available:
        yield _quota_for_one_more(case, allowance, surge)
        return
    replicas = max(0, allowance.available - surge) // case.spec.gpus_per_replica
    fitting = "1 replica fits" if replicas == 1 else f"{replicas:,} replicas fit"
    rolling = f", {surge:,} of them while a new revision rolls out" if surge else ""
    waits = WAITS_FOR_GRANT if asked > allowance.limit else WAITS_FOR_GPUS
    apart = case.spec.strategy is Strategy.DISAGGREGATED
    yield warning(
        "quota_exceeded",
        "/spec/replicas/max",
        f"This needs {plural(asked, 'GPU')} of {label}{rolling}; the team has {allowance.available:,} left of "
        f"{allowance.limit:,}.",
        f"At most {fitting}. {waits}" if replicas and not apart else waits,
        (replicas or None) if not apart else None,
    )


def _quota_for_one_more(case: Case, allowance: QuotaFacts, surge: int) -> Finding:
    """Quota holds the replicas, but not the one that a change starts before it takes another away."""
    asked, label = case.spec.gpus + surge, case.flavor.label if case.flavor else case.spec.flavor
    waits = WAITS_FOR_GRANT if asked > allowance.limit else WAITS_FOR_GPUS
    return warning(
        "quota_exceeded",
        "/spec/surge",
        f"A change that starts the new pod first takes {plural(asked, 'GPU')} of {label} while it rolls out, {surge:,} "
        f"of them for that pod; the team has {allowance.available:,} left of {allowance.limit:,}.",
        f"{IN_PLACE}. {waits}",
        0,
    )


@rules.rule
def scaling_moves(case: Case) -> Iterator[Finding]:
    """When replicas are added says nothing where their number is fixed."""
    fixed = all(own.replicas.min == own.replicas.max for own in case.roles.values())
    if case.spec.scaling is not None and fixed:
        yield info(
            "scaling_idle",
            "/spec/scaling/concurrency",
            "The number of replicas is fixed, so nothing scales: these settings do nothing.",
            "Let the most replicas be more than the fewest, or leave them out.",
        )


@rules.rule
def node_size(case: Case) -> Iterator[Finding]:
    """All GPUs of one replica stand in one node."""
    flavor, needed = case.flavor, case.spec.gpus_per_pod
    if flavor is None or needed <= flavor.gpus_per_node:
        return
    one = case.spec.nodes == 1 and case.spec.data_parallel > 1
    if one and (engine := needed // case.spec.data_parallel) <= flavor.gpus_per_node:
        yield error(
            "gpus_per_node",
            "/spec/engine/args/data-parallel-size",
            f"{case.spec.data_parallel} engines of {plural(engine, 'GPU')} need {needed:,}, but a node has "
            f"{flavor.gpus_per_node:,} {flavor.label}, and all engines of a replica stand in one.",
            "Use fewer in one replica; more replicas may stand in other nodes.",
            flavor.gpus_per_node // engine,
        )
        return
    wide = case.spec.nodes > 1
    what = f"On each of its {case.spec.nodes} nodes a replica" if wide else "One replica"
    spread = _nodes_for(case, flavor)
    yield error(
        "gpus_per_node",
        "/spec/engine/args/tensor-parallel-size",
        f"{what} needs {plural(needed, 'GPU')}, but a node has {flavor.gpus_per_node:,} {flavor.label}.",
        "Split over fewer GPUs, or choose a flavor with larger ones"
        + (f"; or let a replica span {spread} nodes." if spread else "."),
        _narrower(case, flavor),
    )


def _narrower(case: Case, flavor: FlavorFacts) -> int | None:
    """The widest split of a layer whose GPUs stand in the nodes of a replica, as the model can be split."""
    nodes, beside = case.spec.nodes, splits_beside(case.spec.engine.args)
    most = flavor.gpus_per_node * nodes // beside
    sizes = splits(case.model, most) if case.model else range(1, most + 1)
    return max((size for size in sizes if size * beside % nodes == 0), default=None)


@rules.rule
def slices_apart(case: Case) -> Iterator[Finding]:
    """Parts of GPUs cannot work together: MIG slices have no path to one another, shares may be of one GPU."""
    flavor, needed = case.flavor, case.spec.gpus_per_replica
    if flavor is not None and flavor.is_slice and needed > 1:
        split = [flag for flag in PARALLEL if (case.whole(flag) or 1) > 1]
        first, *others = split or ["tensor-parallel-size"]
        yield error(
            "slices_apart",
            arg_pointer(first),
            f"{flavor.label} is a part of a GPU: one replica runs on one of them, not on {needed:,} together.",
            "Use one, or choose a flavor of whole GPUs.",
            1,
            also=[(arg_pointer(flag), 1) for flag in others],
        )


def _nodes_for(case: Case, flavor: FlavorFacts) -> int | None:
    """The fewest nodes there that share out the GPUs of a replica evenly, where nothing else keeps it from them."""
    if case.spec.strategy is not Strategy.STANDARD or case.admits is None:
        return None
    gpus, admits = case.spec.gpus_per_replica, case.admits
    counts = range(2, most_nodes(flavor.nodes, whole=not flavor.is_slice) + 1)
    fits = (nodes for nodes in counts if gpus % nodes == 0 and gpus // nodes <= flavor.gpus_per_node)
    alone: tuple[Change, ...] = (("/spec/surge", None),) if case.spec.surge else ()
    return next((nodes for nodes in fits if admits([("/spec/nodes", nodes), *alone])), None)


def proposed_name(name: str) -> str:
    """A valid name near to `name`; empty when nothing of it can be used."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return re.sub(r"^[^a-z]+", "", plain)[:MAX_NAME].rstrip("-")
