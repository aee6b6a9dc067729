"""One look at one LLMInferenceService: its engines, then its scheduler, then its route, each in KServe's order.

What does not apply (any more) is removed: a stopped service keeps nothing but its status.
"""

from __future__ import annotations

from sandbox.client import Obj
from sandbox.lite.controllers import llm_scheduler as scheduler
from sandbox.lite.controllers import llm_status as described
from sandbox.lite.controllers import llm_workloads as workloads
from sandbox.lite.controllers.llm_engines import Engines
from sandbox.lite.controllers.llm_router import Router
from sandbox.lite.controllers.llm_writer import doing
from sandbox.lite.controllers.meta import labels_of
from sandbox.lite.controllers.resources import (
    DEPLOYMENTS,
    LEADER_WORKER_SETS,
)


class Reconciliation(Engines, Router):
    """The whole of one look."""

    async def take(self) -> None:
        """Make everything agree. Failure in KServe's words when it cannot be."""
        try:
            with doing("failed to reconcile workload"):
                await self.workloads()
        finally:
            self.draft.sum_up("WorkloadsReady")
        try:
            with doing("failed to reconcile networking"):
                await self.networking()
        finally:
            self.draft.sum_up("RouterReady")
        self._observe()

    def _observe(self) -> None:
        status = self.draft.status
        if self.stopped:
            status.pop("workloads", None)
            return
        children: dict[tuple[str, str], Obj] = {}
        for resource, name in (
            (DEPLOYMENTS, workloads.main_name(self.service)),
            (DEPLOYMENTS, workloads.prefill_name(self.service)),
            (DEPLOYMENTS, scheduler.deployment_name(self.service)),
            (LEADER_WORKER_SETS, workloads.group_name(self.service)),
            (LEADER_WORKER_SETS, workloads.group_name(self.service, prefill=True)),
        ):
            found = self.writer.get(resource, self.namespace, name)
            if found is not None:
                children[(resource.kind, name)] = found
        status["workloads"] = described.observed_workloads(self.service, self.combined, children)


def is_of(service: Obj, item: Obj) -> bool:
    """Tell whether a pod or Service belongs to a service, the scheduler's left out."""
    of = labels_of(item)
    return (
        item["metadata"].get("namespace") == service["metadata"]["namespace"]
        and of.get("app.kubernetes.io/name") == service["metadata"]["name"]
        and of.get("app.kubernetes.io/part-of") == "llminferenceservice"
        and of.get("app.kubernetes.io/component") != scheduler.COMPONENT
    )
