"""Rules about nodes: their main memory, and replicas that span several, whether these are there, pay and can change."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.flags import flags_of, versions
from deployments.engine.host import kept_gib
from deployments.findings import Change, Finding, arg_pointer, error, warning
from deployments.preflight.roles import TITLES, own_pointer
from deployments.preflight.rules import Case, Rules, gib, plural
from deployments.spec import Role

rules = Rules()

POINTER = "/spec/nodes"
FLAG = "nnodes"
# Main memory of a node that is surely there, as a multiple of the memory of its GPUs: few have less, most have more.
USUAL_HOST = 2


@rules.rule
def enough_nodes(case: Case) -> Iterator[Finding]:
    """A replica waits for ever for nodes that are not there; small parts of it may share one."""
    flavor, nodes, part = case.flavor, case.spec.nodes, case.spec.gpus_per_pod
    if nodes == 1 or flavor is None or flavor.nodes is None or part > flavor.gpus_per_node:
        return
    if flavor.nodes * (flavor.gpus_per_node // part) < nodes:
        yield warning(
            "nodes_missing",
            POINTER,
            f"A replica spans {nodes} nodes, with {plural(part, 'GPU')} on each; the cluster has {flavor.nodes} with "
            f"{flavor.label}.",
            "It would wait until there are more. Use fewer, or another flavor.",
            flavor.nodes if flavor.nodes and case.spec.gpus_per_replica % flavor.nodes == 0 else None,
        )


@rules.rule
def one_node_would_do(case: Case) -> Iterator[Finding]:
    """GPUs of one node exchange faster than the network does."""
    flavor, needed = case.flavor, case.spec.gpus_per_replica
    if case.spec.nodes > 1 and flavor is not None and needed <= flavor.gpus_per_node:
        yield warning(
            "one_node_would_do",
            POINTER,
            f"{plural(needed, 'GPU')} fit into one node of {flavor.gpus_per_node:,} {flavor.label}, which is faster: "
            "nodes exchange over the network.",
            "Use one node.",
            1,
        )


@rules.rule
def layers_stay_on_a_node(case: Case) -> Iterator[Finding]:
    """Splitting each layer over nodes waits for the network at every layer; splitting between layers seldom does."""
    spec = case.spec
    if spec.nodes > 1 and spec.tensor_parallel > spec.gpus_per_pod:
        fix: tuple[Change, ...] = (
            (arg_pointer("tensor-parallel-size"), spec.gpus_per_pod),
            (arg_pointer("pipeline-parallel-size"), spec.nodes),
        )
        admitted = case.admits is not None and case.admits(fix)
        yield warning(
            "layers_across_nodes",
            arg_pointer("tensor-parallel-size"),
            f"Each layer is split over {spec.tensor_parallel} GPUs, and a node has {spec.gpus_per_pod} of a replica's: "
            "at every layer nodes wait for one another. That takes a network made for it.",
            f"Use tensor-parallel-size {spec.gpus_per_pod} with pipeline-parallel-size {spec.nodes}."
            if admitted
            else "Split layers over the GPUs of one node, and cut the model into stages between nodes.",
            fix[0][1] if admitted else None,
            also=fix[1:] if admitted else (),
        )


@rules.rule
def engine_spans_nodes(case: Case) -> Iterator[Finding]:
    """The engine must know how to find its other nodes."""
    profile = case.profile
    if case.spec.nodes == 1 or profile is None or profile.version not in versions():
        return
    if FLAG not in flags_of(profile.version):
        yield error(
            "engine_one_node",
            "/spec/engine/profile",
            f"vLLM {profile.version} does not span nodes without Ray.",
            "Choose a newer engine, or one node.",
        )


@rules.rule
def nodes_stay(case: Case) -> Iterator[Finding]:
    """KServe never changes how many pods make a replica."""
    before, nodes = case.facts.nodes_before, case.spec.nodes
    if before is not None and before > 1 and nodes > 1 and nodes != before:
        yield error(
            "nodes_fixed",
            POINTER,
            f"How many nodes a replica spans cannot change while the deployment is there: it is {before}.",
            "Ask for a deployment of another name.",
            before,
        )


@rules.rule
def main_memory(case: Case) -> Iterator[Finding]:
    """What flags keep in main memory must be on a node; how much a node has is not known here."""
    if case.flavor is None:
        return
    for role, own in case.roles.items():
        kept, usual = kept_gib(own), USUAL_HOST * own.gpus_per_pod * case.flavor.gpu.visible_gib
        if sum(kept.values()) > usual:
            most, title = max(kept, key=lambda flag: kept[flag]), "" if role is Role.BOTH else f"{TITLES[role]}: "
            yield warning(
                "main_memory",
                own_pointer(arg_pointer(most), role, case.spec),
                f"{title}{' and '.join(sorted(kept))} would keep {gib(sum(kept.values()))} in the main memory of one "
                f"pod, more than twice what its {plural(own.gpus_per_pod, 'GPU')} of {case.flavor.label} hold. It "
                "waits for ever where no node has as much free.",
                f"Lower {most}, or ask an admin how much main memory these nodes have.",
            )
