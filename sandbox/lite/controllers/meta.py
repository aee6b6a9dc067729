"""Small questions every controller asks of an object: its key, owner, age, labels, conditions, quantities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sandbox.client import Obj

Key = tuple[str, str]  # (namespace, name); namespace is "" for cluster-scoped objects


def key_of(obj: Obj) -> Key:
    """Return (namespace, name)."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def uid_of(obj: Obj) -> str:
    """Return the uid the API server gave."""
    return str(obj["metadata"]["uid"])


def labels_of(obj: Obj) -> dict[str, str]:
    """Return the labels, an empty dict where there are none."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    """Return the annotations, an empty dict where there are none."""
    return obj["metadata"].get("annotations") or {}


def deleting(obj: Obj) -> bool:
    """Tell whether deletion has been asked for."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def claims_of(pod: Obj) -> list[str]:
    """Return the names of the claims a pod mounts."""
    volumes = pod["spec"].get("volumes") or []
    return [item["persistentVolumeClaim"]["claimName"] for item in volumes if item.get("persistentVolumeClaim")]


# Time -------------------------------------------------------------------------------------------------------


def now() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """Spell a moment as Kubernetes does, in whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(moment: datetime) -> str:
    """Spell a moment with microseconds, as leases and event times are."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_stamp(text: str) -> datetime:
    """Read either spelling of a moment."""
    return datetime.fromisoformat(text)


def age_order(obj: Obj) -> tuple[str, str]:
    """Sort key: oldest first, by name within one second."""
    return obj["metadata"].get("creationTimestamp", ""), obj["metadata"]["name"]


# Ownership --------------------------------------------------------------------------------------------------


def controller_ref(obj: Obj) -> Obj | None:
    """Return the owner reference marked `controller`, if any."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def controller_uid(obj: Obj) -> str:
    """Return the uid of the controlling owner, or an empty string."""
    reference = controller_ref(obj)
    return str(reference["uid"]) if reference else ""


def owner_ref(owner: Obj) -> Obj:
    """Return the reference a controlled child carries."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


# Selectors --------------------------------------------------------------------------------------------------


def selected(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Match a LabelSelector; an absent one matches nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(expression_matches(term, labels) for term in selector.get("matchExpressions") or [])


def expression_matches(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Match one requirement of a label selector or of a node selector."""
    name, operator, values = term["key"], term["operator"], term.get("values") or []
    has, value = name in labels, labels.get(name, "")
    match operator:
        case "In":
            return has and value in values
        case "NotIn":
            return not has or value not in values
        case "Exists":
            return has
        case "DoesNotExist":
            return not has
        case "Gt" | "Lt":
            if not has or not value.lstrip("-").isdigit() or not values:
                return False
            return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
    return False


# Conditions -------------------------------------------------------------------------------------------------


def condition(conditions: Iterable[Obj] | None, kind: str) -> Obj | None:
    """Return the condition of this type, if any."""
    return next((item for item in conditions or [] if item["type"] == kind), None)


def is_true(conditions: Iterable[Obj] | None, kind: str) -> bool:
    """Tell whether the condition of this type is there and True."""
    found = condition(conditions, kind)
    return found is not None and found["status"] == "True"


def pod_ready(pod: Obj) -> bool:
    """Tell whether the pod's own Ready condition is True."""
    return is_true(pod.get("status", {}).get("conditions"), "Ready")


def pod_finished(pod: Obj) -> bool:
    """Tell whether every container of the pod has ended for good."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


# Quantities -------------------------------------------------------------------------------------------------

_SUFFIXES = {
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
}  # fmt: skip


def quantity(text: str | int | float) -> float:
    """Read a quantity such as `500m`, `32Gi` or `1`; ValueError when it is none."""
    if isinstance(text, int | float):
        return float(text)
    for suffix in (text[-2:], text[-1:]):
        if suffix in _SUFFIXES:
            return float(text[: -len(suffix)]) * _SUFFIXES[suffix]
    return float(text)


def pod_resources(pod: Obj, kind: str = "requests") -> dict[str, float]:
    """Sum what a pod asks for: containers and sidecars together, or the largest init container if that is more."""
    spec = pod["spec"]
    total: dict[str, float] = {}
    for container in spec.get("containers") or []:
        _add(total, _asked(container, kind))
    sidecars: dict[str, float] = {}
    peak: dict[str, float] = {}
    for container in spec.get("initContainers") or []:
        asked = _asked(container, kind)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, asked)
            asked = {}
        for name, amount in asked.items():
            peak[name] = max(peak.get(name, 0.0), amount + sidecars.get(name, 0.0))
    _add(total, sidecars)
    for name, amount in peak.items():
        total[name] = max(total.get(name, 0.0), amount)
    return total


def _asked(container: Obj, kind: str) -> dict[str, float]:
    resources = container.get("resources") or {}
    asked = {name: quantity(value) for name, value in (resources.get(kind) or {}).items()}
    if kind == "requests":  # a limit without a request is a request
        for name, value in (resources.get("limits") or {}).items():
            asked.setdefault(name, quantity(value))
    return asked


def _add(total: dict[str, float], more: Mapping[str, float]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0.0) + amount


def int_or_percent(value: int | str | None, total: int, *, round_up: bool) -> int:
    """Resolve `1` or `25%` of `total`."""
    if value is None:
        return 0
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total / 100
        return math.ceil(share) if round_up else math.floor(share)
    return int(value)
