"""The status of ResourceQuotas: written by admission and, as the quota controller would, after every change.

A real quota controller takes a moment; this one is never late, so that no test waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from sandbox.lite.apply import track_update
from sandbox.lite.quota_usage import PODS, SERVICES, Amounts, added, counts, finished, in_scope, usage
from sandbox.lite.storage import Change

if TYPE_CHECKING:
    from sandbox.lite.cluster import Cluster

Obj = dict[str, Any]

QUOTAS = "/resourcequotas"


def keeper(cluster: Cluster) -> Callable[[Change], None]:
    """Return what follows all changes and keeps every quota's status true."""

    def follow(change: Change) -> None:
        namespace = change.obj["metadata"].get("namespace", "")
        if not namespace or not _matters(change):
            return
        for quota in cluster.read_all(QUOTAS, namespace):
            hard = (quota.get("spec") or {}).get("hard") or {}
            changed = change.kind == QUOTAS and change.obj["metadata"]["name"] == quota["metadata"]["name"]
            if not changed and not any(counts(change.kind, name) for name in hard):
                continue
            status = {"hard": hard, "used": used_of(cluster, quota, hard)}
            if quota.get("status") != status:
                write_status(cluster, quota, status, "kube-controller-manager")

    return follow


def used_of(cluster: Cluster, quota: Obj, hard: Obj) -> Amounts:
    """Return what there is of all that a quota limits.

    A name that nobody counts, such as `limits.nvidia.com/gpu`, is not in it: so one sees that it is not enforced.
    """
    used: Amounts = {}
    for kind in dict.fromkeys(resource.storage_key for resource in cluster.registry if resource.namespaced):
        names = [name for name in hard if counts(kind, name)]
        if not names:
            continue
        used |= dict.fromkeys(names, "0")
        for obj in cluster.read_all(kind, quota["metadata"]["namespace"]):
            if in_scope(quota, kind, obj):
                found = usage(kind, obj)
                used = added(used, {name: found[name] for name in names if name in found})
    return used


def write_status(cluster: Cluster, quota: Obj, status: Obj, manager: str) -> None:
    """Store the status of a quota as a component of the control plane writes it."""
    resource = cluster.registry.find("", "v1", "resourcequotas")
    assert resource is not None
    new = orjson.loads(orjson.dumps(quota | {"status": status}))
    track_update(resource, quota, new, manager, "status")
    cluster.storage.put(QUOTAS, new)


def _matters(change: Change) -> bool:
    """Tell whether a change may change what is used: most updates do not."""
    if change.previous is None or change.type == "DELETED" or change.kind in (QUOTAS, SERVICES):
        return True
    return change.kind == PODS and finished(change.previous) != finished(change.obj)
