"""Grants that begin and end by themselves: people are told before, and what the end of one takes away."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db.models import Exists, F, OuterRef, Q, Sum, TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Now
from django.db.models.lookups import GreaterThanOrEqual
from django.utils import timezone

from deployments.models import Deployment, Event, QuotaAccount, QuotaGrant, QuotaHold, Team, Wanted
from deployments.services import events, grants, lifecycle
from deployments.services.text import gpus_in_words
from deployments.services.transactions import in_transaction

logger = logging.getLogger(__name__)

# At most so many in one sweep.
AT_ONCE = 100
# A grant that begins later than it was made is told of within a day of its beginning, or not at all.
LATELY = timedelta(days=1)


def follow_dates() -> int:
    """Tell of grants that end soon, that ended and that began; the sweep calls this. Returns how many.

    One that fails is logged, and tried again with the next sweep.
    """
    done = 0
    due = QuotaGrant.objects.filter(_ending() | _ended() | _begun()).order_by("pk")
    for pk in list(due.values_list("pk", flat=True)[:AT_ONCE]):
        try:
            done += _warn(pk) or _end(pk) or _begin(pk)
        except Exception:
            logger.exception("grant %s could not be followed", pk)
    return done


def _ending() -> Q:
    """Grants whose end is near: within the days of the warning; of short ones once half their time is over."""
    soon = Now() + timedelta(days=settings.QUOTA_WARNING_DAYS)
    half_over = GreaterThanOrEqual(Now() - F("valid_from"), F("valid_until") - Now())
    near = Q(valid_from__lte=Now(), valid_until__gt=Now(), valid_until__lte=soon, warned_at=None, gpus__gt=0)
    return near & Q(half_over)


def _ended() -> Q:
    return Q(valid_until__lte=Now(), ended_at=None)


def _begun() -> Q:
    told = Event.objects.alias(about=KeyTextTransform("grant", "data")).filter(
        kind="quota_begun", team=OuterRef("team"), about=Cast(OuterRef("pk"), TextField())
    )
    later = F("created_at") + timedelta(seconds=1)
    lives = Q(valid_until=None) | Q(valid_until__gt=Now())
    return lives & Q(~Exists(told), valid_from__lte=Now(), valid_from__gte=Now() - LATELY, valid_from__gt=later)


@in_transaction
def _warn(pk: int) -> bool:
    row = _locked(pk)
    if not QuotaGrant.objects.filter(_ending(), pk=pk).exists():
        return False
    assert row.valid_until is not None
    held, left = _held(row), _live(row.team_id, row.flavor_id) - row.gpus
    over = max(0, held - left)
    QuotaGrant.objects.filter(pk=pk).update(warned_at=Now())
    then = f" Then deployments hold {gpus_in_words(over)} more than the team may." if over else ""
    events.record(
        kind="quota_ends_soon",
        message=f"The grant of {row.gpus} × {row.flavor.name} ends on {_day(row)}.{then}{_fate(row.team, over)}",
        team=row.team,
        level="warning",
        data=_data(row) | {"over": over},
    )
    return True


@in_transaction
def _end(pk: int) -> bool:
    """Record the end of a grant; where the team says so, stop what runs beyond the grants that are left.

    All in one transaction: a sweep that dies half-way leaves nothing stopped and nothing told.
    """
    row = _locked(pk)
    if not QuotaGrant.objects.filter(_ended(), pk=pk).exists():
        return False
    over = max(0, _held(row) - _live(row.team_id, row.flavor_id))
    stopped: list[str] = []
    if over and row.team.at_expiry == Team.AtExpiry.STOP:
        stopped = _stop_newest(row, over)
    QuotaGrant.objects.filter(pk=pk).update(ended_at=Now())
    words = f"The grant of {row.gpus} × {row.flavor.name} has ended."
    if over:
        words += f" Deployments hold {gpus_in_words(over)} more than the team may"
        words += f"; stopped for it: {', '.join(stopped)}." if stopped else "; they go on, and cannot grow."
    events.record(
        kind="quota_ended",
        message=words,
        team=row.team,
        level="warning",
        data=_data(row) | {"over": over, "stopped": stopped},
    )
    grants.follow(row.team_id, row.flavor_id)
    return True


@in_transaction
def _begin(pk: int) -> bool:
    row = _locked(pk)
    if not QuotaGrant.objects.filter(_begun(), pk=pk).exists():
        return False
    message = f"The grant of {row.gpus} × {row.flavor.name} has begun."
    events.record(kind="quota_begun", message=message, team=row.team, data=_data(row))
    grants.follow(row.team_id, row.flavor_id)
    return True


def _stop_newest(row: QuotaGrant, over: int) -> list[str]:
    """Stop running deployments, the newest first, until what is left fits; what stops already counts as gone."""
    holds = QuotaHold.objects.filter(account__team=row.team_id, account__flavor=row.flavor_id, gpus__gt=0)
    going = holds.exclude(deployment__wanted=Wanted.RUNNING).aggregate(gpus=Sum("gpus"))["gpus"] or 0
    over -= going
    chosen: list[int] = []
    running = holds.filter(deployment__wanted=Wanted.RUNNING).order_by("-deployment_id")
    for pk, gpus in running.values_list("deployment_id", "gpus"):
        if over <= 0:
            break
        chosen.append(pk)
        over -= gpus
    stopped = []
    for deployment in Deployment.objects.filter(pk__in=chosen).order_by("pk"):
        reason = f"The team's grant of {row.flavor.name} has ended."
        if lifecycle.stop_by_itself(deployment=deployment, reason=reason):
            stopped.append(deployment.name)
    return stopped


def _locked(pk: int) -> QuotaGrant:
    """The grant, with its team locked: before deployments and accounts, as in every service."""
    row = QuotaGrant.objects.select_related("flavor").get(pk=pk)
    row.team = Team.objects.select_for_update(no_key=True).get(pk=row.team_id)
    return row


def _held(row: QuotaGrant) -> int:
    account = QuotaAccount.objects.filter(team=row.team_id, flavor=row.flavor_id).first()
    return account.reserved if account else 0


def _live(team_id: int, flavor_id: int) -> int:
    rows = QuotaGrant.objects.live().filter(team=team_id, flavor=flavor_id)
    return rows.aggregate(gpus=Sum("gpus"))["gpus"] or 0


def _fate(team: Team, over: int) -> str:
    """What happens then to what runs, by the team's choice."""
    if not over:
        return ""
    if team.at_expiry == Team.AtExpiry.STOP:
        return " The newest of them are stopped then."
    return " They go on, and cannot grow."


def _day(row: QuotaGrant) -> str:
    assert row.valid_until is not None
    end = timezone.localtime(row.valid_until)
    return f"{end.day} {end:%b %Y}"


def _data(row: QuotaGrant) -> dict[str, object]:
    until = row.valid_until.isoformat() if row.valid_until else None
    return {"grant": row.pk, "flavor": row.flavor.slug, "gpus": row.gpus, "until": until}
