"""What containers that fetch weights may take on the cluster, beside what Slipway was told that they need. Pure.

An administrator applies the storage containers of `k8s/portal`, so a setting alone changes nothing on the cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deployments.findings import Finding, error, warning
from deployments.manifests.common import Platform
from deployments.preflight.rules import Case, Rules
from deployments.sources import Scheme
from deployments.spec import Strategy

rules = Rules()

POINTER = "/spec/source/uri"
FILE = "k8s/portal/storage-container.yaml"
NAMES = Platform()
BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
AMOUNT = re.compile(r"(?P<count>[0-9]{1,18}(?:\.[0-9]{1,9})?)(?P<unit>[kMGT]i?|Ki|)")


def limits_in(listed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The memory limit of each storage container by its name, as it is written; empty where none is."""
    return {str(item["metadata"]["name"]): _limit(item) for item in listed}


def bytes_of(amount: str) -> float | None:
    """An amount of memory as Kubernetes writes it; None for what is none."""
    match = AMOUNT.fullmatch(amount)
    return float(match["count"]) * BYTES[match["unit"]] if match and match["unit"] in BYTES else None


@rules.rule
def storage_container(case: Case) -> Iterator[Finding]:
    """Services name Slipway's own storage container: without it KServe makes no pod, with less memory it is killed."""
    cluster, name = case.facts.cluster, _container_of(case)
    if cluster.fetch_limits is None or name is None:
        return
    if name not in cluster.fetch_limits:
        yield error(
            "storage_container_missing",
            POINTER,
            f"The cluster has no storage container “{name}”, by which services fetch their weights.",
            f"An admin of the cluster applies {FILE}.",
        )
        return
    has, wanted = (bytes_of(amount) for amount in (cluster.fetch_limits[name], cluster.fetch_memory))
    if has is not None and wanted is not None and has < wanted:
        yield warning(
            "fetch_memory_low",
            POINTER,
            f"Downloads may take {cluster.fetch_limits[name]} of memory on this cluster, where {cluster.fetch_memory} "
            "is configured: that of a large model may be killed.",
            f"An admin of the cluster applies {FILE} with the limit of SLIPWAY_FETCH_MEMORY.",
        )


def _container_of(case: Case) -> str | None:
    """The storage container that pods of this wish name; None where none does."""
    spec, source = case.spec, case.loads
    of_service = spec.strategy is Strategy.STANDARD and spec.nodes == 1 and spec.source.cache is None
    if not of_service or source is None or source.scheme in {Scheme.PVC, Scheme.OCI}:
        return None
    public = source.scheme is Scheme.S3 and spec.source.credential is None
    return NAMES.public_storage_container if public else NAMES.storage_container


def _limit(item: Mapping[str, Any]) -> str:
    container = (item.get("spec") or {}).get("container") or {}
    return str(((container.get("resources") or {}).get("limits") or {}).get("memory") or "")
