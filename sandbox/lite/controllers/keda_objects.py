"""What a ScaledObject says, and the HorizontalPodAutoscaler it becomes. Pure; KEDA 2.20."""

from __future__ import annotations

import copy
import re

from sandbox.client import Obj
from sandbox.lite.controllers.hpa_admission import default
from sandbox.lite.controllers.meta import annotations_of, labels_of, owner_ref
from sandbox.lite.controllers.resources import Resource

VERSION = "2.20.2"
OWNER_LABEL = "scaledobject.keda.sh/name"
EXCLUDED_LABELS = "scaledobject.keda.sh/hpa-excluded-labels"
PAUSED, PAUSED_REPLICAS = "autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas"
PAUSED_IN, PAUSED_OUT = "autoscaling.keda.sh/paused-scale-in", "autoscaling.keda.sh/paused-scale-out"
FORCED = "autoscaling.keda.sh/force-activation"
DEFAULT_MOST = 100
_LABEL = 63


def target_of(scaled: Obj) -> tuple[str, str, str]:
    """Return apiVersion, kind and name of what is scaled; a Deployment unless said."""
    target = scaled["spec"]["scaleTargetRef"]
    return target.get("apiVersion") or "apps/v1", target.get("kind") or "Deployment", target.get("name", "")


def gvk(api_version: str, kind: str) -> str:
    """Spell a kind as KEDA does: `apps/v1.Deployment`."""
    group, _, version = api_version.rpartition("/")
    return f"{group}/{version}.{kind}"


def says(scaled: Obj, annotation: str) -> bool:
    """Tell whether a switch is on: what is not plainly false counts as true."""
    found = annotations_of(scaled).get(annotation)
    return found is not None and found not in ("0", "f", "F", "FALSE", "false", "False")


def paused(scaled: Obj) -> bool:
    """Tell whether the ScaledObject is to rest as a whole."""
    return PAUSED_REPLICAS in annotations_of(scaled) or says(scaled, PAUSED)


def paused_replicas(scaled: Obj) -> int | None:
    """Return the size to rest at. ValueError, in Go's words, when it is no number."""
    text = annotations_of(scaled).get(PAUSED_REPLICAS)
    if text is None:
        return None
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def bounds(scaled: Obj) -> tuple[int, int]:
    """Return the least and the most replicas of the autoscaler, which never goes to zero itself."""
    spec = scaled["spec"]
    return max(spec.get("minReplicaCount") or 0, 1), spec.get("maxReplicaCount", DEFAULT_MOST)


def bounds_problem(scaled: Obj) -> str | None:
    """Return what is wrong with idle, least and most replicas."""
    spec = scaled["spec"]
    least, most = bounds(scaled)
    if spec.get("minReplicaCount") is None:
        least = 0
    if least > most:
        return f"MinReplicaCount={least} must be less than MaxReplicaCount={most}"
    idle = spec.get("idleReplicaCount")
    if idle is not None and idle >= least:
        return f"IdleReplicaCount={idle} must be less than MinReplicaCount={least}"
    return None


def modifiers(scaled: Obj) -> Obj:
    """Return the scalingModifiers, empty where none are set."""
    found = (scaled["spec"].get("advanced") or {}).get("scalingModifiers") or {}
    return {name: value for name, value in found.items() if value}


def hpa_name(scaled: Obj) -> str:
    """Return the name of the autoscaler."""
    config = (scaled["spec"].get("advanced") or {}).get("horizontalPodAutoscalerConfig") or {}
    return config.get("name") or f"keda-hpa-{scaled['metadata']['name']}"


def hpa(scaled: Obj, resource: Resource, metrics: list[Obj]) -> Obj:
    """Return the autoscaler, completed as the API server would."""
    least, most = bounds(scaled)
    spec: Obj = {
        "minReplicas": least,
        "maxReplicas": most,
        "metrics": metrics,
        "scaleTargetRef": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "name": scaled["spec"]["scaleTargetRef"]["name"],
        },
    }
    behavior = _behavior(scaled)
    if behavior is not None:
        spec["behavior"] = behavior
    default(spec)
    meta = scaled["metadata"]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": hpa_name(scaled),
            "namespace": meta["namespace"],
            "labels": _labels(scaled),
            "annotations": dict(annotations_of(scaled)),
            "ownerReferences": [owner_ref(scaled)],
        },
        "spec": spec,
    }


def _behavior(scaled: Obj) -> Obj | None:
    config = (scaled["spec"].get("advanced") or {}).get("horizontalPodAutoscalerConfig") or {}
    behavior: Obj | None = copy.deepcopy(config.get("behavior"))
    for annotation, direction in ((PAUSED_IN, "scaleDown"), (PAUSED_OUT, "scaleUp")):
        if says(scaled, annotation):
            behavior = behavior or {}
            behavior[direction] = {**(behavior.get(direction) or {}), "selectPolicy": "Disabled"}
    return behavior


def _labels(scaled: Obj) -> dict[str, str]:
    name = hpa_name(scaled)
    if len(name) > _LABEL:
        name = re.sub(r"[^a-zA-Z0-9]+$", "", name[:_LABEL])
    excluded = annotations_of(scaled).get(EXCLUDED_LABELS, "").split(",")
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/version": VERSION,
        "app.kubernetes.io/part-of": scaled["metadata"]["name"],
        "app.kubernetes.io/managed-by": "keda-operator",
        **{key: value for key, value in labels_of(scaled).items() if key not in excluded},
    }
