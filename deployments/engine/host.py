"""What engine flags keep in the main memory of a pod, beside what every engine takes there."""

from __future__ import annotations

from collections.abc import Mapping

from deployments.spec import ArgValue, DeploymentSpec

# Each API server keeps what it processed, and each engine again; there are as many of the one as of the other.
COPIES_OF_INPUTS = 2
OFFLOADED_CACHE = "kv-offloading-size"


def kept_gib(spec: DeploymentSpec) -> dict[str, float]:
    """GiB in the main memory of one pod by flag, as far as they are given and take some.

    cpu-offload-gb is said of one GPU; kv-offloading-size of one engine, over all its GPUs; mm-processor-cache-gb of
    one process.
    """
    args, engines = spec.engine.args, spec.data_parallel
    found = {
        "cpu-offload-gb": _number(args, "cpu-offload-gb") * spec.gpus_per_pod,
        OFFLOADED_CACHE: cache_gib(spec),
        "mm-processor-cache-gb": _number(args, "mm-processor-cache-gb") * COPIES_OF_INPUTS * engines,
    }
    return {flag: gib for flag, gib in found.items() if gib > 0}


def cache_gib(spec: DeploymentSpec) -> float:
    """GiB of KV cache in the main memory of one pod; its engines share it among their processes through /dev/shm."""
    return max(0.0, _number(spec.engine.args, OFFLOADED_CACHE)) * spec.data_parallel / spec.nodes


def _number(args: Mapping[str, ArgValue], flag: str) -> float:
    value = args.get(flag)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
