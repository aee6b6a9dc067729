"""The autoscaler an InferenceService gets in Standard mode: an HPA, a ScaledObject, or none; KServe 0.20. Pure.

KServe looks after the two kinds apart: what the class `keda` made stays when the class becomes another one, and an
HPA is taken away for `none` and `external` alone.
"""

from __future__ import annotations

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_config import KServeConfig
from sandbox.lite.controllers.meta import quantity

HPA, KEDA = "hpa", "keda"
DEFAULT_CPU = 80  # percent
_PERCENT = "the target utilization percentage should be a [1-100] integer"


def hpa(predictor: Obj, metadata: Obj) -> Obj:
    """Return the HorizontalPodAutoscaler; `metadata` is the Deployment's. It never goes to zero."""
    least = max(_least(predictor), 1)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"]},
            "minReplicas": least,
            "maxReplicas": max(int(predictor.get("maxReplicas") or 0), least),
            "metrics": _hpa_metrics(predictor),
            "behavior": {},
        },
    }


def scaled_object(predictor: Obj, metadata: Obj, config: KServeConfig) -> Obj:
    """Return the ScaledObject. Of a behavior only the two windows count; without metrics it has no triggers."""
    least = _least(predictor)
    behavior = (predictor.get("autoScaling") or {}).get("behavior") or {}
    rules = {}
    for direction, shipped in (("scaleDown", config.scale_down_window), ("scaleUp", config.scale_up_window)):
        window = (behavior.get(direction) or {}).get("stabilizationWindowSeconds")
        rules[direction] = {"stabilizationWindowSeconds": shipped if window is None else window}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"name": metadata["name"]},
            "minReplicaCount": least,
            "maxReplicaCount": max(int(predictor.get("maxReplicas") or 0), least),
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": rules}, "scalingModifiers": {}},
            "triggers": [_trigger(metric, metadata) for metric in _metrics(predictor)] or None,
        },
    }


def problem(predictor: Obj, chosen: str) -> str | None:
    """Return why the webhook refuses what a service says of its scaling."""
    if chosen == HPA:
        return _hpa_problem(predictor)
    if chosen != KEDA:
        return None
    if predictor.get("scaleMetric") is not None:
        return "ScaleMetric is not supported for KEDA"
    found = (_keda_problem(metric) for metric in _metrics(predictor))
    return next((why for why in found if why), None)


def _least(predictor: Obj) -> int:
    found = predictor.get("minReplicas")
    return 1 if found is None else int(found)


def _metrics(predictor: Obj) -> list[Obj]:
    return (predictor.get("autoScaling") or {}).get("metrics") or []


# HPA --------------------------------------------------------------------------------------------------------


def _hpa_metrics(predictor: Obj) -> list[Obj]:
    if predictor.get("autoScaling") is not None:
        return [_hpa_metric(item["resource"]) for item in _metrics(predictor) if item.get("resource")]
    name, target = predictor.get("scaleMetric") or "cpu", predictor.get("scaleTarget")
    if name == "memory" and target is None:
        return []
    return [_utilization(name, DEFAULT_CPU if target is None else target)]


def _hpa_metric(source: Obj) -> Obj:
    name, target = source["name"], source.get("target") or {}
    if name == "cpu":
        return _utilization(name, target.get("averageUtilization") or DEFAULT_CPU)
    shown = {key: target[key] for key in ("type", "averageUtilization", "averageValue") if target.get(key) is not None}
    return {"type": "Resource", "resource": {"name": name, "target": shown}}


def _utilization(name: str, percent: int) -> Obj:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def _hpa_problem(predictor: Obj) -> str | None:
    metric, target = predictor.get("scaleMetric") or "cpu", predictor.get("scaleTarget")
    if metric not in ("cpu", "memory"):
        return f"[{metric}] is not a supported metric"
    if target is not None and ((metric == "cpu" and target < 1) or target > 100):
        return _PERCENT
    if target is not None and metric == "memory" and target < 1:
        return "the target memory should be greater than 1 MiB"
    for item in _metrics(predictor):
        if item["type"] != "Resource":
            return f"invalid HPA metric source type with value [{item['type']}],valid metric source types are Resource"
        if item.get("resource") is None:
            return "metricSpec.Resource is not set for resource metric source type"
    return None


# KEDA -------------------------------------------------------------------------------------------------------


def _trigger(metric: Obj, metadata: Obj) -> Obj:
    if metric["type"] == "Resource":
        source = metric["resource"]
        return {
            "type": source["name"],
            "metricType": source["target"]["type"],
            "metadata": {"value": _resource_value(source)},
        }
    if metric["type"] == "PodMetric":
        return _pod_trigger(metric["podmetric"], metadata)
    source = metric["external"]
    of = source["metric"]
    words = {
        "serverAddress": of.get("serverAddress", ""),
        "query": of.get("query", ""),
        "threshold": str(source["target"].get("value", "0")),
    }
    if of.get("backend", "") == "prometheus" and of.get("namespace"):
        words["namespace"] = of["namespace"]
    access = source.get("authenticationRef") or {}
    if access.get("authModes"):
        words["authModes"] = access["authModes"]
    name = (access.get("authenticationRef") or {}).get("name")
    return {"type": of.get("backend", ""), "metadata": words, **({"authenticationRef": {"name": name}} if name else {})}


def _resource_value(source: Obj) -> str:
    target = source["target"]
    match target["type"]:
        case "Utilization":
            return str(target.get("averageUtilization") or (DEFAULT_CPU if source["name"] == "cpu" else 0))
        case "AverageValue":
            return str(target.get("averageValue", "0"))
    return str(target.get("value", "0"))


def _pod_trigger(source: Obj, metadata: Obj) -> Obj:
    of = source["metric"]
    scope = f'{{namespace="{metadata["namespace"]}", deployment="{metadata["name"]}"}}'
    words = {
        "metricQuery": f"sum({of.get('query', '')}{scope})",
        "targetValue": str(source["target"].get("value", "0")),
        "scalerAddress": of.get("serverAddress") or "keda-otel-scaler.keda.svc:4318",
    }
    if of.get("operationOverTime"):
        words["operationOverTime"] = of["operationOverTime"]
    return {"type": "external", "metadata": words}


def _keda_problem(metric: Obj) -> str | None:
    match metric["type"]:
        case "Resource":
            source = metric.get("resource")
            if source is None:
                return "metricSpec.Resource is not set for resource metric source type"
            return _keda_resource_problem(source)
        case "External" | "PodMetric" as kind:
            source = metric.get("external" if kind == "External" else "podmetric")
            if source is None:
                word = "external" if kind == "External" else "pod"
                name = "External" if kind == "External" else "PodMetric"
                return f"metricSpec.{name} is not set for {word} metric source type"
            if not source["metric"].get("query"):
                return "the query should not be empty"
            if (source.get("target") or {}).get("value") is None:
                return "the target threshold value should not be empty"
            return _target_problem(source["target"])
    return f"unknown KEDA metric type with value [{metric['type']}].Valid types are Resource,External,PodMetric"


def _keda_resource_problem(source: Obj) -> str | None:
    name, target = source["name"], source.get("target") or {}
    if name == "cpu" and target.get("type") != "Utilization":
        return "the cpu target value type should be Utilization"
    if name == "memory":
        if target.get("type") not in ("AverageValue", "Utilization"):
            return "the memory target value type should be AverageValue or Utilization"
        if target["type"] == "AverageValue" and quantity(target.get("averageValue", 0)) < 2**20:
            return "the memory target value should be greater than 1 MiB"
    elif name != "cpu":
        return f"resource type {name} is not supported"
    return _target_problem(target)


def _target_problem(target: Obj) -> str | None:
    kind = target.get("type")
    needed = {"Utilization": "averageUtilization", "AverageValue": "averageValue", "Value": "value"}.get(kind or "")
    if needed is not None and target.get(needed) is None:
        return f"the {needed[0].upper()}{needed[1:]} type should be set"
    if kind == "Utilization" and not 1 <= target["averageUtilization"] <= 100:
        return _PERCENT
    return None
