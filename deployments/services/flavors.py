"""Kinds of GPU: what the cluster has of each, what its nodes propose, and what admins make of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Sum

from deployments.models import Flavor, Node, QuotaAccount, QuotaGrant
from deployments.services import facts


@dataclass(frozen=True)
class Capacity:
    """GPUs of one flavor: what nodes have, and what was promised of it.

    `total` is allocatable on all nodes, `in_use` asked for by pods, `free` on nodes that take pods, `block` the most
    free on one node: None while the cluster has not been seen lately. `granted` counts the live grants of all teams,
    `reserved` what their deployments hold.
    """

    flavor: Flavor
    granted: int
    reserved: int
    total: int | None = None
    in_use: int | None = None
    free: int | None = None
    block: int | None = None


def capacity_of(flavor: Flavor) -> Capacity:
    """What there is of one flavor, and what was promised (four queries)."""
    return capacities_of([flavor])[flavor.pk]


def capacities_of(flavors: Iterable[Flavor]) -> dict[int, Capacity]:
    """`capacity_of` many flavors by primary key, in four queries."""
    rows = list(flavors)
    nodes = nodes_seen()
    granted = dict(
        QuotaGrant.objects.live().filter(flavor__in=rows).values_list("flavor").annotate(gpus=Sum("gpus")).order_by()
    )
    reserved = dict(
        QuotaAccount.objects.filter(flavor__in=rows).values_list("flavor").annotate(gpus=Sum("reserved")).order_by()
    )
    return {row.pk: capacity(row, nodes, granted.get(row.pk, 0), reserved.get(row.pk, 0)) for row in rows}


def nodes_seen() -> list[Node] | None:
    """The GPU nodes of the cluster; None while it has not been seen lately (two queries)."""
    cluster = facts.main_cluster()
    if cluster is None or not facts.is_seen(cluster):
        return None
    return list(Node.objects.filter(cluster=cluster))


def capacity(flavor: Flavor, nodes: list[Node] | None, granted: int, reserved: int) -> Capacity:
    """What these nodes have of a flavor, beside what was promised of it."""
    if nodes is None:
        return Capacity(flavor, granted, reserved)
    own = [node for node in nodes if flavor.stands_on(node)]
    return Capacity(
        flavor,
        granted,
        reserved,
        total=sum(node.allocatable for node in own),
        in_use=sum(node.requested for node in own),
        free=sum(node.free for node in own),
        block=max((node.free for node in own), default=0),
    )
