"""Kinds of GPU: what the cluster has of each, and what admins offer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Sum
from django.db.models.functions import Now

from deployments.models import Flavor, Node, Principal, QuotaAccount, QuotaGrant, Team
from deployments.services import events, facts
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.flavor_fields import checked, complete
from deployments.services.text import gpus_in_words
from deployments.services.transactions import in_transaction

# What kind of GPU it is: GPUs of it that are held would otherwise become others.
KIND = ("product", "resource_name")


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

    @property
    def beyond(self) -> int | None:
        """GPUs granted beyond what nodes have: promises that cannot all be kept. None while that is not known."""
        return None if self.total is None else max(0, self.granted - self.total)

    @property
    def beyond_words(self) -> str:
        """What is to be said of that; empty for nothing."""
        if not self.beyond:
            return ""
        return (
            f"All teams together may now hold {self.granted} of {self.flavor.name}, {self.beyond} beyond the cluster: "
            f"it has {self.total}."
        )


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


@in_transaction
def create(*, principal: Principal, **values: object) -> Flavor:
    """Offer a kind of GPU. `values` are fields of Flavor; InvalidError names the one that cannot be meant."""
    _needs_admin(principal)
    row = Flavor(**complete(values))
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        words = f"There is a flavor “{row.slug}” already."
        raise ConflictError(words, field="slug", pointer="/slug") from None
    _keep_apart(row)
    events.record(
        kind="flavor_made",
        message=f"Flavor {row.name} is offered",
        actor=principal.user,
        data={"flavor": row.slug, "after": as_json(row)},
    )
    _follow()
    return row


@in_transaction
def change(*, principal: Principal, slug: str, **values: object) -> Flavor:
    """Change what a flavor says. Revisions keep the flavor they were resolved to; only later ones follow.

    ConflictError for another kind of GPU (product, resource) while deployments hold some of it.
    """
    _needs_admin(principal)
    row = Flavor.objects.select_for_update(no_key=True).filter(slug=slug).first() if "\0" not in slug else None
    if row is None:
        raise MissingError("There is no such flavor.")
    if "slug" in values:
        raise InvalidError("The name in addresses stays as it is.", field="slug", pointer="/slug")
    before = as_json(row)
    for name, value in checked(values).items():
        setattr(row, name, value)
    if row.active and {"name", "active"} & values.keys():
        _keep_apart(row)
    after = as_json(row)
    changed = events.changed(before, after)
    if not changed["after"]:
        return row
    for name in KIND:
        held = QuotaAccount.objects.filter(flavor=row).aggregate(gpus=Sum("reserved"))["gpus"] or 0
        if name in changed["after"] and held:
            words = f"Deployments hold {gpus_in_words(held)} of this kind. Make another flavor for the new one."
            raise ConflictError(words, field=name, pointer=f"/{name}")
    row.save()
    events.record(
        kind="flavor_changed",
        message=f"Flavor {row.name} changed",
        actor=principal.user,
        data={"flavor": row.slug, **changed},
    )
    if "resource_name" in changed["after"]:
        _follow()
    return row


def _follow() -> None:
    """The ResourceQuota of every team names the resources of all flavors, with none of them where none is granted."""
    Team.objects.active().update(next_reconcile_at=Now())


def _keep_apart(row: Flavor) -> None:
    """ConflictError where another flavor on offer has this name: nobody could tell them apart where one is chosen."""
    other = Flavor.objects.filter(active=True, name__iexact=row.name).exclude(pk=row.pk).first()
    if other is not None:
        words = f"The flavor “{other.slug}” has this name already: choose one that tells them apart."
        raise ConflictError(words, field="name", pointer="/name", code="name_taken")


def may_edit(principal: Principal) -> bool:
    """True for those who say what GPUs are offered: admins, with a token that is bound to no team."""
    return principal.is_admin and principal.may("approve") and principal.team_ids is None


def as_json(row: Flavor) -> dict[str, Any]:
    """A flavor's fields as plain JSON values."""
    return {
        "slug": row.slug,
        "name": row.name,
        "product": row.product,
        "memory_mib": row.memory_mib,
        "resource_name": row.resource_name,
        "compute_capability": float(row.compute_capability),
        "gpus_per_node": row.gpus_per_node,
        "price_per_hour": float(row.price_per_hour),
        "node_selector": row.node_selector,
        "tolerations": row.tolerations,
        "active": row.active,
    }


def _needs_admin(principal: Principal) -> None:
    if not may_edit(principal):
        raise NotAllowedError("Only an admin says which GPUs are offered.")
