"""Objects of the cluster, cut down to what states and reasons need. Pure: API dicts in, frozen views out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployments.labels import (
    ADAPTER_INITIALIZER,
    ANNOTATION_HASH,
    ANNOTATION_STOP,
    ENGINE_CONTAINER,
    FETCH_COMPONENT,
    GPU_PREFIX,
    INITIALIZER,
    LABEL_COMPONENT,
    LABEL_DEPLOYMENT,
    LABEL_ISVC,
    LABEL_LLM_COMPONENT,
    LABEL_LLM_NAME,
    LABEL_PART_OF,
    LABEL_REVISION,
    LABEL_ROLE,
    PART_OF_LLM,
    SCHEDULER_COMPONENT,
    WORKER_COMPONENT,
)

MAX_MESSAGE = 4096
PREFILL, SCHEDULER, WORKER = "prefill", "scheduler", "worker"
# Of pods that fetch weights ahead of those that serve.
FETCH = FETCH_COMPONENT
# By the component that KServe writes: pods that only help those that take requests.
HELPERS = {SCHEDULER_COMPONENT: SCHEDULER, WORKER_COMPONENT: WORKER}
NO_ENGINES = frozenset({*HELPERS.values(), FETCH})
# What is named after a claim for weights, or made for one: deployments.manifests.cache names them.
OF_WEIGHTS = re.compile(r"(?P<service>.+)-weights-[0-9a-f]{10}(-[a-z0-9]{5})?")


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container's status: `state` is waiting, running, terminated or empty; `last_*` is the run before."""

    name: str
    init: bool = False
    state: str = ""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    ready: bool = False
    started: bool = False
    restarts: int = 0
    last_reason: str = ""
    last_message: str = ""
    last_exit_code: int | None = None
    since: datetime | None = None
    image: str = ""

    @property
    def died(self) -> bool:
        """True when this run or the one before it ended with an error."""
        return bool(self.exit_code) or bool(self.last_exit_code)


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod: where it is, which revision it runs, and how its containers do.

    `role` is prefill, decode or both for the engines of an LLMInferenceService, scheduler for its endpoint picker,
    worker for the pods on further nodes of a replica that spans several, and fetch for those that fetch weights ahead.
    """

    name: str
    namespace: str
    uid: str = ""
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    node: str = ""
    ip: str = ""
    deployment: str = ""
    revision: int | None = None
    service: str = ""
    role: str = ""
    template_hash: str = ""
    terminating: bool = False
    ready: bool = False
    scheduled: bool | None = None
    unschedulable: str = ""
    gpus: int = 0
    created: datetime | None = None
    ready_since: datetime | None = None
    containers: tuple[ContainerView, ...] = ()

    @property
    def holds_gpus(self) -> bool:
        """True until the pod has ended: a terminating pod still holds its GPUs."""
        return self.phase not in {"Succeeded", "Failed"}

    @property
    def is_engine(self) -> bool:
        """False for a pod that only helps engines, as the endpoint picker, or a further node's part of one."""
        return self.role not in NO_ENGINES

    @property
    def engine(self) -> ContainerView | None:
        """The container that serves the model."""
        return self._container(ENGINE_CONTAINER) or next((c for c in self.containers if not c.init), None)

    @property
    def initializer(self) -> ContainerView | None:
        """The container that downloads: the model, or before it adapters, while it is at it."""
        first = self._container(ADAPTER_INITIALIZER)
        unfinished = first is not None and not (first.state == "terminated" and first.exit_code == 0)
        return first if unfinished else self._container(INITIALIZER)

    def _container(self, name: str) -> ContainerView | None:
        return next((c for c in self.containers if c.name == name), None)


@dataclass(frozen=True, slots=True)
class ConditionView:
    """One condition of a status."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class WorkloadView:
    """An apps/v1 Deployment or ReplicaSet behind a service."""

    kind: str
    name: str
    namespace: str
    uid: str = ""
    service: str = ""
    revision: int | None = None
    desired: int = 0
    replicas: int = 0
    ready: int = 0
    updated: int = 0
    conditions: tuple[ConditionView, ...] = ()

    def condition(self, kind: str) -> ConditionView | None:
        """The condition of that type, if it is there."""
        return next((c for c in self.conditions if c.type == kind), None)


@dataclass(frozen=True, slots=True)
class ServiceView:
    """An InferenceService or LLMInferenceService: its conditions, and of the first what KServe says of the model."""

    name: str
    namespace: str
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    deployment: str = ""
    revision: int | None = None
    spec_hash: str = ""
    stop_asked: bool = False
    deleting: bool = False
    conditions: tuple[ConditionView, ...] = ()
    transition: str = ""
    target_state: str = ""
    active_state: str = ""
    failure_reason: str = ""
    failure_message: str = ""
    failure_exit_code: int | None = None

    def condition(self, kind: str) -> ConditionView | None:
        """The condition of that type, if it is there."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def stopped(self) -> bool:
        """True when KServe has taken the service down on request."""
        return is_stopped({c.type: (c.status, c.reason) for c in self.conditions})


@dataclass(frozen=True, slots=True)
class EventView:
    """One Kubernetes event about an object of a deployment."""

    type: str
    reason: str
    message: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    count: int = 1
    last_seen: datetime | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything seen of one deployment. `complete` is False until every list behind it was read."""

    service: ServiceView | None = None
    workloads: tuple[WorkloadView, ...] = ()
    pods: tuple[PodView, ...] = ()
    events: tuple[EventView, ...] = ()
    log_tails: Mapping[str, str] = field(default_factory=dict)
    # By revision and step (deployments.kube.moments): when the first of its pods came that far.
    moments: Mapping[str, Mapping[str, datetime]] = field(default_factory=dict)
    complete: bool = True
    seen_at: datetime | None = None

    @property
    def live_pods(self) -> tuple[PodView, ...]:
        """Engines' pods that are not on their way out."""
        return tuple(pod for pod in self.pods if not pod.terminating and pod.is_engine)

    @property
    def gone(self) -> bool:
        """True when a complete list shows no service and no pod that may still hold GPUs."""
        return self.complete and self.service is None and not any(pod.holds_gpus for pod in self.pods)


def pod_view(raw: Mapping[str, Any]) -> PodView:
    """A pod of the API, cut down."""
    meta, spec, status = _part(raw, "metadata"), _part(raw, "spec"), _part(raw, "status")
    labels = _part(meta, "labels")
    conditions = _conditions(status)
    scheduled = next((c for c in conditions if c.type == "PodScheduled"), None)
    ready = next((c for c in conditions if c.type == "Ready"), None)
    return PodView(
        name=str(meta.get("name", "")),
        namespace=str(meta.get("namespace", "")),
        uid=str(meta.get("uid", "")),
        phase=str(status.get("phase") or "Pending"),
        reason=str(status.get("reason") or ""),
        message=_cut(status.get("message")),
        node=str(spec.get("nodeName") or ""),
        ip=str(status.get("podIP") or ""),
        deployment=str(labels.get(LABEL_DEPLOYMENT, "")),
        revision=_revision_of(meta),
        service=service_of(labels),
        role=_role(labels),
        template_hash=str(labels.get("pod-template-hash", "")),
        terminating=bool(meta.get("deletionTimestamp")),
        ready=ready is not None and ready.status == "True",
        scheduled=None if scheduled is None else scheduled.status == "True",
        unschedulable=scheduled.message if scheduled is not None and scheduled.status == "False" else "",
        gpus=_gpus(spec),
        created=_time(meta.get("creationTimestamp")),
        ready_since=ready.since if ready is not None and ready.status == "True" else None,
        containers=(
            *(_container(item, init=True) for item in _list(status, "initContainerStatuses")),
            *(_container(item, init=False) for item in _list(status, "containerStatuses")),
        ),
    )


def _role(labels: Mapping[str, Any]) -> str:
    if labels.get(LABEL_COMPONENT) == FETCH_COMPONENT:
        return FETCH
    return HELPERS.get(str(labels.get(LABEL_LLM_COMPONENT)), str(labels.get(LABEL_ROLE, "")))


def workload_view(raw: Mapping[str, Any]) -> WorkloadView:
    """A Deployment or ReplicaSet of the API, cut down."""
    meta, spec, status = _part(raw, "metadata"), _part(raw, "spec"), _part(raw, "status")
    labels = _part(meta, "labels")
    revision = _revision_of(meta)
    if revision is None:  # what KServe makes of an LLMInferenceService marks its pods alone
        group = _part(spec, "leaderWorkerTemplate")
        revision = _revision_of(_part(_part(group, "leaderTemplate") or _part(spec, "template"), "metadata"))
    return WorkloadView(
        kind=str(raw.get("kind", "Deployment")),
        name=str(meta.get("name", "")),
        namespace=str(meta.get("namespace", "")),
        uid=str(meta.get("uid", "")),
        service=service_of(labels),
        revision=revision,
        desired=_number(spec.get("replicas")) or 0,
        replicas=_number(status.get("replicas")) or 0,
        ready=_number(status.get("readyReplicas")) or 0,
        updated=_number(status.get("updatedReplicas")) or 0,
        conditions=_conditions(status),
    )


def service_view(raw: Mapping[str, Any]) -> ServiceView:
    """An InferenceService or LLMInferenceService of the API, cut down."""
    meta, status = _part(raw, "metadata"), _part(raw, "status")
    labels, annotations = _part(meta, "labels"), _part(meta, "annotations")
    model = _part(status, "modelStatus")
    states, failure = _part(model, "states"), _part(model, "lastFailureInfo")
    return ServiceView(
        name=str(meta.get("name", "")),
        namespace=str(meta.get("namespace", "")),
        uid=str(meta.get("uid", "")),
        resource_version=str(meta.get("resourceVersion", "")),
        generation=_number(meta.get("generation")) or 0,
        deployment=str(labels.get(LABEL_DEPLOYMENT, "")),
        revision=_number(labels.get(LABEL_REVISION)),
        spec_hash=str(annotations.get(ANNOTATION_HASH, "")),
        stop_asked=str(annotations.get(ANNOTATION_STOP, "")).lower() == "true",
        deleting=bool(meta.get("deletionTimestamp")),
        conditions=_conditions(status),
        transition=str(model.get("transitionStatus") or ""),
        target_state=str(states.get("targetModelState") or ""),
        active_state=str(states.get("activeModelState") or ""),
        failure_reason=str(failure.get("reason") or ""),
        failure_message=_cut(failure.get("message")),
        failure_exit_code=_number(failure.get("exitCode")),
    )


def service_of(labels: Mapping[str, Any]) -> str:
    """The service that an object of KServe's making belongs to, by its labels; empty when they name none."""
    if labels.get(LABEL_PART_OF) == PART_OF_LLM:
        return str(labels.get(LABEL_LLM_NAME, ""))
    return str(labels.get(LABEL_ISVC, ""))


def _revision_of(meta: Mapping[str, Any]) -> int | None:
    """The revision of a pod or workload: a label, or an annotation where labels would get into a selector."""
    return _number(_part(meta, "labels").get(LABEL_REVISION, _part(meta, "annotations").get(LABEL_REVISION)))


def is_stopped(conditions: Mapping[str, tuple[str, str]]) -> bool:
    """True when KServe took a service down on request; `conditions` are status and reason by type."""
    main = conditions.get("MainWorkloadReady")
    return conditions.get("Stopped", ("",))[0] == "True" or main == ("False", "Stopped")


def event_view(raw: Mapping[str, Any]) -> EventView:
    """A core/v1 or events.k8s.io/v1 Event of the API, cut down."""
    meta = _part(raw, "metadata")
    about = _part(raw, "involvedObject") or _part(raw, "regarding")
    series = _part(raw, "series")
    last = raw.get("lastTimestamp") or series.get("lastObservedTime") or raw.get("eventTime")
    return EventView(
        type=str(raw.get("type") or "Normal"),
        reason=str(raw.get("reason") or ""),
        message=_cut(raw.get("message") or raw.get("note")),
        kind=str(about.get("kind", "")),
        name=str(about.get("name", "")),
        namespace=str(about.get("namespace") or meta.get("namespace", "")),
        uid=str(about.get("uid", "")),
        count=_number(raw.get("count")) or _number(series.get("count")) or 1,
        last_seen=_time(last or meta.get("creationTimestamp")),
    )


def observe(
    *,
    service: Mapping[str, Any] | None = None,
    workloads: Iterable[Mapping[str, Any]] = (),
    pods: Iterable[Mapping[str, Any]] = (),
    events: Iterable[Mapping[str, Any]] = (),
    log_tails: Mapping[str, str] | None = None,
    complete: bool = True,
    seen_at: datetime | None = None,
) -> Observed:
    """Everything the API gave for one deployment, as one view; pods are in order of their names."""
    return Observed(
        service=service_view(service) if service else None,
        workloads=tuple(workload_view(item) for item in workloads),
        pods=tuple(sorted((pod_view(item) for item in pods), key=lambda pod: pod.name)),
        events=tuple(event_view(item) for item in events),
        log_tails=dict(log_tails or {}),
        complete=complete,
        seen_at=seen_at,
    )


def _container(raw: Mapping[str, Any], *, init: bool) -> ContainerView:
    state, last = _part(raw, "state"), _part(_part(raw, "lastState"), "terminated")
    kind = next((name for name in ("waiting", "running", "terminated") if state.get(name) is not None), "")
    now = _part(state, kind) if kind else {}
    return ContainerView(
        name=str(raw.get("name", "")),
        init=init,
        state=kind,
        reason=str(now.get("reason") or ""),
        message=_cut(now.get("message")),
        exit_code=_number(now.get("exitCode")),
        ready=bool(raw.get("ready")),
        started=bool(raw.get("started")),
        restarts=_number(raw.get("restartCount")) or 0,
        last_reason=str(last.get("reason") or ""),
        last_message=_cut(last.get("message")),
        last_exit_code=_number(last.get("exitCode")),
        since=_time(now.get("startedAt") or now.get("finishedAt")),
        image=str(raw.get("image") or ""),
    )


def _gpus(spec: Mapping[str, Any]) -> int:
    total = 0
    for container in _list(spec, "containers"):
        limits = _part(_part(container, "resources"), "limits")
        total += sum(_number(value) or 0 for name, value in limits.items() if name.startswith(GPU_PREFIX))
    return total


def _conditions(status: Mapping[str, Any]) -> tuple[ConditionView, ...]:
    return tuple(
        ConditionView(
            type=str(item.get("type", "")),
            status=str(item.get("status", "")),
            reason=str(item.get("reason") or ""),
            message=_cut(item.get("message")),
            since=_time(item.get("lastTransitionTime")),
        )
        for item in _list(status, "conditions")
    )


def _part(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(raw: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = raw.get(name)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def _cut(value: object) -> str:
    """Text of the cluster, at most MAX_MESSAGE characters: of a long one the end is kept, where causes stand."""
    text = "" if value is None else str(value)
    return text if len(text) <= MAX_MESSAGE else "…" + text[-MAX_MESSAGE:]


def _time(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if not isinstance(value, str) or not value:
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
