"""When replicas come and go: by the requests at hand and the KV cache in use where KEDA is there, else by processors.

KServe hands each metric to KEDA as an average per replica: a sum over all replicas, divided by the threshold, is the
number of replicas.

Of an InferenceService KServe makes the autoscaler. For an LLMInferenceService it knows one way, through a controller of
llm-d's own (WVA); but it leaves the replicas of its workloads as they are where the service names none (seen), so each
of these gets an autoscaler of Slipway's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deployments.labels import LLM_ENGINE_CONTAINER
from deployments.manifests.common import Object, Wish, metadata_of
from deployments.spec import DeploymentSpec, Scaling
from portal.lib.promql import Query, Selector

# By these a PodMonitor marks every series: where the pod is, and what Prometheus makes of its LABEL_DEPLOYMENT.
NAMESPACE_LABEL = "namespace"
SELECTOR_LABEL = "slipway_dev_deployment"
ROLE_LABEL = "llm_d_ai_role"
KEDA = "keda.sh"
# Replicas go again after ten quiet minutes: an engine takes minutes to come back.
QUIET_SECONDS = 600
# Kubernetes' own policy for going down, which its API takes for granted and validators ask for.
ALL_AT_ONCE = {"type": "Percent", "value": 100, "periodSeconds": 15}


class Autoscaler(StrEnum):
    """KServe's classes of autoscalers that Slipway uses."""

    NONE = "none"
    KEDA = "keda"
    HPA = "hpa"


# Of autoscalers that Slipway makes itself: they go while a deployment is stopped, as KServe's own do.
SCALER_KINDS = frozenset({"ScaledObject", "HorizontalPodAutoscaler"})


@dataclass(frozen=True)
class Workload:
    """What KServe makes of one role of an LLMInferenceService, or of all its replicas."""

    api_version: str
    kind: str
    name: str

    @property
    def ref(self) -> dict[str, str]:
        """How an autoscaler names it."""
        return {"apiVersion": self.api_version, "kind": self.kind, "name": self.name}


def autoscaler_of(wish: Wish, spec: DeploymentSpec | None = None) -> Autoscaler:
    """What scales a deployment, or with `spec` one role of it: nothing where its replicas are a fixed number."""
    replicas = (spec or wish.spec).replicas
    if replicas.min == replicas.max or not wish.resolution.autoscaler:
        return Autoscaler.NONE
    return Autoscaler(wish.resolution.autoscaler)


def available(groups: Iterable[str]) -> str:
    """The class of autoscaler that a cluster with these API groups has; empty while none is known."""
    known = set(groups)
    return "" if not known else (Autoscaler.KEDA if KEDA in known else Autoscaler.HPA).value


def predictor_scaling(wish: Wish) -> dict[str, Any]:
    """The fields of an InferenceService's predictor that say when it scales; none where it does not."""
    scaling = wish.spec.scaling or Scaling()
    match autoscaler_of(wish):
        case Autoscaler.KEDA:
            return {
                "autoScaling": {
                    "metrics": [_external(wish, query, threshold) for query, threshold in triggers(wish, wish.spec)],
                    "behavior": _behavior(),
                }
            }
        case Autoscaler.HPA:
            return {"scaleMetric": "cpu", "scaleTarget": scaling.percent}
        case _:
            return {}


def fixed_replicas(wish: Wish, spec: DeploymentSpec) -> dict[str, int]:
    """What an LLMInferenceService says of the replicas of a workload: nothing where an autoscaler sets them."""
    return {"replicas": spec.replicas.min} if autoscaler_of(wish, spec) is Autoscaler.NONE else {}


def own_scaler(wish: Wish, spec: DeploymentSpec, ending: str, workload: Workload, **labels: str) -> list[Object]:
    """The autoscaler of one workload of an LLMInferenceService; none where its replicas are a fixed number.

    `spec` is what its pods run, `labels` are those of the series of its pods alone.
    """
    # Not called like those that KServe makes of `scaling`: it looks for these, to remove them where there is none.
    metadata = metadata_of(wish, f"{wish.name}-slipway{ending}")
    match autoscaler_of(wish, spec):
        case Autoscaler.KEDA:
            return [_scaled_object(wish, spec, metadata, workload, labels)]
        case Autoscaler.HPA:
            return [_horizontal(spec, metadata, workload)]
        case _:
            return []


def _scaled_object(
    wish: Wish, spec: DeploymentSpec, metadata: Object, workload: Workload, labels: Mapping[str, str]
) -> Object:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": workload.ref,
            "minReplicaCount": spec.replicas.min,
            "maxReplicaCount": spec.replicas.max,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}},
            "triggers": [
                {
                    "type": "prometheus",
                    "metricType": "AverageValue",
                    "metadata": {
                        "serverAddress": wish.platform.prometheus_url,
                        "query": query,
                        "threshold": threshold,
                    },
                }
                for query, threshold in triggers(wish, spec, **labels)
            ],
        },
    }


def _horizontal(spec: DeploymentSpec, metadata: Object, workload: Workload) -> Object:
    percent = (spec.scaling or Scaling()).percent
    # Of the engine alone: a sidecar beside it has hardly anything to do.
    cpu = {
        "name": "cpu",
        "container": LLM_ENGINE_CONTAINER,
        "target": {"type": "Utilization", "averageUtilization": percent},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": workload.ref,
            "minReplicas": spec.replicas.min,
            "maxReplicas": spec.replicas.max,
            "metrics": [{"type": "ContainerResource", "containerResource": cpu}],
            "behavior": {"scaleDown": {**_behavior()["scaleDown"], "policies": [dict(ALL_AT_ONCE)]}},
        },
    }


def _behavior() -> dict[str, Any]:
    return {"scaleDown": {"stabilizationWindowSeconds": QUIET_SECONDS}}


def triggers(wish: Wish, spec: DeploymentSpec, **labels: str) -> list[tuple[str, str]]:
    """Queries over all replicas, and what one replica may have of each; more `labels` select some of the pods."""
    scaling = spec.scaling or Scaling()
    # A pod's labels are its maker's to choose, its namespace is not: without it any team's pod could pass for one of
    # these, and so could a pod of another Slipway whose metrics come to the same Prometheus.
    own = Selector.equal(**{NAMESPACE_LABEL: wish.namespace, SELECTOR_LABEL: wish.deployment_id}, **labels)
    waiting, running, cache = (
        Query.metric(f"vllm:{name}", own)
        for name in ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc")
    )
    return [
        (f"sum({waiting}) + sum({running})", f"{scaling.concurrency * scaling.percent / 100:g}"),
        # Several engines of one pod share its GPUs: their caches count as one.
        (f"100 * sum(avg by (pod) ({cache}))", str(scaling.percent)),
    ]


def _external(wish: Wish, query: str, threshold: str) -> dict[str, Any]:
    return {
        "type": "External",
        "external": {
            "metric": {"backend": "prometheus", "serverAddress": wish.platform.prometheus_url, "query": query},
            "target": {"type": "Value", "value": threshold},
        },
    }
