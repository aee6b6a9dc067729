"""Flavors that the nodes of the cluster propose: what GPU feature discovery says of GPUs that nobody offers yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.text import slugify

from deployments.engine.gpus import catalog
from deployments.labels import GPU_PREFIX
from deployments.models import Flavor, Node

SHARED = "-SHARED"
WHOLE = f"{GPU_PREFIX}gpu"
# With the strategy “single” every GPU of a node is cut alike and its product says how.
MIG_PRODUCT = re.compile(r"(.+)-MIG-([0-9]g\.[0-9]+gb(?:\.me)?)")
MIG_COUNT = re.compile(r"nvidia\.com/(mig-[0-9]g\.[0-9]+gb(?:\.me)?)\.count")


@dataclass
class Proposal:
    """Values for a new flavor, and the nodes that have such GPUs."""

    values: dict[str, Any]
    nodes: int
    gpus: int


def proposals() -> list[Proposal]:
    """One for each kind of GPU that nodes report and no flavor covers, the largest first (two queries)."""
    known = {(row.product, row.resource_name) for row in Flavor.objects.all()}
    found: dict[tuple[str, str], Proposal] = {}
    for node in Node.objects.exclude(product=""):
        for resource, count, memory in _kinds(node):
            key = (node.product, resource)
            if key in known:
                continue
            proposal = found.setdefault(key, Proposal(_values(node, resource, memory), 0, 0))
            proposal.nodes += 1
            proposal.gpus += count
            proposal.values["gpus_per_node"] = max(proposal.values["gpus_per_node"], count)
    return sorted(found.values(), key=lambda item: (-item.values["memory_mib"], item.values["slug"]))


def _kinds(node: Node) -> Iterator[tuple[str, int, int]]:
    """Resource name, how many, and MiB each: several on a node whose GPUs are cut differently (MIG “mixed”)."""
    slices = {
        f"{GPU_PREFIX}{found[1]}": _number(value)
        for name, value in node.labels.items()
        if (found := MIG_COUNT.fullmatch(name))
    }
    for resource, count in slices.items():
        if count:
            yield resource, count, _number(node.labels.get(f"{resource}.memory", ""))
    if node.resource_name not in slices and node.capacity:
        yield node.resource_name, node.capacity, node.memory_mib


def _values(node: Node, resource: str, memory: int) -> dict[str, Any]:
    product = node.product
    cut = MIG_PRODUCT.fullmatch(product)
    bare = (cut[1] if cut else product).removesuffix(SHARED)
    known = catalog().get(bare, {})
    memory = memory or known.get("nvml_mib") or 0
    part = cut[2] if cut else resource.removeprefix(f"{GPU_PREFIX}mig-") if "/mig-" in resource else ""
    shared = product.endswith(SHARED) or resource.endswith(".shared")
    label = known.get("name") or bare.removeprefix("NVIDIA-").replace("-", " ")
    size = f"{round((known.get('nvml_mib') or memory) / 1024)} GB"
    name = f"{label} {size}" + (f" MIG {part}" if part else "") + (" shared" if shared else "")
    return {
        "slug": slugify(name.replace(".", "-"))[:40].strip("-"),
        "name": name[:60],
        "product": product,
        "resource_name": resource,
        "memory_mib": memory,
        "compute_capability": _capability(node) or known.get("compute_capability") or "",
        "gpus_per_node": max(1, node.capacity if resource == node.resource_name else 1),
        "price_per_hour": 0,
        "node_selector": {},
        "tolerations": [],
    }


def _capability(node: Node) -> str:
    major = node.labels.get(f"{WHOLE}.compute.major", "")
    minor = node.labels.get(f"{WHOLE}.compute.minor", "")
    return f"{major}.{minor}" if _number(major) and minor.isascii() and minor.isdigit() else ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
