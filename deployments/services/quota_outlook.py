"""Who holds a team's GPUs since when, how many of them pods use, and which grants end next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from deployments.models import Deployment, Node, QuotaGrant, QuotaHold, Reservation, Team
from deployments.services.holds import Usage

SOON = timedelta(days=30)
# More than a page can show usefully; the next to end stand on top.
MOST_ENDS = 100


@dataclass(frozen=True)
class Ending:
    """The end of one grant: what the team may hold from then on, and how much of what it holds now is beyond that."""

    grant: QuotaGrant
    left: int
    over: int


def ending(teams: Iterable[Team]) -> QuerySet[QuotaGrant]:
    """Grants of these teams that count now and end soon."""
    soon = timezone.now() + SOON
    return QuotaGrant.objects.live().filter(team__in=list(teams), gpus__gt=0, valid_until__lte=soon)


def endings_of(teams: list[Team], usages: dict[int, list[Usage]]) -> list[Ending]:
    """The ends that come next, the soonest first (two queries)."""
    listed = list(ending(teams).select_related("team", "flavor").order_by("valid_until", "pk")[:MOST_ENDS])
    if not listed:
        return []
    lives = Q(valid_until=None) | Q(valid_until__gt=timezone.now())
    all_of: dict[tuple[int, int], list[QuotaGrant]] = {}
    for row in QuotaGrant.objects.filter(lives, team__in={grant.team_id for grant in listed}, gpus__gt=0):
        all_of.setdefault((row.team_id, row.flavor_id), []).append(row)
    held = {(team, usage.flavor.pk): usage.reserved for team, rows in usages.items() for usage in rows}
    found = []
    for grant in listed:
        assert grant.valid_until is not None
        key = (grant.team_id, grant.flavor_id)
        left = limit_at(all_of.get(key, []), grant.valid_until)
        found.append(Ending(grant, left, max(0, held.get(key, 0) - left)))
    return found


def limit_at(grants: Iterable[QuotaGrant], moment: datetime) -> int:
    """GPUs that these grants of one account allow at a moment, at which one that ends then counts no more."""
    return sum(
        row.gpus for row in grants if row.valid_from <= moment and (row.valid_until is None or row.valid_until > moment)
    )


def holds_since(teams: Iterable[Team]) -> QuerySet[QuotaHold]:
    """Who holds what of these teams' quota: `since` when its balance last rose from nothing; the next grant `ends`."""
    begun = Reservation.objects.filter(
        account=OuterRef("account"), deployment=OuterRef("deployment"), balance_before=0, delta__gt=0
    ).order_by("-pk")
    ends = QuotaGrant.objects.live().filter(team=OuterRef("account__team"), flavor=OuterRef("account__flavor"))
    return QuotaHold.objects.filter(account__team__in=list(teams), gpus__gt=0).annotate(
        since=Subquery(begun.values("created_at")[:1]),
        ends=Subquery(ends.order_by("valid_until").values("valid_until")[:1]),
    )


def in_use(teams: Iterable[int]) -> dict[tuple[int, str], int]:
    """GPUs that pods of each of these teams hold, by team and product (two queries)."""
    owners = dict(Deployment.objects.filter(team__in=list(teams)).values_list("pk", "team_id"))
    used: dict[tuple[int, str], int] = {}
    for product, holders in Node.objects.values_list("product", "holders"):
        for holder in holders:
            team = owners.get(holder.get("deployment") or 0)
            if team is not None:
                used[(team, product)] = used.get((team, product), 0) + int(holder.get("gpus", 0))
    return used
