"""GPUs counted on built objects: the worst case that a reservation has to cover."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from deployments.labels import GPU_PREFIX


def gpus_of(objects: Iterable[Mapping[str, Any]]) -> int:
    """GPUs that these objects may hold at once: every replica at most scale, and the surge of a rollout.

    Raises ValueError for a kind that runs pods and whose GPUs cannot be counted here.
    """
    return sum(_gpus(obj) for obj in objects)


def _gpus(obj: Mapping[str, Any]) -> int:
    kind = obj.get("kind")
    if kind == "InferenceService":
        predictor = obj["spec"]["predictor"]
        replicas = max(predictor.get("minReplicas") or 1, predictor.get("maxReplicas") or 0)
        rolling = (predictor.get("deploymentStrategy") or {}).get("rollingUpdate") or {}
        return _of_pod(predictor) * (replicas + _surge(rolling.get("maxSurge", "25%"), replicas))
    if kind in {"LLMInferenceService", "Deployment", "StatefulSet", "Job", "Pod", "LeaderWorkerSet"}:
        raise ValueError(f"The GPUs of a {kind} are not counted here.")
    return 0


def _of_pod(predictor: Mapping[str, Any]) -> int:
    containers = [predictor.get("model") or {}, *(predictor.get("containers") or [])]
    return sum(
        int(amount)
        for container in containers
        for name, amount in ((container.get("resources") or {}).get("limits") or {}).items()
        if name.startswith(GPU_PREFIX)
    )


def _surge(value: int | str, replicas: int) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(replicas * int(value[:-1]) / 100)
    return int(value)
