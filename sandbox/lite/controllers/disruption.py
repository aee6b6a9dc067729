"""PodDisruptionBudgets: how many of the selected pods may be evicted right now."""

from __future__ import annotations

from datetime import datetime

from sandbox.client import Obj
from sandbox.lite.controllers.meta import (
    Key,
    condition,
    deleting,
    int_or_percent,
    key_of,
    labels_of,
    now,
    pod_finished,
    pod_ready,
    selected,
    stamp,
)
from sandbox.lite.controllers.resources import POD_DISRUPTION_BUDGETS, PODS
from sandbox.lite.controllers.runtime import Manager


class DisruptionController:
    """Keeps the status of every budget; the API server's eviction reads it."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._budgets = manager.informer(POD_DISRUPTION_BUDGETS)
        self._budgets.index("namespace", lambda item: [item["metadata"]["namespace"]])
        self._pods = manager.informer(PODS)
        self._pods.index("namespace", lambda item: [item["metadata"]["namespace"]])
        self._loop = manager.controller("disruption", self.reconcile, workers=1)
        self._budgets.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        self._pods.on_change(self._pod_changed)

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        for budget in self._budgets.by("namespace", pod["metadata"]["namespace"]):
            if selected(budget["spec"].get("selector"), labels_of(pod)):
                self._loop.queue.add(key_of(budget))

    async def reconcile(self, key: Key) -> float | None:
        """Count the pods of one budget again."""
        budget = self._budgets.get(*key)
        if budget is None:
            return None
        pods = [
            pod
            for pod in self._pods.by("namespace", key[0])
            if selected(budget["spec"].get("selector"), labels_of(pod)) and not pod_finished(pod)
        ]
        status = status_of(budget, pods, now())
        if budget.get("status") != status:
            body = {**budget, "status": status}
            path = f"{POD_DISRUPTION_BUDGETS.of(budget)}/status"
            self._budgets.remember(await self._client.update(path, body))
        return None


def status_of(budget: Obj, pods: list[Obj], moment: datetime) -> Obj:
    """Return the budget's status for its pods."""
    spec, expected = budget["spec"], len(pods)
    healthy = sum(1 for pod in pods if pod_ready(pod) and not deleting(pod))
    if spec.get("maxUnavailable") is not None:
        desired = max(0, expected - int_or_percent(spec["maxUnavailable"], expected, round_up=True))
    else:
        desired = int_or_percent(spec.get("minAvailable", 1), expected, round_up=True)
    allowed = max(0, healthy - desired) if expected else 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    state = "True" if allowed else "False"
    known = condition((budget.get("status") or {}).get("conditions"), "DisruptionAllowed")
    since = known["lastTransitionTime"] if known and known["status"] == state else stamp(moment)
    return {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "observedGeneration": budget["metadata"].get("generation", 1),
        "conditions": [
            {
                "type": "DisruptionAllowed",
                "status": state,
                "reason": reason,
                "message": "",
                "observedGeneration": budget["metadata"].get("generation", 1),
                "lastTransitionTime": since,
            }
        ],
    }
