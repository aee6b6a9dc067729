"""The grants behind the quotas: those that count, those cut to nothing or ended that may be undone, what changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Case, F, When
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from deployments.models import Event, QuotaGrant, QuotaHold, Team
from deployments.services.grants import tag_of

GRANTS = 50
# Ended grants stay in the list so long: a prolonged one counts again.
ENDED_DAYS = timedelta(days=90)
EXTENSION = timedelta(days=30)
# Of each grant the newest changes are shown, and so many events are read for all of them.
CHANGES, READ = 3, 300
# Holders of an overdrawn quota named in its row; all stand below.
NAMED = 3


@dataclass(frozen=True)
class Change:
    """One change of a grant as the audit has it, in words."""

    at: datetime
    by: Any
    words: str
    comment: str


def grants_of(team: Team | None, teams: list[Team]) -> list[dict[str, Any]]:
    """Grants with what was changed of each, those that end first on top; cut or ended ones last (two queries)."""
    now = timezone.now()
    rows = QuotaGrant.objects.filter(team=team) if team else QuotaGrant.objects.filter(team__in=teams)
    rows = rows.exclude(valid_until__lte=now - ENDED_DAYS).select_related("team", "flavor", "granted_by")
    over = Case(When(valid_until__lte=now, then=2), When(gpus=0, then=1), default=0)
    listed = list(rows.order_by(over, F("valid_until").asc(nulls_last=True), "team__slug", "pk")[:GRANTS])
    changes = _changes(listed)
    return [_row(grant, changes.get(grant.pk, []), now) for grant in listed]


def holders_over(pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Who holds GPUs of quotas that are smaller than what is held, by team and flavor (one query, where there are)."""
    wanted = set(pairs)
    if not wanted:
        return {}
    holds = QuotaHold.objects.filter(account__team__in={team for team, _ in wanted}, gpus__gt=0)
    found: dict[tuple[int, int], list[str]] = {}
    for team, flavor, name, gpus in holds.order_by("-gpus", "deployment__name").values_list(
        "account__team", "account__flavor", "deployment__name", "gpus"
    ):
        if (team, flavor) in wanted:
            found.setdefault((team, flavor), []).append(f"{name} ({gpus})")
    return {key: _few(names) for key, names in found.items()}


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _row(grant: QuotaGrant, changes: list[Change], now: datetime) -> dict[str, Any]:
    extended = extended_of(grant, now)
    return {
        "grant": grant,
        "tag": tag_of(grant),
        "ended": grant.valid_until is not None and grant.valid_until <= now,
        "cut": grant.gpus == 0,
        "changes": changes,
        "extended": extended,
        "ask": asked_again(grant, now) if extended and grant.gpus else "",
    }


def extended_of(grant: QuotaGrant, now: datetime) -> datetime | None:
    """When the grant would end if it were prolonged once; None where it has no end."""
    return max(now, grant.valid_until) + EXTENSION if grant.valid_until else None


def asked_again(grant: QuotaGrant, now: datetime) -> str:
    """The form in which a lead asks for the grant to go on, filled in."""
    extended = extended_of(grant, now)
    ended = grant.valid_until is not None and grant.valid_until <= now
    wish = {
        "team": grant.team.slug,
        "flavor": grant.flavor.slug,
        "gpus": str(grant.gpus),
        "valid_from": _day_after(grant.valid_until) if grant.valid_until and not ended else "",
        "valid_until": timezone.localdate(extended).isoformat() if extended else "",
    }
    return f"{reverse('quotas')}?{urlencode(wish)}#ask"


def _day_after(moment: datetime) -> str:
    return (timezone.localdate(moment) + timedelta(days=1)).isoformat()


def _changes(grants: list[QuotaGrant]) -> dict[int, list[Change]]:
    events = Event.objects.filter(kind="quota_granted", team__in={grant.team_id for grant in grants})
    events = events.filter(data__has_keys=["grant", "before"]).select_related("actor").order_by("-pk")
    known = {grant.pk for grant in grants}
    found: dict[int, list[Change]] = {}
    for event in events[:READ]:
        pk = event.data["grant"]
        if pk in known and len(found.setdefault(pk, [])) < CHANGES:
            words = _words(event.data["before"], event.data.get("after", {}))
            found[pk].append(Change(event.created_at, event.actor, words, str(event.data.get("comment", ""))))
    return found


def _words(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What changed: “4 → 2 GPUs, until 1 Dec 2026 → open”."""
    found = []
    if "gpus" in before:
        found.append(f"{before['gpus']} → {after.get('gpus')} GPUs")
    if "until" in before:
        found.append(f"until {_day(before['until'])} → {_day(after.get('until'))}")
    return ", ".join(found)


def _day(text: str | None) -> str:
    moment = parse_datetime(text) if text else None
    if moment is None:
        return "open"
    day = timezone.localtime(moment)
    return f"{day.day} {day:%b %Y}"
