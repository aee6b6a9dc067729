"""HorizontalPodAutoscalers (autoscaling/v2) as the API server completes and checks them. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from sandbox.client import Obj
from sandbox.lite.errors import Cause, invalid_value, required, unsupported
from sandbox.lite.quantity import parse

DEFAULT_CPU = 80  # percent
_UP: Obj = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN: Obj = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_MOST_SECONDS = {"stabilizationWindowSeconds": 3600, "periodSeconds": 1800}


def default(spec: Obj) -> None:
    """Fill, in place, what a spec leaves out. The window for shrinking stays open: the controller knows it."""
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": DEFAULT_CPU}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if isinstance(behavior, dict):
        for direction, rules in (("scaleUp", _UP), ("scaleDown", _DOWN)):
            given = {name: value for name, value in (behavior.get(direction) or {}).items() if value is not None}
            behavior[direction] = {**copy.deepcopy(rules), **given}


def problems(spec: Obj) -> Iterator[Cause]:
    """Yield what is wrong with a completed spec."""
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas") or 0
    if least < 1:
        yield invalid_value("spec.minReplicas", least, "must be greater than or equal to 1")
    if most == 0:
        yield required("spec.maxReplicas", "must be set and greater than 0")
    elif most < 0:
        yield invalid_value("spec.maxReplicas", most, "must be greater than or equal to 1")
    if most < least:
        yield invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    target = spec.get("scaleTargetRef") or {}
    for name in ("kind", "name"):
        if not target.get(name):
            yield required(f"spec.scaleTargetRef.{name}")
    for index, metric in enumerate(spec.get("metrics") or ()):
        yield from _metric(metric, f"spec.metrics[{index}]")
    for direction in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(direction)
        if rules is not None:
            yield from _rules(rules, f"spec.behavior.{direction}")


def _metric(metric: Obj, path: str) -> Iterator[Cause]:
    kind = metric.get("type") or ""
    if not kind:
        yield required(f"{path}.type", "must specify a metric source type")
    if kind not in _SOURCES:
        yield unsupported(f"{path}.type", kind, list(_SOURCES))
        return
    name = _SOURCES[kind]
    source = metric.get(name)
    if source is None:
        yield required(f"{path}.{name}", "must populate information for the given metric source")
        return
    if "metric" in source and not source["metric"].get("name"):
        yield required(f"{path}.{name}.metric.name", "must specify a metric name")
    if "esource" in name and not source.get("name"):
        yield required(f"{path}.{name}.name", "must specify a resource name")
    yield from _target(source.get("target") or {}, f"{path}.{name}.target", kind)


def _target(target: Obj, path: str, kind: str) -> Iterator[Cause]:
    if not target.get("type"):
        yield required(f"{path}.type", "must specify a metric target type")
    if target.get("type") not in ("Utilization", "Value", "AverageValue"):
        yield invalid_value(
            f"{path}.type", target.get("type", ""), "must be either Utilization, Value, or AverageValue"
        )
    for name in ("value", "averageValue"):
        if target.get(name) is not None and not _positive(target[name]):
            yield invalid_value(f"{path}.{name}", target[name], "must be positive")
    utilization = target.get("averageUtilization")
    if utilization is not None and utilization < 1:
        yield invalid_value(f"{path}.averageUtilization", utilization, "must be greater than 0")
    value, average = target.get("value"), target.get("averageValue")
    if kind in ("External", "Object") and value is None and average is None:
        yield required(f"{path}.averageValue", "must set either a target value for metric or a per-pod target")
    elif kind == "External" and value is not None and average is not None:
        why = "Forbidden: may not set both a target value for metric and a per-pod target"
        yield Cause(f"{path}.value", "FieldValueForbidden", why)
    elif kind == "Pods" and average is None:
        yield required(f"{path}.averageValue", "must specify a positive target averageValue")
    elif kind in ("Resource", "ContainerResource") and utilization is None and average is None:
        yield required(f"{path}.averageUtilization", "must set either a target raw value or a target utilization")


def _rules(rules: Obj, path: str) -> Iterator[Cause]:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None:
        yield from _seconds(window, path, "stabilizationWindowSeconds", 0, "must be greater than or equal to zero")
    if rules.get("selectPolicy") not in (None, "Max", "Min", "Disabled"):
        yield unsupported(f"{path}.selectPolicy", rules["selectPolicy"], ["Disabled", "Max", "Min"])
    if not rules.get("policies"):
        yield required(f"{path}.policies", "must specify at least one Policy")
    for index, policy in enumerate(rules.get("policies") or ()):
        where = f"{path}.policies[{index}]"
        if policy.get("type") not in ("Pods", "Percent"):
            yield unsupported(f"{where}.type", policy.get("type", ""), ["Percent", "Pods"])
        if policy.get("value", 0) <= 0:
            yield invalid_value(f"{where}.value", policy.get("value", 0), "must be greater than zero")
        yield from _seconds(policy.get("periodSeconds", 0), where, "periodSeconds", 1, "must be greater than zero")


def _seconds(value: int, path: str, name: str, least: int, why: str) -> Iterator[Cause]:
    if value < least:
        yield invalid_value(f"{path}.{name}", value, why)
    if value > _MOST_SECONDS[name]:
        yield invalid_value(f"{path}.{name}", value, f"must be less than or equal to {_MOST_SECONDS[name]}")


def _positive(amount: Any) -> bool:
    try:
        return parse(amount) > 0
    except ValueError:
        return False
