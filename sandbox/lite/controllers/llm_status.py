"""The status of an LLMInferenceService: conditions in the order KServe sets them, and what it observes. Pure.

WorkloadsReady and RouterReady copy the first of their parts that is False; Ready follows these two. A part that does
not apply has no condition at all. RouterReady stays Unknown while the workloads cannot even be written.
"""

from __future__ import annotations

import copy
from datetime import datetime

from sandbox.client import Obj
from sandbox.lite.controllers import llm_scheduler as scheduler
from sandbox.lite.controllers import llm_workloads as workloads
from sandbox.lite.controllers.kserve_conditions import HAPPY, Conditions
from sandbox.lite.controllers.llm_config import pool_name, workload_service
from sandbox.lite.controllers.meta import condition

DEPENDENTS = ("WorkloadsReady", "RouterReady")
WORKLOADS = (
    "MainWorkloadReady", "WorkerWorkloadReady", "PrefillWorkloadReady", "PrefillWorkerWorkloadReady",
    "ScalingReady", "PrefillScalingReady",
)  # fmt: skip
ROUTER = ("GatewaysReady", "HTTPRoutesReady", "InferencePoolReady", "SchedulerWorkloadReady")
STOPPED = ("Stopped", "Service is stopped")
Trouble = tuple[str, str]  # reason, message


class Draft:
    """A status being written, from what was known before."""

    def __init__(self, service: Obj, moment: datetime) -> None:
        self.moment = moment
        self.status: Obj = copy.deepcopy(service.get("status") or {})
        self.conditions = Conditions(self.status.get("conditions") or [], moment, DEPENDENTS)
        self.conditions.initialize()
        self._generation = int(service["metadata"].get("generation") or 0)
        if self.status.get("observedGeneration") != self._generation:
            text = "unsuccessfully observed a new generation"
            self.conditions.mark_unknown(HAPPY, "NewObservedGenFailure", text)

    def done(self) -> Obj:
        """Return the finished status."""
        self.status["observedGeneration"] = self._generation
        self.status["conditions"] = self.conditions.items
        return self.status

    def mark(self, kind: str, trouble: Trouble | None) -> None:
        """Set a part's condition: True without trouble, else False with its reason."""
        if trouble is None:
            self.conditions.mark_true(kind)
        else:
            self.conditions.mark_false(kind, *trouble)

    def clear(self, *kinds: str) -> None:
        """Take away the conditions of parts that do not apply."""
        for kind in kinds:
            self.conditions.clear(kind)

    def sum_up(self, kind: str) -> None:
        """Let WorkloadsReady or RouterReady follow its parts."""
        for part in WORKLOADS if kind == "WorkloadsReady" else ROUTER:
            found = self.conditions.get(part)
            if found is not None and found["status"] == "False":
                self.conditions.mark_false(kind, found.get("reason", ""), found.get("message", ""))
                return
        self.conditions.mark_true(kind)


def deployment_trouble(deployment: Obj) -> Trouble | None:
    """Return why an engine's Deployment is not available; None when it is."""
    for found in (deployment.get("status") or {}).get("conditions") or []:
        if found["type"] == "Available":
            return None if found["status"] == "True" else (found.get("reason", ""), found.get("message", ""))
    return "Progressing", ""


def scheduler_trouble(deployment: Obj) -> Trouble | None:
    """Return why a scheduler's Deployment is not available: one replica is enough, the others stand by."""
    status = deployment.get("status") or {}
    if status.get("availableReplicas"):
        return None
    said = status.get("conditions") or []
    progressing = condition(said, "Progressing")
    if progressing and progressing["status"] == "False" and progressing.get("reason") == "ProgressDeadlineExceeded":
        return progressing["reason"], progressing.get("message", "")
    if condition(said, "Available") is None:
        return "Progressing", "Deployment rollout in progress"
    return deployment_trouble(deployment)


def group_trouble(group: Obj) -> Trouble | None:
    """Return why a LeaderWorkerSet is not available; None when it is."""
    found = condition((group.get("status") or {}).get("conditions"), "Available")
    if found is None:
        return "Progressing", "LWS is progressing"
    return None if found["status"] == "True" else (found.get("reason", ""), found.get("message", ""))


def observed_workloads(service: Obj, combined: Obj, children: dict[tuple[str, str], Obj]) -> Obj:
    """Return `status.workloads`; `children` are by kind and name."""
    prefill = combined.get("prefill")
    made = {"primary": _observed(service, combined, children, prefill=False)}
    if prefill is not None:
        made["prefill"] = _observed(service, prefill, children, prefill=True)
    if scheduler.wanted(combined):
        made["scheduler"] = _of_deployment(scheduler.deployment_name(service), children)
    return {**made, "service": {"kind": "Service", "name": workload_service(service)}}


def _observed(service: Obj, workload: Obj, children: dict[tuple[str, str], Obj], *, prefill: bool) -> Obj:
    if workload.get("worker") is None:
        name = workloads.prefill_name(service) if prefill else workloads.main_name(service)
        return _of_deployment(name, children)
    name = workloads.group_name(service, prefill=prefill)
    status = children.get(("LeaderWorkerSet", name), {}).get("status") or {}
    return {
        "apiGroup": "leaderworkerset.x-k8s.io",
        "kind": "LeaderWorkerSet",
        "name": name,
        "readyReplicas": status.get("readyReplicas", 0),
    }


def _of_deployment(name: str, children: dict[tuple[str, str], Obj]) -> Obj:
    status = children.get(("Deployment", name), {}).get("status") or {}
    return {
        "apiGroup": "apps",
        "kind": "Deployment",
        "name": name,
        "readyReplicas": status.get("availableReplicas", 0),
    }


def observed_pool(service: Obj, combined: Obj) -> Obj:
    """Return `status.router.scheduler`."""
    return {
        "inferencePool": {
            "group": "inference.networking.k8s.io",
            "kind": "InferencePool",
            "name": pool_name(service, combined),
        },
        "service": {"group": "", "kind": "Service", "name": scheduler.picker_service_name(service, combined)},
    }


def failing(status: Obj) -> str:
    """Return the conditions that are False, as the event of a service no longer ready lists them."""
    found = status.get("conditions") or []
    return ", ".join(item["type"] for item in found if item["status"] == "False" and item["type"] != HAPPY)
