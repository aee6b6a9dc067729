"""Pods, events and observations as a kubelet and the controllers leave them, for tests of states and reasons."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deployments.kube.diagnose import diagnose
from deployments.kube.observe import Observed, observe
from deployments.kube.reasons import Reason

DATA = Path(__file__).parents[1] / "data"
KSERVE = DATA / "kserve-0.20.0"
LOGS = DATA / "vllm-0.32.0"

QUOTA_SENTENCE = (
    'pods "chat-predictor-x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=2, '
    "used: requests.nvidia.com/gpu=3, limited: requests.nvidia.com/gpu=4"
)


@cache
def recorded(name: str) -> Any:
    """A recording of real KServe controllers; read once, so leave it as it is."""
    return yaml.load((KSERVE / name).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def log(name: str) -> str:
    """A recorded log of a real engine."""
    return (LOGS / f"{name}.log").read_text()


def terminated(code: int = 1, reason: str = "Error", message: str = "") -> dict[str, Any]:
    """A container state: ended."""
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """A container state: waiting."""
    return {"waiting": {"reason": reason, "message": message}}


RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-11-25T13:54:00Z"}}
DONE = terminated(0, "Completed")


def pod(
    name: str = "chat-predictor-5b-aaaaa",
    *,
    init: dict[str, Any] | None = None,
    init_last: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    engine_last: dict[str, Any] | None = None,
    restarts: int = 0,
    ready: bool = False,
    scheduled: str | bool = True,
    revision: int | None = 1,
    terminating: bool = False,
    **status: Any,
) -> dict[str, Any]:
    """A pod of the API; `scheduled` may be the scheduler's sentence. Without states it has no containers yet."""
    placed = {"type": "PodScheduled", "status": "True" if scheduled is True else "False"}
    if isinstance(scheduled, str):
        placed |= {"reason": "Unschedulable", "message": scheduled}
    containers: dict[str, Any] = {}
    if init is not None or init_last is not None:
        containers["initContainerStatuses"] = [
            {"name": "storage-initializer", "state": init or {}, "lastState": init_last or {}, "restartCount": restarts}
        ]
    if engine is not None or engine_last is not None:
        containers["containerStatuses"] = [
            {
                "name": "kserve-container",
                "state": engine or {},
                "lastState": engine_last or {},
                "restartCount": restarts,
                "ready": ready,
                "started": ready,
            }
        ]
    labels = {"slipway.dev/deployment": "42", "serving.kserve.io/inferenceservice": "chat"}
    metadata: dict[str, Any] = {"name": name, "namespace": "search-ab3de", "uid": name, "labels": labels}
    if revision is not None:
        labels["slipway.dev/revision"] = str(revision)
    if terminating:
        metadata["deletionTimestamp"] = "2026-11-25T13:55:00Z"
    return {
        "metadata": metadata,
        "spec": {
            "nodeName": "gpu-h100-1" if scheduled is True else "",
            "containers": [{"name": "kserve-container", "resources": {"limits": {"nvidia.com/gpu": "2"}}}],
        },
        "status": {
            "phase": "Running" if ready or engine == RUNNING else "Pending",
            "conditions": [placed, {"type": "Ready", "status": str(ready)}],
            **containers,
            **status,
        },
    }


def event(reason: str, message: str, about: str = "chat-predictor-5b-aaaaa", kind: str = "Pod") -> dict[str, Any]:
    """An event of the API."""
    return {
        "type": "Warning",
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": kind, "name": about, "namespace": "search-ab3de"},
        "lastTimestamp": "2026-11-25T13:54:30Z",
        "count": 2,
    }


def seen(
    *pods: dict[str, Any],
    service: dict[str, Any] | None = None,
    workload: dict[str, Any] | None = None,
    events: list[dict[str, Any]] | None = None,
    logs: dict[str, str] | None = None,
) -> Observed:
    """What the watcher sees of one deployment; `service` and `workload` are statuses."""
    name = {"name": "chat", "namespace": "search-ab3de"}
    return observe(
        service={"metadata": name, "status": service if service is not None else {}},
        workloads=[{"kind": "Deployment", "metadata": name, "status": workload}] if workload else [],
        pods=pods,
        events=events or [],
        log_tails=logs,
    )


def first(*pods: dict[str, Any], **rest: Any) -> Reason:
    """The weightiest reason of what is seen."""
    return diagnose(seen(*pods, **rest))[0]


def crashed(text: str = "", code: int = 1, reason: str = "Error") -> dict[str, Any]:
    """A pod whose engine ended so, three times."""
    return pod(init=DONE, engine=waiting("CrashLoopBackOff"), engine_last=terminated(code, reason, text), restarts=3)
