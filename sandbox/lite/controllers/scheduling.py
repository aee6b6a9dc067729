"""Where a pod may run, and the sentence when it may run nowhere. Pure.

A node is asked in the order of kube-scheduler's plugins; its first objection is the one that counts. Among the
nodes left, a pod that wants GPUs goes where the fewest remain free afterwards, so that large pods still find whole
nodes; a pod without goes to nodes without GPUs first, then to the emptiest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sandbox.client import Obj
from sandbox.lite.controllers.meta import (
    claims_of,
    expression_matches,
    labels_of,
    pod_finished,
    pod_resources,
    quantity,
)

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
WANTS_NO = "node(s) didn't match Pod's node affinity/selector"
MANY = "Too many pods"
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


@dataclass(frozen=True)
class Objection:
    """Why one node will not do. `lasting`: no pod on it could be moved away to change that."""

    reasons: tuple[str, ...]
    lasting: bool


@dataclass
class Room:
    """A node and what the pods on it already ask for."""

    node: Obj
    asked: dict[str, float] = field(default_factory=dict)
    pods: int = 0

    def free(self, resource: str) -> float:
        """Return how much of a resource no pod has asked for."""
        return self.size(resource) - self.asked.get(resource, 0.0)

    def size(self, resource: str) -> float:
        """Return how much of a resource pods may ask for."""
        text = (self.node.get("status", {}).get("allocatable") or {}).get(resource)
        return quantity(text) if text is not None else 0.0


@dataclass(frozen=True)
class Verdict:
    """The node a pod goes to or, with `node` None, the sentence for its PodScheduled condition."""

    node: str | None
    message: str = ""


def rooms(nodes: Iterable[Obj], pods: Iterable[Obj]) -> list[Room]:
    """Return every node with what is taken on it."""
    found = {node["metadata"]["name"]: Room(node) for node in nodes}
    for pod in pods:
        room = found.get(pod["spec"].get("nodeName") or "")
        if room is None or pod_finished(pod):
            continue
        room.pods += 1
        for name, amount in pod_resources(pod).items():
            room.asked[name] = room.asked.get(name, 0.0) + amount
    return [found[name] for name in sorted(found)]


def place(pod: Obj, nodes: list[Room], claims: set[str], unbound: Collection[str] = ()) -> Verdict:
    """Choose a node for `pod`; `claims` are the names of the volume claims in its namespace, some perhaps `unbound`."""
    missing = _missing_claim(pod, claims)
    if missing is not None:
        text = f'persistentvolumeclaim "{missing}" not found. not found'
        return Verdict(None, f"0/{len(nodes)} nodes are available: {text}")
    if any(claim in unbound for claim in claims_of(pod)):
        return Verdict(None, f"0/{len(nodes)} nodes are available: {UNBOUND}. not found")
    wanted = pod_resources(pod)
    objections = {room.node["metadata"]["name"]: objection(pod, wanted, room) for room in nodes}
    fitting = [room for room in nodes if objections[room.node["metadata"]["name"]] is None]
    if fitting:
        best = min(fitting, key=lambda room: _waste(wanted, room))
        return Verdict(best.node["metadata"]["name"])
    return Verdict(None, _sentence([item for item in objections.values() if item is not None]))


def objection(pod: Obj, wanted: Mapping[str, float], room: Room) -> Objection | None:
    """Return the first thing that speaks against a node, or None."""
    spec = pod["spec"]
    node = room.node
    tolerations = spec.get("tolerations") or []
    cordon = {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}
    if node["spec"].get("unschedulable") and not _tolerated(cordon, tolerations):
        return Objection(("node(s) were unschedulable",), lasting=True)
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not _tolerated(taint, tolerations):
            return Objection(("node(s) had untolerated taint(s)",), lasting=True)
    if not _wanted_node(spec, node):
        return Objection((WANTS_NO,), lasting=True)
    short = [name for name, amount in wanted.items() if amount > 0 and room.free(name) < amount]
    reasons = [f"Insufficient {name}" for name in short]
    if room.size("pods") and room.pods >= room.size("pods"):
        reasons.insert(0, MANY)
    if not reasons:
        return None
    never = bool(short) and any(room.size(name) < wanted[name] for name in short)
    return Objection(tuple(reasons), lasting=never)


def _tolerated(taint: Mapping[str, str], tolerations: list[Obj]) -> bool:
    return any(tolerates(toleration, taint) for toleration in tolerations)


def tolerates(toleration: Obj, taint: Mapping[str, str]) -> bool:
    """Tell whether a toleration covers a taint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def _wanted_node(spec: Obj, node: Obj) -> bool:
    labels = labels_of(node)
    if any(labels.get(name) != value for name, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_term_matches(term, node, labels) for term in required.get("nodeSelectorTerms") or [])


def _term_matches(term: Obj, node: Obj, labels: dict[str, str]) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    about = {"metadata.name": node["metadata"]["name"]}
    return all(expression_matches(item, labels) for item in expressions) and all(
        expression_matches(item, about) for item in fields
    )


def _missing_claim(pod: Obj, claims: set[str]) -> str | None:
    return next((name for name in claims_of(pod) if name not in claims), None)


def _waste(wanted: Mapping[str, float], room: Room) -> tuple[float, float, str]:
    """Rank a fitting node, best first: GPUs that would stay unused there, then the share of cpu already taken."""
    extended = [name for name, amount in wanted.items() if "/" in name and amount > 0]
    if extended:
        left = sum(room.free(name) - wanted[name] for name in extended)
    else:
        allocatable = room.node.get("status", {}).get("allocatable") or {}
        left = sum(quantity(amount) for name, amount in allocatable.items() if "/" in name)
    taken = room.asked.get("cpu", 0.0) / (room.size("cpu") or 1.0)
    return left, taken, room.node["metadata"]["name"]


def _sentence(objections: list[Objection]) -> str:
    total = len(objections)
    if not total:
        return "no nodes available to schedule pods"
    reasons = Counter(reason for item in objections for reason in item.reasons)
    helpless = sum(1 for item in objections if item.lasting)
    preemption = Counter(
        {
            "Preemption is not helpful for scheduling.": helpless,
            "No preemption victims found for incoming pod.": total - helpless,
        }
    )
    return (
        f"0/{total} nodes are available: {_histogram(reasons)}. no new claims to deallocate, "
        f"preemption: 0/{total} nodes are available: {_histogram(preemption)}"
    )


def _histogram(reasons: Counter[str]) -> str:
    return ", ".join(sorted(f"{number} {reason}" for reason, number in reasons.items() if number))
