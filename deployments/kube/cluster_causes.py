"""What the workload and the InferenceService say, where no pod can speak: quota, refusals, wrong references."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from deployments.kube.log_causes import from_log
from deployments.kube.log_patterns import MAX_EVIDENCE
from deployments.kube.observe import WORKER, EventView, PodView, ServiceView, WorkloadView
from deployments.kube.reasons import Code, Reason, Weight

QUOTA = re.compile(
    r"exceeded quota: (?P<quota>[\w.-]+), requested: (?P<asked>[^;]*?), used: (?P<used>[^;]*?), "
    r"limited: (?P<limit>[^;\n]*)"
)
AMOUNT = re.compile(r"(?P<name>[\w./-]+)=(?P<count>[\w.]+)")
SECURITY = re.compile(r'violates PodSecurity "(?P<level>[\w:.-]+)"')
# Of an LLMInferenceService: what becomes of its pods, and of the way to them.
LLM_WORKLOADS = ("MainWorkloadReady", "PrefillWorkloadReady", "WorkerWorkloadReady", "PrefillWorkerWorkloadReady")
LLM_ROUTER = ("GatewaysReady", "HTTPRoutesReady", "InferencePoolReady", "SchedulerWorkloadReady")
LLM_ROUTER_REASONS = frozenset(
    {
        "RefsInvalid",
        "GatewayPreconditionNotMet",
        "HTTPRouteReconcileError",
        "HTTPRouteFetchError",
        "PlatformNetworkingReconcileError",
        "InferencePoolFetchError",
        "SchedulerReconcileError",
    }
)
CHANGED_MEANWHILE = "the object has been modified"
RUNTIME_REASONS = frozenset({"NoSupportingRuntime", "RuntimeNotRecognized", "RuntimeDisabled", "InvalidPredictorSpec"})


def from_workload(workload: WorkloadView) -> Reason | None:
    """Why pods could not be created; None when they could."""
    condition = workload.condition("ReplicaFailure")
    if condition is None or condition.status != "True":
        return None
    return pods_refused(condition.message)


def from_group(events: Iterable[EventView], pods: Collection[PodView]) -> Reason | None:
    """Why pods of a replica that spans nodes could not be created: a StatefulSet says so in events alone.

    An event outlives its cause, so it counts while a pod is missing: while there is none, or a leader without workers.
    """
    if any(pod.role == WORKER for pod in pods):
        return None
    refused = [event for event in events if event.kind == "StatefulSet" and event.reason == "FailedCreate"]
    return pods_refused(refused[-1].message) if refused else None


def pods_refused(message: str) -> Reason:
    """Why the API server refused pods, read from its sentence."""
    if found := QUOTA.search(message):
        return _quota(found, message)
    if found := SECURITY.search(message):
        return Reason(
            Code.POD_SECURITY,
            Weight.BLOCKED,
            f"The namespace admits only pods of the level {found['level']}, and this one is not.",
            "An admin has to look at it: what Slipway builds should pass.",
            evidence=message[:MAX_EVIDENCE],
        )
    return Reason(
        Code.PODS_REFUSED,
        Weight.BLOCKED,
        "The cluster refuses to create the pods.",
        "An admin has to look at the namespace.",
        evidence=message[:MAX_EVIDENCE],
    )


def from_service(service: ServiceView, events: Iterable[EventView] = ()) -> Reason | None:
    """What is wrong with the service itself; what KServe says of the model is not believed here."""
    if trouble := _of_llm(service):
        return trouble
    if service.transition == "InvalidSpec" and service.failure_reason in RUNTIME_REASONS:
        return Reason(
            Code.RUNTIME,
            Weight.BLOCKED,
            "The cluster has no runtime that can serve this model.",
            "An admin has to check the serving runtimes; Slipway applies its own again.",
            field="profile",
            evidence=service.failure_message[:MAX_EVIDENCE],
        )
    predictor = service.condition("PredictorReady")
    if predictor is not None and predictor.status == "False" and predictor.reason == "FailedCreate":
        return pods_refused(predictor.message)
    if predictor is not None and predictor.status == "False" and predictor.reason == "ReconcileFailed":
        return Reason(
            Code.RECONCILE,
            Weight.BLOCKED,
            "KServe cannot turn this deployment into pods.",
            "An admin has to read the message: it names the field the cluster refused.",
            evidence=predictor.message[:MAX_EVIDENCE],
        )
    return _internal_error(service, events)


def _of_llm(service: ServiceView) -> Reason | None:
    """What keeps an LLMInferenceService from becoming pods and a way to them. A stopped one lacks nothing."""
    failing = {c.type: c for c in service.conditions if c.status == "False" and c.reason != "Stopped"}
    if presets := failing.get("PresetsCombined"):
        return Reason(
            Code.RECONCILE,
            Weight.BLOCKED,
            "KServe cannot put together what this deployment is made of.",
            "An admin has to read the message: it names the preset or the field.",
            evidence=presets.message[:MAX_EVIDENCE],
        )
    for kind in LLM_WORKLOADS:
        found = failing.get(kind)
        if found is None or not found.reason.startswith("Reconcile") or CHANGED_MEANWHILE in found.message:
            continue
        return from_log(found.message) or Reason(
            Code.RECONCILE,
            Weight.BLOCKED,
            "KServe cannot turn this deployment into pods.",
            "An admin has to read the message: it names the field the cluster refused.",
            evidence=found.message[:MAX_EVIDENCE],
        )
    for kind in LLM_ROUTER:
        found = failing.get(kind)
        if found is not None and found.reason in LLM_ROUTER_REASONS and CHANGED_MEANWHILE not in found.message:
            return Reason(
                Code.RECONCILE,
                Weight.STALLED,
                "KServe cannot make the way from the gateway to the pods.",
                "It is tried again. An admin has to look at the gateway and read the message.",
                evidence=found.message[:MAX_EVIDENCE],
            )
    return None


def failed_load(service: ServiceView) -> Reason | None:
    """What KServe itself says of a failed load, while it says that the load is blocked; the text is never cleared."""
    if service.transition != "BlockedByFailedLoad" or not service.failure_message:
        return None
    return from_log(service.failure_message) or Reason(
        Code.DOWNLOAD_FAILED if service.failure_reason == "ModelLoadFailed" else Code.ENGINE_CRASH,
        Weight.FAILED,
        "The model could not be loaded.",
        "Read the log of the storage initializer and of the engine.",
        field="source_uri",
        numbers={"exit_code": service.failure_exit_code or 0},
        evidence=service.failure_message.strip()[-MAX_EVIDENCE:],
    )


def rollout_slow(workload: WorkloadView) -> Reason | None:
    """The workload gave up waiting, which is not final: a slow pod may still become ready."""
    condition = workload.condition("Progressing")
    if condition is None or condition.reason != "ProgressDeadlineExceeded":
        return None
    return Reason(
        Code.ROLLOUT_SLOW,
        Weight.STALLED,
        "It takes longer than ten minutes, but is still being tried.",
        "Look at the pods: a large model may only need more time.",
        evidence=condition.message[:MAX_EVIDENCE],
    )


def _internal_error(service: ServiceView, events: Iterable[EventView]) -> Reason | None:
    settled = service.condition("Ready")
    if settled is not None and settled.status == "True":
        return None
    for event in events:
        if event.kind != "InferenceService" or event.reason != "InternalError":
            continue
        if "StorageURI not supported" in event.message:
            return from_log(event.message)
        if "ServingRuntimes" in event.message or "runtime" in event.message.lower():
            return Reason(
                Code.RUNTIME,
                Weight.BLOCKED,
                "The cluster has no runtime that can serve this model.",
                "An admin has to check the serving runtimes; Slipway applies its own again.",
                field="profile",
                evidence=event.message[:MAX_EVIDENCE],
            )
    return None


def _quota(found: re.Match[str], message: str) -> Reason:
    asked, used, limit = (_gpus(found[name]) for name in ("asked", "used", "limit"))
    sentence = "The team’s allowance on the cluster is used up."
    if limit is not None and asked is not None and used is not None:
        gpus = f"{limit} GPU" if limit == 1 else f"{limit} GPUs"
        sentence = f"The team may hold {gpus} of this kind on the cluster: {used} in use, {asked} more asked for."
    return Reason(
        Code.QUOTA_EXCEEDED,
        Weight.BLOCKED,
        sentence,
        "Stop another deployment, lower the replicas, or ask for quota.",
        field="replicas_max",
        numbers={"asked": asked or 0, "used": used or 0, "limit": limit or 0, "quota": found["quota"]},
        evidence=message[:MAX_EVIDENCE],
    )


def _gpus(amounts: str) -> int | None:
    for part in AMOUNT.finditer(amounts):
        if part["name"].startswith("requests.nvidia.com/") and part["count"].isdigit():
            return int(part["count"])
    return None
