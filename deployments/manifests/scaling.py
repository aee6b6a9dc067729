"""When replicas come and go: by the requests at hand and the KV cache in use where KEDA is there, else by processors.

KServe hands each metric to KEDA as an average per replica: a sum over all replicas, divided by the threshold, is the
number of replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from deployments.manifests.common import Wish
from deployments.spec import DeploymentSpec, Scaling

# The label that Prometheus makes of LABEL_DEPLOYMENT, by which a PodMonitor marks every series.
SELECTOR_LABEL = "slipway_dev_deployment"
ROLE_LABEL = "llm_d_ai_role"
KEDA = "keda.sh"
# Replicas go again after ten quiet minutes: an engine takes minutes to come back.
QUIET_SECONDS = 600


class Autoscaler(StrEnum):
    """KServe's classes of autoscalers that Slipway uses."""

    NONE = "none"
    KEDA = "keda"
    HPA = "hpa"


def autoscaler_of(wish: Wish) -> Autoscaler:
    """What scales a deployment: nothing where its replicas are a fixed number."""
    replicas = wish.spec.replicas
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
                    "behavior": {"scaleDown": {"stabilizationWindowSeconds": QUIET_SECONDS}},
                }
            }
        case Autoscaler.HPA:
            return {"scaleMetric": "cpu", "scaleTarget": scaling.percent}
        case _:
            return {}


def triggers(wish: Wish, spec: DeploymentSpec, **labels: str) -> list[tuple[str, str]]:
    """Queries over all replicas, and what one replica may have of each; more `labels` select some of the pods."""
    scaling = spec.scaling or Scaling()
    series = _selector({SELECTOR_LABEL: wish.deployment_id, **labels})
    waiting, running, cache = (
        f"vllm:{name}{series}" for name in ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc")
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


def _selector(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
