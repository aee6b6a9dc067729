"""ResourceQuotas and LimitRanges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.lite.checking.common import amount, duplicate, forbidden, whole_amount
from sandbox.lite.errors import Cause, invalid_value, required
from sandbox.lite.names import key_causes
from sandbox.lite.quantity import canonical, parse

Obj = dict[str, Any]

OBJECTS = (
    "pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims",
    "services.nodeports", "services.loadbalancers",
)  # fmt: skip
_COMPUTE = "cpu", "memory", "ephemeral-storage"
QUOTA_RESOURCES = (
    *OBJECTS, *_COMPUTE, *(f"{kind}.{name}" for kind in ("requests", "limits") for name in _COMPUTE),
    "requests.storage",
)  # fmt: skip
STANDARD = (*QUOTA_RESOURCES, "storage")
_SCOPES = (
    "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
)  # fmt: skip
_EXCLUSIVE = {"Terminating", "NotTerminating"}, {"BestEffort", "NotBestEffort"}
_LIMIT_TYPES = "Container", "Pod", "PersistentVolumeClaim"


def resource_quota(obj: Obj) -> Iterator[Cause]:
    """Check a ResourceQuota."""
    spec = obj.get("spec") or {}
    hard = spec.get("hard") or {}
    yield from _amounts(hard, "spec.hard")
    yield from _scopes(spec, hard)


def resource_quota_status(obj: Obj) -> Iterator[Cause]:
    """Check the status that a ResourceQuota is sent."""
    status = obj.get("status") or {}
    for name in ("hard", "used"):
        yield from _amounts(status.get(name) or {}, f"status.{name}")


def _amounts(amounts: Obj, where: str) -> Iterator[Cause]:
    for name in amounts:
        field = f"{where}[{name}]"
        yield from quota_name(name, field)
        yield from amount(amounts[name], field)
        if name in OBJECTS or name.startswith("count/"):
            yield from whole_amount(amounts[name], field)


def resource_quota_change(old: Obj, new: Obj) -> Iterator[Cause]:
    """Check an update of a ResourceQuota."""
    before, after = ((each.get("spec") or {}).get("scopes") for each in (old, new))
    if set(before or ()) != set(after or ()):
        yield invalid_value("spec.scopes", after, "field is immutable")


def quota_name(name: str, field: str) -> Iterator[Cause]:
    """Yield what is wrong with the name of a resource in a quota."""
    yield from resource_name(name, field)
    if "/" not in name and name not in QUOTA_RESOURCES:
        yield invalid_value(field, name, "must be a standard resource for quota")


def resource_name(name: str, field: str) -> Iterator[Cause]:
    """Yield what is wrong with the name of any resource."""
    yield from key_causes(name, field)
    if "/" not in name and name not in STANDARD and not name.startswith("hugepages-"):
        yield invalid_value(field, name, "must be a standard resource type or fully qualified")


def _scopes(spec: Obj, hard: Obj) -> Iterator[Cause]:
    scopes = spec.get("scopes") or []
    if not scopes:
        return
    for scope in scopes:
        if scope not in _SCOPES:
            yield invalid_value("spec.scopes", scopes, "unsupported scope")
        for name in hard:
            if name in QUOTA_RESOURCES and not _narrows(scope, name):
                yield invalid_value("spec.scopes", scopes, "unsupported scope applied to resource")
    for pair in _EXCLUSIVE:
        if pair <= set(scopes):
            yield invalid_value("spec.scopes", scopes, "conflicting scopes")


def _narrows(scope: str, name: str) -> bool:
    """Whether what a quota counts can be narrowed by a scope."""
    if scope == "BestEffort":
        return name == "pods"
    if scope in _SCOPES:
        return name == "pods" or name.endswith(_COMPUTE)
    return True


def limit_range(obj: Obj) -> Iterator[Cause]:
    """Check a LimitRange."""
    seen: set[str] = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        field, kind = f"spec.limits[{index}]", item.get("type") or ""
        yield from key_causes(kind, f"{field}.type")
        if kind and "/" not in kind and kind not in _LIMIT_TYPES:
            yield invalid_value(f"{field}.type", kind, "must be a standard limit type or fully qualified")
        if kind in seen:
            yield duplicate(f"{field}.type", kind)
        seen.add(kind)
        yield from _limit(item, kind, field)


def _limit(item: Obj, kind: str, field: str) -> Iterator[Cause]:
    given = {name: item.get(name) or {} for name in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")}
    for name in ("max", "min"):
        for resource in given[name]:
            yield from resource_name(resource, f"{field}.{name}[{resource}]")
    if kind == "Pod":
        for name in ("default", "defaultRequest"):
            if given[name]:
                yield forbidden(f"{field}.{name}", "may not be specified when `type` is 'Pod'")
    else:
        for name in ("default", "defaultRequest"):
            for resource in given[name]:
                yield from resource_name(resource, f"{field}.{name}[{resource}]")
    if kind == "PersistentVolumeClaim" and "storage" not in {**given["min"], **given["max"]}:
        text = "either minimum or maximum storage value is required, but neither was provided"
        yield required(f"{field}.limits", text)
    for resource in sorted({name for amounts in given.values() for name in amounts}):
        yield from _bounds(resource, given, kind, field)


def _bounds(resource: str, given: dict[str, Obj], kind: str, field: str) -> Iterator[Cause]:
    """Compare the bounds and the defaults of one resource."""
    least, most, default, request, ratio = (
        given[name].get(resource) for name in ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio")
    )

    def above(low: Any, high: Any) -> bool:
        return low is not None and high is not None and parse(low) > parse(high)

    def wrong(name: str, value: Any, text: str) -> Cause:
        return invalid_value(f"{field}.{name}[{resource}]", canonical(value), text)

    if above(least, most):
        yield wrong("min", least, f"min value {least} is greater than max value {most}")
    if kind != "Pod":
        if above(least, request):
            yield wrong("defaultRequest", request, f"min value {least} is greater than default request value {request}")
        if above(request, most):
            yield wrong("defaultRequest", request, f"default request value {request} is greater than max value {most}")
        if above(request, default):
            text = f"default request value {request} is greater than default limit value {default}"
            yield wrong("defaultRequest", request, text)
        if above(least, default):
            yield wrong("default", least, f"min value {least} is greater than default value {default}")
        if above(default, most):
            yield wrong("default", most, f"default value {default} is greater than max value {most}")
    if ratio is not None and parse(ratio) < 1:
        yield wrong("maxLimitRequestRatio", ratio, f"ratio {ratio} is less than 1")
