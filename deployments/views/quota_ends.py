"""Grants that end soon: when, and what then holds more than the team may."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q, QuerySet
from django.utils import timezone

from deployments.models import QuotaGrant, Team
from deployments.services.grants import tag_of
from deployments.services.holds import Usage
from deployments.services.text import gpus_in_words
from deployments.views.quota_grants import asked_again, extended_of

SOON = timedelta(days=30)
# More than a page can show usefully; the next to end stand on top.
MOST = 100


@dataclass(frozen=True)
class End:
    """The end of one grant: what the team may hold from then on, and how much of what it holds now is beyond that."""

    grant: QuotaGrant
    left: int
    over: int

    @property
    def days(self) -> int:
        """Days from today, by the calendar."""
        assert self.grant.valid_until is not None
        return (timezone.localdate(self.grant.valid_until) - timezone.localdate()).days

    @property
    def tag(self) -> str:
        """How the grant is now, for the form that prolongs it."""
        return tag_of(self.grant)

    @property
    def extended(self) -> datetime | None:
        """Its end, prolonged once."""
        return extended_of(self.grant, timezone.now())

    @property
    def ask(self) -> str:
        """Where a lead asks for it to go on."""
        return asked_again(self.grant, timezone.now())

    @property
    def fate(self) -> str:
        """What happens then to what runs, in words."""
        if not self.over:
            return "Nothing: what is held fits in what is left."
        held = f"{gpus_in_words(self.over)} held beyond the quota"
        if self.grant.team.at_expiry == Team.AtExpiry.STOP:
            return f"{held}: the newest deployments are stopped."
        return f"{held}: what runs goes on, and cannot grow."


def ending(teams: Iterable[Team]) -> QuerySet[QuotaGrant]:
    """Grants of these teams that count now and end soon."""
    soon = timezone.now() + SOON
    return QuotaGrant.objects.live().filter(team__in=list(teams), gpus__gt=0, valid_until__lte=soon)


def ends_of(teams: list[Team], usages: dict[int, list[Usage]]) -> list[End]:
    """The ends that come next, the soonest first (two queries)."""
    listed = list(ending(teams).select_related("team", "flavor").order_by("valid_until", "pk")[:MOST])
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
        found.append(End(grant, left, max(0, held.get(key, 0) - left)))
    return found


def limit_at(grants: Iterable[QuotaGrant], moment: datetime) -> int:
    """GPUs that these grants of one account allow at a moment, at which one that ends then counts no more."""
    return sum(
        row.gpus for row in grants if row.valid_from <= moment and (row.valid_until is None or row.valid_until > moment)
    )
