"""Deployments, described: the counts and the three conditions people and KServe read.

Pure. Order matters as in kube-controller-manager: a condition whose status and reason stay keeps its old
message; Progressing is renewed only when something really progressed, which is what its deadline measures.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sandbox.client import Obj
from sandbox.lite.controllers.deployment_plan import may_be_missing
from sandbox.lite.controllers.meta import condition, parse_stamp, stamp

AVAILABLE_REASON = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"


def status_of(deployment: Obj, new: Obj | None, old: list[Obj], moment: datetime) -> Obj:
    """Return the status that follows from the ReplicaSets and from the status before."""
    before: Obj = deployment.get("status") or {}
    status = _counts(deployment, new, old)
    status["conditions"] = [dict(item) for item in before.get("conditions") or []]
    _set(status, _available(deployment, status), moment)
    _progress(deployment, before, status, new, moment)
    failure = _replica_failure(new, old)
    if failure is not None:
        _set(status, failure, moment)
    else:
        _drop(status, "ReplicaFailure")
    if "collisionCount" in before:
        status["collisionCount"] = before["collisionCount"]
    return {name: value for name, value in status.items() if value not in (0, []) or name in _SHOWN_AS_ZERO}


_SHOWN_AS_ZERO = {"terminatingReplicas", "observedGeneration"}


def note_new_replica_set(deployment: Obj, name: str, moment: datetime, *, created: bool) -> Obj:
    """Return the status right after the current ReplicaSet was made or found."""
    status = dict(deployment.get("status") or {})
    status["conditions"] = [dict(item) for item in status.get("conditions") or []]
    reason, text = ("NewReplicaSetCreated", "Created new") if created else ("FoundNewReplicaSet", "Found new")
    fresh = {"type": "Progressing", "status": "True", "reason": reason, "message": f'{text} replica set "{name}"'}
    _set(status, fresh, moment)
    return status


def deadline(deployment: Obj, moment: datetime) -> float | None:
    """Return the seconds until the rollout counts as stuck; None when that cannot happen now."""
    limit = deployment["spec"].get("progressDeadlineSeconds")
    progressing = condition((deployment.get("status") or {}).get("conditions"), "Progressing")
    if limit is None or progressing is None or progressing.get("reason") in (AVAILABLE_REASON, TIMED_OUT):
        return None
    due = parse_stamp(progressing["lastUpdateTime"]) + timedelta(seconds=limit)
    return max(0.0, (due - moment).total_seconds()) + 1.0


def complete(deployment: Obj, status: Obj) -> bool:
    """Tell whether every wanted pod is of the new template, available, and none of the old is left."""
    wanted = deployment["spec"]["replicas"]
    counts = [status.get(name, 0) for name in ("updatedReplicas", "replicas", "availableReplicas")]
    return counts == [wanted] * 3 and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]


def _counts(deployment: Obj, new: Obj | None, old: list[Obj]) -> Obj:
    every = [*old, *([new] if new else [])]

    def total(name: str) -> int:
        return sum(int(item.get("status", {}).get(name) or 0) for item in every)

    available = total("availableReplicas")
    wanted = sum(item["spec"]["replicas"] for item in every)
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": total("replicas"),
        "updatedReplicas": int((new or {}).get("status", {}).get("replicas") or 0),
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "terminatingReplicas": total("terminatingReplicas"),
        "unavailableReplicas": max(0, wanted - available),
    }


def _available(deployment: Obj, status: Obj) -> Obj:
    if status["availableReplicas"] >= deployment["spec"]["replicas"] - may_be_missing(deployment):
        state, reason, text = "True", "MinimumReplicasAvailable", "Deployment has minimum availability."
    else:
        state, reason, text = "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
    return {"type": "Available", "status": state, "reason": reason, "message": text}


def _progress(deployment: Obj, before: Obj, status: Obj, new: Obj | None, moment: datetime) -> None:
    if deployment["spec"].get("paused"):
        paused = {"status": "Unknown", "reason": "DeploymentPaused", "message": "Deployment is paused"}
        _set(status, {"type": "Progressing", **paused}, moment)
        return
    if deployment["spec"].get("progressDeadlineSeconds") is None:
        _drop(status, "Progressing")
        return
    known = condition(before.get("conditions"), "Progressing")
    settled = known is not None and known.get("reason") == AVAILABLE_REASON
    if settled and status["replicas"] == status["updatedReplicas"]:
        return
    name = f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{deployment["metadata"]["name"]}"'
    if complete(deployment, status):
        text = f"{name} has successfully progressed."
        _set(status, _progressing("True", AVAILABLE_REASON, text), moment)
    elif _moved(before, status):
        fresh = _progressing("True", "ReplicaSetUpdated", f"{name} is progressing.")
        since = known["lastTransitionTime"] if known and known["status"] == "True" else stamp(moment)
        _drop(status, "Progressing")
        status["conditions"].append({**fresh, "lastUpdateTime": stamp(moment), "lastTransitionTime": since})
    elif known is not None and _timed_out(deployment, known, moment):
        _set(status, _progressing("False", TIMED_OUT, f"{name} has timed out progressing."), moment)


def _progressing(state: str, reason: str, message: str) -> Obj:
    return {"type": "Progressing", "status": state, "reason": reason, "message": message}


def _moved(before: Obj, status: Obj) -> bool:
    old_before = before.get("replicas", 0) - before.get("updatedReplicas", 0)
    old_now = status["replicas"] - status["updatedReplicas"]
    grown = any(
        status[name] > before.get(name, 0) for name in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
    return grown or old_now < old_before


def _timed_out(deployment: Obj, known: Obj, moment: datetime) -> bool:
    if known.get("reason") == TIMED_OUT:
        return True
    if known.get("reason") == AVAILABLE_REASON:
        return False
    limit = timedelta(seconds=deployment["spec"]["progressDeadlineSeconds"])
    return parse_stamp(known["lastUpdateTime"]) + limit < moment


def _replica_failure(new: Obj | None, old: list[Obj]) -> Obj | None:
    for item in [*([new] if new else []), *old]:
        found = condition(item.get("status", {}).get("conditions"), "ReplicaFailure")
        if found is not None:
            return {name: found[name] for name in ("type", "status", "reason", "message") if name in found}
    return None


def _set(status: Obj, fresh: Obj, moment: datetime) -> None:
    known = condition(status["conditions"], fresh["type"])
    if known and (known["status"], known.get("reason")) == (fresh["status"], fresh.get("reason")):
        return
    since = known["lastTransitionTime"] if known and known["status"] == fresh["status"] else stamp(moment)
    _drop(status, fresh["type"])
    status["conditions"].append({**fresh, "lastUpdateTime": stamp(moment), "lastTransitionTime": since})


def _drop(status: Obj, kind: str) -> None:
    status["conditions"] = [item for item in status["conditions"] if item["type"] != kind]
