"""Whether the API server that answers is the one this installation works on."""

from __future__ import annotations

from deployments.kube.cluster import Cluster as Door
from deployments.models import Cluster
from deployments.reconciler.plan import Block


def stranger(door: Door, row: Cluster | None) -> Block | None:
    """Block a pass when another cluster answers than the one of `row`; raises ClusterError when none does.

    Asked in every pass: an address may be pointed elsewhere between two looks of the watcher. A row that the watcher
    has not filled in yet knows no identity to hold the answer against.
    """
    if row is None or not row.uid:
        return None
    found = door.identity()
    if found == row.uid:
        return None
    return Block(
        "other_cluster",
        f"Another cluster answers at the configured address (its kube-system is {found or 'missing'}, ours was "
        f"{row.uid}), so nothing is written.",
        "An admin must point Slipway back to its cluster.",
    )
