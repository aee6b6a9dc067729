"""The engines of one LLMInferenceService, made to agree: certificate, groups or Deployments, prefill, Service."""

from __future__ import annotations

from sandbox.client import Obj
from sandbox.lite.controllers import llm_certificates as certificates
from sandbox.lite.controllers import llm_scheduler as scheduler
from sandbox.lite.controllers import llm_status as described
from sandbox.lite.controllers import llm_workloads as workloads
from sandbox.lite.controllers.llm_config import pool_ref, workload_service
from sandbox.lite.controllers.llm_look import Look
from sandbox.lite.controllers.llm_status import STOPPED
from sandbox.lite.controllers.llm_storage import StorageError
from sandbox.lite.controllers.llm_template import child_name
from sandbox.lite.controllers.llm_writer import Failure, doing
from sandbox.lite.controllers.resources import (
    DEPLOYMENTS,
    LEADER_WORKER_SETS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)


class Engines(Look):
    """The workload half of one look."""

    async def workloads(self) -> None:
        """Make the engines agree. Failure in KServe's words."""
        if self.stopped:
            self.draft.mark("MainWorkloadReady", STOPPED)
        await self._certificate()
        steps = (
            (self._groups, "WorkerWorkloadReady", "ReconcileMultiNodeWorkloadError", "multi node workload"),
            (self._single, "MainWorkloadReady", "ReconcileSingleNodeWorkloadError", "single node workload"),
            (self._front, "MainWorkloadReady", "ReconcileWorkloadServiceError", "workload service"),
            (self._scaling, "MainWorkloadReady", "ScalingCRDNotFound", "scaling"),
        )
        for step, kind, reason, what in steps:
            try:
                await step()
            except Failure as failure:
                self.draft.mark(kind, (reason, str(failure)))
                raise Failure(f"failed to reconcile {what}: {failure}") from failure

    async def _certificate(self) -> None:
        name = certificates.secret_name(self.service)
        if self.stopped:
            await self.writer.remove(self.service, SECRETS, name)
            return
        named = scheduler.wanted(self.combined) or pool_ref(self.combined)
        picker = scheduler.picker_service_name(self.service, self.combined) if named else None
        hosts = certificates.names(self.service, picker)
        ips = certificates.addresses(self.world.pods, self.world.services)
        known = self.writer.get(SECRETS, self.namespace, name)
        await self.writer.put(
            self.service, SECRETS, certificates.secret(self.service, known, hosts, ips, self.world.moment)
        )

    async def _groups(self) -> None:
        """LeaderWorkerSets, with account and rights of their own."""
        service, combined = self.service, self.combined
        for prefill in (False, True):
            kind = "PrefillWorkerWorkloadReady" if prefill else "WorkerWorkloadReady"
            workload = combined.get("prefill") if prefill else combined
            own = workloads.group_name(service, prefill=prefill)
            if self.stopped or workload is None or workload.get("worker") is None:
                await self._absent(kind, LEADER_WORKER_SETS, own)
                await self.writer.remove(service, SERVICE_ACCOUNTS, own)
                if not prefill:
                    await self._sidecar_rights(own, needed=False, group=True)
                continue
            name = workloads.account_name(service, workload, prefill=prefill)
            account = workloads.service_account(service, own, workloads.group_labels(service), self._default_account())
            with doing("failed to reconcile multi-node service account"):
                if name == own:
                    await self.writer.put(service, SERVICE_ACCOUNTS, account)
                else:
                    account = self._account(name, "multi node prefill" if prefill else "multi node main")
                try:
                    group = workloads.leader_worker_set(service, combined, self._source(account), prefill=prefill)
                except StorageError as error:
                    text = "failed to build the expected main LWS for building the Role: "
                    text += "failed to attach model artifacts to leader template"
                    raise Failure(f"{text}: {error}") from error
                if not prefill:
                    needed = any(workloads.sidecar(workload.get(key)) for key in ("template", "worker"))
                    await self._sidecar_rights(name, needed=needed, group=True)
            with doing(f"failed to reconcile multi-node {'prefill' if prefill else 'main'} workload"):
                made = await self.writer.put(service, LEADER_WORKER_SETS, group)
            self.draft.mark(kind, described.group_trouble(made))

    async def _single(self) -> None:
        """Deployments: the engines, and those that prefill."""
        service, combined, own = self.service, self.combined, workloads.main_name(self.service)
        if self.stopped or combined.get("worker") is not None:
            await self._absent("MainWorkloadReady", DEPLOYMENTS, own)
            await self.writer.remove(service, SERVICE_ACCOUNTS, own)
            await self._sidecar_rights(own, needed=False)
        else:
            with doing("failed to reconcile service account"):
                made = self._main_deployment()
                needed = workloads.sidecar(combined.get("template")) is not None
                name = workloads.main_account(service, combined)
                if name != own:
                    pass  # somebody else's account: neither made nor removed
                elif needed:
                    account = workloads.service_account(
                        service, own, workloads.labels(service), self._default_account()
                    )
                    await self.writer.put(service, SERVICE_ACCOUNTS, account)
                else:
                    await self.writer.remove(service, SERVICE_ACCOUNTS, own)
                await self._sidecar_rights(name, needed=needed)
            with doing("failed to reconcile main workload"):
                stored = await self.writer.put(service, DEPLOYMENTS, made)
            self.draft.mark("MainWorkloadReady", described.deployment_trouble(stored))
        await self._prefill()

    def _main_deployment(self) -> Obj:
        named = (self.combined.get("template") or {}).get("serviceAccountName")
        with_sidecar = workloads.sidecar(self.combined.get("template")) is not None
        try:
            with doing("failed to get expected main deployment"):
                own = with_sidecar and named == workloads.main_name(self.service)
                account = self._account(named, "single node main") if named and not own else None
                return workloads.deployment(self.service, self.combined, self._source(account))
        except StorageError as error:
            text = "failed to get expected main deployment: failed to attach model artifacts to main deployment"
            raise Failure(f"{text}: {error}") from error

    async def _prefill(self) -> None:
        service, prefill = self.service, self.combined.get("prefill")
        if self.stopped or prefill is None or prefill.get("worker") is not None:
            await self._absent("PrefillWorkloadReady", DEPLOYMENTS, workloads.prefill_name(service))
            return
        named = (prefill.get("template") or {}).get("serviceAccountName")
        with doing("failed to reconcile prefill workload"):
            account = self._account(named, "single node prefill") if named else None
            try:
                made = workloads.prefill_deployment(service, self.combined, self._source(account))
            except StorageError as error:
                text = (
                    "failed to get expected prefill deployment: failed to attach model artifacts to prefill deployment"
                )
                raise Failure(f"{text}: {error}") from error
            stored = await self.writer.put(service, DEPLOYMENTS, made)
        self.draft.mark("PrefillWorkloadReady", described.deployment_trouble(stored))

    async def _sidecar_rights(self, account: str, *, needed: bool, group: bool = False) -> None:
        role = workloads.sidecar_role(self.service, group=group)
        binding = workloads.sidecar_role_binding(self.service, account, group=group)
        for resource, item in ((ROLES, role), (ROLE_BINDINGS, binding)):
            if needed:
                await self.writer.put(self.service, resource, item)
            else:
                await self.writer.remove(self.service, resource, item["metadata"]["name"])

    async def _front(self) -> None:
        if self.stopped:
            await self.writer.remove(self.service, SERVICES, workload_service(self.service))
            return
        front = workloads.service_in_front(self.service, self.combined, self.world.settings)
        await self.writer.put(self.service, SERVICES, front)

    async def _scaling(self) -> None:
        """Autoscaling goes through the WVA controller, whose kind this cluster does not have: KServe then gives up."""
        for workload, what, suffix in (
            (self.combined, "main", "-kserve-va"),
            (self.combined.get("prefill") or {}, "prefill", "-kserve-prefill-va"),
        ):
            if self.stopped or (workload.get("scaling") or {}).get("wva") is None:
                continue
            name = child_name(self.service["metadata"]["name"], suffix)
            missing = 'no matches for kind "VariantAutoscaling" in version "llmd.ai/v1alpha1"'
            text = (
                f"failed to reconcile {what} workload scaling: failed to reconcile {what} VA: "
                f"failed to get v1alpha1.VariantAutoscaling {self.namespace}/{name}: {missing}"
            )
            told = f"Required scaling CRD not installed: {text}"
            await self.writer.say(self.service, "Warning", "ScalingCRDNotFound", told)
            raise Failure(text)
