"""What KEDA's webhook says of a ScaledObject before it is stored: refusals and warnings, in its words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sandbox.client import Obj
from sandbox.lite.controllers.keda_objects import OWNER_LABEL, bounds_problem, gvk, hpa_name, modifiers, target_of
from sandbox.lite.controllers.keda_triggers import RESOURCES, problem
from sandbox.lite.controllers.meta import annotations_of, quantity

WEBHOOK = "vscaledobject.kb.io"
_LABEL = 63
_TRANSFER = "scaledobject.keda.sh/transfer-hpa-ownership"
_NOT_CHECKED = "validations.keda.sh/hpa-ownership"


def skipped(scaled: Obj, old: Obj | None) -> bool:
    """Tell whether an update is let through unseen: it only takes a finalizer away."""
    if old is None:
        return False
    fewer = len(scaled["metadata"].get("finalizers") or []) < len(old["metadata"].get("finalizers") or [])
    return bool(fewer and scaled["spec"] == old["spec"])


def refusals(
    scaled: Obj, others: Iterable[Obj], autoscalers: Iterable[Obj], pod_spec: Mapping[str, Any] | None
) -> Iterator[str]:
    """Yield why a ScaledObject is refused; `others` and `autoscalers` are those of its namespace.

    `pod_spec` is the target's, None where there is no target to look at.
    """
    checks = (
        _rival(scaled, others),
        _modified(scaled),
        _unmeasured(scaled, pod_spec),
        _autoscaled(scaled, autoscalers),
        bounds_problem(scaled),
        _fallback(scaled),
        _name(scaled),
        problem(scaled["spec"].get("triggers") or []),
    )
    yield from (found for found in checks if found)


def warnings(scaled: Obj) -> Iterator[str]:
    """Yield what is stored but means nothing."""
    spec = scaled["spec"]
    least, idle = spec.get("minReplicaCount") or 0, spec.get("idleReplicaCount")
    if least == 0 or idle == 0:
        return
    zero = "minReplicaCount = 0 or idleReplicaCount = 0"
    if spec.get("pollingInterval") is not None and not any(item.get("useCachedMetrics") for item in spec["triggers"]):
        yield (
            "PollingInterval is configured but is not relevant. PollingInterval is only relevant when "
            f"{zero} or useCachedMetrics is enabled"
        )
    if spec.get("cooldownPeriod") is not None:
        yield f"CooldownPeriod is configured but is not relevant. CooldownPeriod is only relevant when {zero}"


def _rival(scaled: Obj, others: Iterable[Obj]) -> str | None:
    target, called = target_of(scaled), hpa_name(scaled)
    for other in others:
        name = other["metadata"]["name"]
        if name == scaled["metadata"]["name"]:
            continue
        if target_of(other) == target:
            kind = gvk(target[0], target[1])
            return f"the workload '{target[2]}' of type '{kind}' is already managed by the ScaledObject '{name}'"
        if hpa_name(other) == called:
            return f"the HPA '{called}' is already managed by the ScaledObject '{name}'"
    return None


def _modified(scaled: Obj) -> str | None:
    found = modifiers(scaled)
    if found and not found.get("formula"):
        return "error ScalingModifiers.Formula is mandatory"
    if found and not found.get("target"):
        return "error validating formula in ScalingModifiers\nformula is given but target is empty"
    if (scaled["spec"].get("fallback") or {}).get("behavior") == "scalingModifiers" and not found:
        return "scalingModifiers fallback behavior requires scalingModifiers.formula to be defined"
    return None


def _unmeasured(scaled: Obj, pod_spec: Mapping[str, Any] | None) -> str | None:
    triggers = scaled["spec"].get("triggers") or []
    measured = [item for item in triggers if item["type"] in RESOURCES]
    if not measured or pod_spec is None:
        return None
    for trigger in measured:
        kind, only = trigger["type"], (trigger.get("metadata") or {}).get("containerName")
        for container in pod_spec.get("containers") or []:
            if only in (None, "", container["name"]) and not _asks(container, kind):
                name = container["name"]
                return (
                    f"the scaledobject has a {kind} trigger but the container {name} doesn't have the {kind} "
                    "request defined"
                )
    if len(measured) == len(triggers) and not scaled["spec"].get("minReplicaCount"):
        return "scaledobject has only cpu/memory triggers AND minReplica is 0 (scale to zero doesn't work in this case)"
    return None


def _asks(container: Obj, kind: str) -> bool:
    resources = container.get("resources") or {}
    return any(quantity((resources.get(group) or {}).get(kind, 0)) > 0 for group in ("requests", "limits"))


def _autoscaled(scaled: Obj, autoscalers: Iterable[Obj]) -> str | None:
    target = target_of(scaled)
    for hpa in autoscalers:
        theirs = hpa["spec"]["scaleTargetRef"]
        same = (theirs.get("apiVersion") or "apps/v1", theirs.get("kind"), theirs.get("name")) == target
        if not same or annotations_of(hpa).get(_NOT_CHECKED) == "false" or _owns(scaled, hpa):
            continue
        name, kind = hpa["metadata"]["name"], gvk(target[0], target[1])
        if annotations_of(scaled).get(_TRANSFER) != "true":
            return f"the workload '{target[2]}' of type '{kind}' is already managed by the hpa '{name}'"
        if hpa_name(scaled) != name:
            return (
                f"the existing hpa '{name}' for workload '{target[2]}' of type '{kind}' must be specified by name in "
                "advanced settings to enable ownership transfer"
            )
    return None


def _owns(scaled: Obj, hpa: Obj) -> bool:
    owners = hpa["metadata"].get("ownerReferences") or []
    return any((item["kind"], item["name"]) == ("ScaledObject", scaled["metadata"]["name"]) for item in owners)


def _fallback(scaled: Obj) -> str | None:
    spec = scaled["spec"]
    if not spec.get("fallback") or modifiers(scaled):
        return None
    if all(item["type"] in RESOURCES for item in spec.get("triggers") or []):
        return (
            "at least one trigger (that is not cpu or memory) has to have the `AverageValue` type for the fallback "
            "to be enabled"
        )
    return None


def _name(scaled: Obj) -> str | None:
    name, called = scaled["metadata"]["name"], hpa_name(scaled)
    if len(name) > _LABEL:
        return (
            f'scaledobject name "{name}" is {len(name)} characters long; must be no more than {_LABEL} characters '
            f'because it is used as the "{OWNER_LABEL}" label value'
        )
    if len(called) > _LABEL:
        return (
            f'HPA name "{called}" derived from scaledobject is {len(called)} characters long; must be no more than '
            f"{_LABEL} characters; set spec.advanced.horizontalPodAutoscalerConfig.name to a shorter name or shorten "
            "the scaledobject name"
        )
    return None
