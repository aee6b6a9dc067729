"""Priority of pods, and how long they stay on a node in trouble."""

from __future__ import annotations

from sandbox.lite import errors
from sandbox.lite.admission.change import Change

_TROUBLES = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_SYSTEM = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
TOLERATION_SECONDS = 300


def give_priority(change: Change) -> None:
    """Write the number behind priorityClassName. 403 when there is no such class."""
    if not change.is_new("/pods"):
        return
    spec = change.obj["spec"]
    name = spec.get("priorityClassName", "")
    value, policy = _SYSTEM.get(name, 0), "PreemptLowerPriority"
    if name and name not in _SYSTEM:
        found = change.cluster.read("scheduling.k8s.io/priorityclasses", "", name)
        if found is None:
            raise errors.forbidden("", "pods", change.asked_name, f"no PriorityClass with name {name} was found")
        value, policy = found.get("value", 0), found.get("preemptionPolicy", policy)
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", policy)


def tolerate_trouble(change: Change) -> None:
    """Let a pod stay five minutes on a node that is not ready or not reachable."""
    if change.resource.storage_key != "/pods" or change.request.subresource:
        return
    tolerations = change.obj["spec"].setdefault("tolerations", [])
    for key in _TROUBLES:
        covered = any(
            t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in tolerations
        )
        if not covered:
            tolerations.append(
                {"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": TOLERATION_SECONDS}
            )
