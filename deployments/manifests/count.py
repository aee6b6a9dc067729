"""GPUs counted on built objects: the worst case that a reservation has to cover."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deployments.labels import GPU_PREFIX

Body = Mapping[str, Any]
# What Kubernetes takes where a Deployment says nothing.
USUAL_SURGE = "25%"
# Kinds that run pods and that nothing here builds.
UNCOUNTED = frozenset({"StatefulSet", "DaemonSet", "ReplicaSet", "CronJob", "Pod"})


def gpus_of(objects: Iterable[Body]) -> int:
    """GPUs that these objects may hold at once: every replica at most scale, and the surge of a rollout.

    An autoscaler among them that names a workload counts with the most replicas it may set. Raises ValueError for a
    kind that runs pods and whose GPUs cannot be counted here.
    """
    found = list(objects)
    most = _scaled(found)
    return sum(_gpus(obj, most) for obj in found)


def _gpus(obj: Body, most: Mapping[str, int]) -> int:
    kind = str(obj.get("kind"))
    if kind in UNCOUNTED:
        raise ValueError(f"The GPUs of a {kind} are not counted here.")
    count = _COUNTS.get(kind)
    return 0 if count is None else count(obj, most)


def _inference_service(obj: Body, most: Mapping[str, int]) -> int:
    predictor = obj["spec"]["predictor"]
    named = most.get(f"{obj['metadata']['name']}-predictor", 0)
    replicas = max(predictor.get("minReplicas") or 1, predictor.get("maxReplicas") or 0, named)
    rolling = (predictor.get("deploymentStrategy") or {}).get("rollingUpdate") or {}
    containers = [predictor.get("model") or {}, *(predictor.get("containers") or [])]
    return _of(containers) * (replicas + _surge(rolling.get("maxSurge", USUAL_SURGE), replicas))


def _llm_inference_service(obj: Body, most: Mapping[str, int]) -> int:
    """Both roles; the Deployments that KServe makes of them roll with the usual surge, and nothing can change that."""
    spec, name = obj["spec"], obj["metadata"]["name"]
    wide = spec.get("worker") is not None
    total = _llm_workload(spec, most.get(f"{name}-kserve-mn" if wide else f"{name}-kserve", 0))
    if spec.get("prefill") is not None:
        total += _llm_workload(spec["prefill"], most.get(f"{name}-kserve-prefill", 0))
    return total


def _llm_workload(workload: Body, named: int) -> int:
    scaling = workload.get("scaling") or {}
    replicas = max(_replicas(workload), scaling.get("maxReplicas") or 0, named)
    leader = _of_pod(workload.get("template") or {})
    if workload.get("worker") is not None:
        # A LeaderWorkerSet, whose groups are replaced in place.
        return (leader + _of_pod(workload["worker"]) * (_group_size(workload) - 1)) * replicas
    return leader * (replicas + _surge(USUAL_SURGE, replicas))


def _group_size(workload: Body) -> int:
    """Pods of one replica that spans nodes, as KServe works it out."""
    parallelism = workload.get("parallelism") or {}
    data, local = parallelism.get("data"), parallelism.get("dataLocal")
    if data or local:
        return max(int(data or 1) // int(local or 1), 1)
    return int(parallelism.get("pipeline") or 1)


def _deployment(obj: Body, most: Mapping[str, int]) -> int:
    spec = obj["spec"]
    replicas = max(_replicas(spec), most.get(obj["metadata"]["name"], 0))
    strategy = spec.get("strategy") or {}
    gpus = _of_pod(spec["template"]["spec"])
    if strategy.get("type") == "Recreate":
        return gpus * replicas
    rolling = strategy.get("rollingUpdate") or {}
    return gpus * (replicas + _surge(rolling.get("maxSurge", USUAL_SURGE), replicas))


def _leader_worker_set(obj: Body, most: Mapping[str, int]) -> int:
    spec = obj["spec"]
    group = spec["leaderWorkerTemplate"]
    replicas = max(_replicas(spec), most.get(obj["metadata"]["name"], 0))
    worker = _of_pod(group["workerTemplate"]["spec"])
    leader = _of_pod(group["leaderTemplate"]["spec"]) if group.get("leaderTemplate") else worker
    rolling = (spec.get("rolloutStrategy") or {}).get("rollingUpdateConfiguration") or {}
    size = int(group.get("size") or 1)
    return (leader + worker * (size - 1)) * (replicas + _surge(rolling.get("maxSurge", 0), replicas))


def _job(obj: Body, most: Mapping[str, int]) -> int:
    return _of_pod(obj["spec"]["template"]["spec"]) * int(obj["spec"].get("parallelism", 1))


_COUNTS: Mapping[str, Callable[[Body, Mapping[str, int]], int]] = {
    "InferenceService": _inference_service,
    "LLMInferenceService": _llm_inference_service,
    "Deployment": _deployment,
    "LeaderWorkerSet": _leader_worker_set,
    "Job": _job,
}


def _scaled(objects: Iterable[Body]) -> dict[str, int]:
    """The most replicas that autoscalers among the objects may set, by the name of the workload."""
    found: dict[str, int] = {}
    for obj in objects:
        if obj.get("kind") in {"ScaledObject", "HorizontalPodAutoscaler"}:
            spec = obj["spec"]
            name = spec["scaleTargetRef"]["name"]
            most = spec.get("maxReplicaCount") or spec.get("maxReplicas") or 100  # KEDA's own, where none is given
            found[name] = max(found.get(name, 0), int(most))
    return found


def _replicas(spec: Body) -> int:
    replicas = spec.get("replicas")
    return 1 if replicas is None else int(replicas)


def _of_pod(spec: Body) -> int:
    return _of(spec.get("containers") or [])


def _of(containers: Iterable[Body]) -> int:
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
