"""GPUs by the product name that the GPU operator writes on a node."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from deployments.engine.facts import GpuFacts
from deployments.engine.profiles import DATA

# Of the memory a node reports (NVML), what CUDA leaves for a process: measured 0.94 to 0.99.
VISIBLE_SHARE = 0.965
# From this compute capability on GPUs compute in fp8.
FP8_CAPABILITY = 8.9
# GPUs of a node, where nobody says.
COMMON_NODE = 8


@cache
def catalog() -> dict[str, dict[str, Any]]:
    """The known GPUs, by product label."""
    rows = json.loads((DATA / "gpus.json").read_text())["gpus"]
    return {product: row for row in rows for product in row["products"]}


def gpu_facts(product: str, memory_mib: int | None = None, compute_capability: float | None = None) -> GpuFacts:
    """Facts of one GPU; what the node reports in MiB counts over the catalogue's typical value.

    Raises ValueError for a product that is not in the catalogue and comes without memory.
    """
    row = catalog().get(product.removesuffix("-SHARED"))
    if row is None and memory_mib is None:
        raise ValueError(f"“{product}” is not a known GPU, and its memory was not given.")
    row = row or {}
    typical = row.get("nvml_mib")
    visible = row.get("visible_gib")
    if memory_mib is not None and (visible is None or typical != memory_mib):
        share = visible * 1024 / typical if visible and typical else VISIBLE_SHARE
        visible = round(memory_mib * share / 1024, 2)
    return GpuFacts(
        product=product,
        name=row.get("name", product),
        visible_gib=float(visible or 0.0),
        compute_capability=float(compute_capability or row.get("compute_capability") or 0.0),
        bandwidth_gbs=row.get("bandwidth_gbs"),
        bf16_tflops=row.get("bf16_tflops") or row.get("fp16_tflops"),
    )
