"""What an admin weighs about a request for quota: capacity, who has it, and what comes back next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F

from deployments.models import QuotaAccount, QuotaGrant, QuotaHold, QuotaRequest, Team, Wanted
from deployments.services.flavors import Capacity, capacity, nodes_seen

# Grants that end, and deployments that give back, of which the context names so many.
NAMED = 5


@dataclass(frozen=True)
class Share:
    """What one team may hold of a flavor, and holds. `until` is when the first of its grants ends."""

    team: Team
    granted: int
    reserved: int
    until: datetime | None


@dataclass(frozen=True)
class Context:
    """What an admin weighs: what there is, who has it, what comes back next, and what would be promised then.

    `ends` are grants with an end, the next first; `releases` are holds whose deployment was stopped or deleted. Where
    `named` is false they and `shares` are empty: what other teams have is for admins, totals are for everybody.
    """

    capacity: Capacity
    shares: tuple[Share, ...]
    ends: tuple[QuotaGrant, ...]
    releases: tuple[QuotaHold, ...]
    asked: int
    named: bool = True

    @property
    def granted_after(self) -> int:
        """GPUs granted to all teams together if this request is granted whole."""
        return self.capacity.granted + self.asked

    @property
    def beyond(self) -> int:
        """GPUs promised beyond what the cluster has if this request is granted whole; 0 when it is not known."""
        if self.capacity.total is None:
            return 0
        return max(0, self.granted_after - self.capacity.total)


def context_of(request: QuotaRequest) -> Context:
    """What an admin weighs when deciding about this request (five queries)."""
    return contexts_of([request])[request.pk]


def contexts_of(requests: Iterable[QuotaRequest], *, named: bool = True) -> dict[int, Context]:
    """`context_of` many requests by primary key, in five queries; `flavor` is best selected along.

    Without `named` no other team is named, nor what it has.
    """
    rows = list(requests)
    flavors = {row.flavor_id: row.flavor for row in rows}
    nodes = nodes_seen()
    live: dict[tuple[int, int], list[QuotaGrant]] = defaultdict(list)
    ends: dict[int, list[QuotaGrant]] = defaultdict(list)
    granted = QuotaGrant.objects.live().filter(flavor__in=flavors).select_related("team", "flavor")
    for grant in granted.order_by(F("valid_until").asc(nulls_last=True), "pk"):
        live[grant.flavor_id, grant.team_id].append(grant)
        if grant.valid_until is not None:
            ends[grant.flavor_id].append(grant)
    shares: dict[int, list[Share]] = defaultdict(list)
    accounts = QuotaAccount.objects.filter(flavor__in=flavors).select_related("team").order_by("team__slug")
    for account in accounts:
        own = live.get((account.flavor_id, account.team_id), [])
        if own or account.reserved:
            limit = sum(grant.gpus for grant in own)
            until = own[0].valid_until if own else None
            shares[account.flavor_id].append(Share(account.team, limit, account.reserved, until))
    going: dict[int, list[QuotaHold]] = defaultdict(list)
    for hold in (
        QuotaHold.objects.filter(account__flavor__in=flavors, gpus__gt=0)
        .exclude(deployment__wanted=Wanted.RUNNING)
        .select_related("account", "deployment__team")
        .order_by("deployment__wanted_at", "pk")
    ):
        going[hold.account.flavor_id].append(hold)
    capacities = {
        pk: capacity(flavor, nodes, sum(s.granted for s in shares[pk]), sum(s.reserved for s in shares[pk]))
        for pk, flavor in flavors.items()
    }
    return {
        row.pk: Context(
            capacity=capacities[row.flavor_id],
            shares=tuple(shares[row.flavor_id]) if named else (),
            ends=tuple(ends[row.flavor_id][:NAMED]) if named else (),
            releases=tuple(going[row.flavor_id][:NAMED]) if named else (),
            asked=row.gpus,
            named=named,
        )
        for row in rows
    }
