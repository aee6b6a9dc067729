"""What the watcher keeps of each object, and which kinds it follows. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deployments.kube import slim
from deployments.kube.kinds import Kind, kind_of
from deployments.kube.observe import (
    OF_WEIGHTS,
    EventView,
    PodView,
    ServiceView,
    WorkloadView,
    event_view,
    pod_view,
    service_of,
    service_view,
    workload_view,
)
from deployments.labels import GPU_PREFIX, LABEL_DEPLOYMENT, LABEL_INSTALL

PREDICTOR = "-predictor"
LLM_CHILD = "-kserve"  # chat-kserve, chat-kserve-prefill, chat-kserve-router-scheduler
SERVICE_KINDS = ("InferenceService", "LLMInferenceService")
OF_FETCHING = ("Pod", "Job", "PersistentVolumeClaim")
PRODUCT = "nvidia.com/gpu.product"
MEMORY = "nvidia.com/gpu.memory"


@dataclass(frozen=True, slots=True)
class OwnedSeen:
    """An object that carries our label: enough to tell whether it is still as we wrote it."""

    uid: str
    managed: str
    deployment: str = ""
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """A volume claim, whoever made it: sources may lie in any. `install` is the installation that its labels name."""

    owned: OwnedSeen
    install: str = ""


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """An InferenceService or LLMInferenceService: how it does, and whether it is still as we wrote it."""

    view: ServiceView
    owned: OwnedSeen


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node with GPUs. `resource` is the name by which pods ask for them."""

    name: str
    product: str
    resource: str
    memory_mib: int
    capacity: int
    allocatable: int
    ready: bool
    unschedulable: bool
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Followed:
    """One kind to follow: how it is decoded and what is kept; `ours` alone by label, or everybody's."""

    kind: Kind
    struct: type[Any]
    view: Callable[[Any], Any]
    ours: bool
    essential: bool = False


def followed() -> list[Followed]:
    """Every kind the watcher follows. Without the essential ones it is blind and says so."""
    owned = [
        kind_of("v1", "Namespace"),
        kind_of("v1", "ServiceAccount"),
        kind_of("v1", "ResourceQuota"),
        kind_of("v1", "LimitRange"),
        kind_of("batch/v1", "Job"),
        kind_of("networking.k8s.io/v1", "NetworkPolicy"),
        kind_of("rbac.authorization.k8s.io/v1", "RoleBinding"),
        kind_of("policy/v1", "PodDisruptionBudget"),
        kind_of("serving.kserve.io/v1alpha1", "ServingRuntime"),
        kind_of("serving.kserve.io/v1alpha2", "LLMInferenceServiceConfig"),
        kind_of("gateway.networking.k8s.io/v1", "HTTPRoute"),
        kind_of("monitoring.coreos.com/v1", "PodMonitor"),
        kind_of("autoscaling/v2", "HorizontalPodAutoscaler"),
        kind_of("keda.sh/v1alpha1", "ScaledObject"),
    ]
    return [
        Followed(kind_of("serving.kserve.io/v1beta1", "InferenceService"), slim.Service, service, True, True),
        # Not essential: a cluster may serve standard deployments and not know this kind.
        Followed(kind_of("serving.kserve.io/v1alpha2", "LLMInferenceService"), slim.Service, service, True),
        Followed(kind_of("v1", "Pod"), slim.Pod, pod, False, True),
        Followed(kind_of("v1", "Node"), slim.Node, node, False, True),
        # Those of an LLMInferenceService carry KServe's labels alone.
        Followed(kind_of("apps/v1", "Deployment"), slim.Workload, workload, False),
        Followed(kind_of("v1", "Event"), slim.Event, event, False),
        Followed(kind_of("v1", "PersistentVolumeClaim"), slim.Named, claim, False),
        *(Followed(kind, slim.Named, owned_object, True) for kind in owned),
    ]


def install_selector(install_id: str) -> str:
    """The label selector of what this installation wrote."""
    return f"{LABEL_INSTALL}={install_id}"


def owned_object(raw: slim.Named | slim.Service) -> OwnedSeen:
    """What tells whether an object is still as we wrote it."""
    metadata = raw.metadata
    labels = metadata.labels or {}
    return OwnedSeen(
        metadata.uid, metadata.managed(), labels.get(LABEL_DEPLOYMENT, ""), metadata.deletion_timestamp is not None
    )


def claim(raw: slim.Named) -> ClaimSeen:
    """A volume claim."""
    return ClaimSeen(owned_object(raw), (raw.metadata.labels or {}).get(LABEL_INSTALL, ""))


def service(raw: slim.Service) -> ServiceSeen:
    """An InferenceService or LLMInferenceService."""
    owned = owned_object(raw)
    raw.metadata.managed_fields = []
    return ServiceSeen(service_view(raw.plain()), owned)


def pod(raw: slim.Pod) -> PodView | None:
    """A pod, if it is of a service or holds GPUs."""
    view = pod_view(raw.plain())
    return view if view.gpus or view.service or view.deployment else None


def workload(raw: slim.Workload) -> WorkloadView | None:
    """An apps/v1 Deployment, if it is of a service."""
    if not (service_of(raw.metadata.labels or {}) or service_name_of("Deployment", raw.metadata.name)):
        return None
    return workload_view({"kind": "Deployment", **raw.plain()})


def event(raw: slim.Event) -> EventView | None:
    """An event, if it is about a service or what KServe made for it."""
    view = event_view(raw.plain())
    return view if service_name_of(view.kind, view.name) else None


def node(raw: slim.Node) -> NodeSeen | None:
    """A node, if it has GPUs."""
    labels = raw.metadata.labels or {}
    resource, capacity = _gpus(raw.status.capacity or {})
    if not resource and PRODUCT not in labels:
        return None
    ready = any(item.get("type") == "Ready" and item.get("status") == "True" for item in raw.status.conditions or [])
    return NodeSeen(
        name=raw.metadata.name,
        product=labels.get(PRODUCT, ""),
        resource=resource or f"{GPU_PREFIX}gpu",
        memory_mib=_number(labels.get(MEMORY, "")),
        capacity=capacity,
        allocatable=_number((raw.status.allocatable or {}).get(resource, "")),
        ready=ready,
        unschedulable=raw.spec.unschedulable,
        labels=tuple(sorted((name, value) for name, value in labels.items() if name.startswith(GPU_PREFIX))),
    )


def service_name_of(kind: str, name: str) -> str:
    """The service that an object of KServe's making belongs to, by its name."""
    if kind in SERVICE_KINDS:
        return name
    if kind in OF_FETCHING and (match := OF_WEIGHTS.fullmatch(name)):
        return match["service"]
    return next((name.rsplit(mark, 1)[0] for mark in (PREDICTOR, LLM_CHILD) if mark in name), "")


def _gpus(amounts: dict[str, str]) -> tuple[str, int]:
    named = [(name, _number(value)) for name, value in sorted(amounts.items()) if name.startswith(GPU_PREFIX)]
    return next((pair for pair in named if pair[1]), named[0] if named else ("", 0))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
