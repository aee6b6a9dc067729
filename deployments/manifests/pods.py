"""What the pods of engines have in common, whatever makes them: where they run, what they take, and as whom."""

from __future__ import annotations

import math
from typing import Any

from deployments.engine.facts import GIB
from deployments.engine.host import cache_gib, kept_gib
from deployments.manifests.common import Wish
from deployments.spec import DeploymentSpec

USER_ID = 1000
PROBE_SECONDS = 5
GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def pod_security() -> dict[str, Any]:
    """The security context of a pod that the level *restricted* admits."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """The security context of its containers."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "runAsNonRoot": True,
    }


def node_selector(wish: Wish) -> dict[str, str]:
    """The nodes of the flavor."""
    return {**wish.resolution.node_selector, "nvidia.com/gpu.product": wish.resolution.product}


def tolerations(wish: Wish) -> list[dict[str, str]]:
    """Of the taints that keep others off GPU nodes: the common one, one named like the resource, the flavor's own."""
    by_name = {**GPU_TAINT, "key": wish.resolution.resource_name}
    found: list[dict[str, str]] = []
    for each in (GPU_TAINT, by_name, *(dict(item) for item in wish.resolution.tolerations)):
        if each not in found:
            found.append(each)
    return found


def resources(wish: Wish, spec: DeploymentSpec) -> dict[str, dict[str, str]]:
    """What one pod takes; `spec` is the wish's own, or that of one role."""
    gpus = spec.gpus_per_pod
    memory = f"{_host_memory_gib(wish, spec)}Gi"
    return {
        "requests": {
            "cpu": str(2 + 2 * gpus),
            "memory": memory,
            wish.resolution.resource_name: str(gpus),
        },
        "limits": {
            "cpu": str(4 + 4 * gpus),
            "memory": memory,
            wish.resolution.resource_name: str(gpus),
        },
    }


def shared_memory_gib(spec: DeploymentSpec) -> int:
    """Shared memory of the processes of one pod, with the KV cache that is kept there.

    One GPU without it needs no more than the container has anyway.
    """
    gpus, cache = spec.gpus_per_pod, math.ceil(cache_gib(spec))
    return 0 if gpus == 1 and not cache else 2 + gpus + cache


def startup_attempts(wish: Wish) -> int:
    """Attempts until a start counts as hung: 20 minutes, and 15 s more for each GiB of weights."""
    weights = (wish.resolution.weights_bytes or 0) / GIB
    return math.ceil((1200 + 15 * weights) / PROBE_SECONDS)


def environment(home: str) -> dict[str, str]:
    """Where the engine may write, and that it asks nobody outside."""
    return {
        "USER": "slipway",
        "HOME": home,
        "HF_HOME": f"{home}/huggingface",
        "XDG_CACHE_HOME": f"{home}/cache",
        "VLLM_CACHE_ROOT": f"{home}/vllm",
        "VLLM_CONFIG_ROOT": f"{home}/vllm",
        "TRITON_CACHE_DIR": f"{home}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{home}/inductor",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def _host_memory_gib(wish: Wish, spec: DeploymentSpec) -> int:
    """Main memory of the engine: processes, shared memory, what flags keep there, and a share of the page cache."""
    weights = (wish.resolution.weights_bytes or 0) / GIB
    # The cache that is kept there lies in shared memory.
    kept = sum(kept_gib(spec).values()) - cache_gib(spec)
    total = 12 + 4 * spec.gpus_per_pod + shared_memory_gib(spec) + kept + weights / 4
    return math.ceil(total / 2) * 2
