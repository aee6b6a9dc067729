"""When a node counts as lost, what taints that means, and which pods must leave it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sandbox.client import Obj
from sandbox.lite.controllers.meta import condition, parse_stamp, stamp
from sandbox.lite.controllers.scheduling import UNSCHEDULABLE_TAINT, tolerates

GRACE = timedelta(seconds=40)
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
_OURS = {NOT_READY, UNREACHABLE, UNSCHEDULABLE_TAINT}
_STOPPED = "Kubelet stopped posting node status."
_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")


def heard_from(node: Obj, lease: Obj | None) -> datetime:
    """Return when the node last showed a sign of life: its lease, else its status, else its birth."""
    renewed = ((lease or {}).get("spec") or {}).get("renewTime")
    if renewed:
        return parse_stamp(renewed)
    ready = condition(node.get("status", {}).get("conditions"), "Ready") or {}
    return parse_stamp(ready.get("lastHeartbeatTime") or node["metadata"]["creationTimestamp"])


def lost_conditions(node: Obj, moment: datetime) -> list[Obj] | None:
    """Return the conditions of a node that fell silent; None when they already say so."""
    items = [dict(item) for item in node.get("status", {}).get("conditions") or []]
    changed = False
    for kind in ("Ready", *_PRESSURES):
        known = condition(items, kind)
        if known is None and kind != "Ready":
            continue
        if known is not None and known["status"] == "Unknown":
            continue
        fresh = {**(known or {"type": kind}), "status": "Unknown", "reason": "NodeStatusUnknown"}
        fresh |= {"message": _STOPPED, "lastTransitionTime": stamp(moment)}
        items = [*(item for item in items if item["type"] != kind), fresh]
        changed = True
    return items if changed else None


def taints(node: Obj, moment: datetime) -> list[Obj]:
    """Return the taints the node's conditions and its cordon ask for, beside those others set."""
    kept = [dict(item) for item in node["spec"].get("taints") or []]
    ready = condition(node.get("status", {}).get("conditions"), "Ready")
    state = ready["status"] if ready else "Unknown"
    wanted: list[tuple[str, str]] = []
    if state == "False":
        wanted = [(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]
    elif state == "Unknown":
        wanted = [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
    if node["spec"].get("unschedulable"):
        wanted.append((UNSCHEDULABLE_TAINT, "NoSchedule"))
    others = [item for item in kept if item["key"] not in _OURS]
    ours = {(item["key"], item["effect"]): item for item in kept if item["key"] in _OURS}
    fresh = [ours.get(pair) or {"key": pair[0], "effect": pair[1], "timeAdded": stamp(moment)} for pair in wanted]
    return [*others, *fresh]


def must_leave(pod: Obj, node_taints: list[Obj], moment: datetime) -> float | None:
    """Return the seconds until the pod is to be evicted, 0 for now, None for never."""
    soonest: float | None = None
    for taint in node_taints:
        if taint["effect"] != "NoExecute":
            continue
        stay = _patience(pod["spec"].get("tolerations") or [], taint)
        if stay is None:
            continue
        since = parse_stamp(taint["timeAdded"]) if taint.get("timeAdded") else moment
        left = max(0.0, (since + timedelta(seconds=stay) - moment).total_seconds())
        soonest = left if soonest is None else min(soonest, left)
    return soonest


def _patience(tolerations: list[Obj], taint: Mapping[str, str]) -> float | None:
    """Return for how many seconds the taint is tolerated; None means for ever."""
    covering = [item for item in tolerations if tolerates(item, taint)]
    if not covering:
        return 0.0
    limits = [item["tolerationSeconds"] for item in covering if item.get("tolerationSeconds") is not None]
    return float(min(limits)) if limits else None
