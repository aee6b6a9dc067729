"""Quota that admins grant: how many GPUs of a flavor a team may hold, from when until when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from hashlib import sha256
from typing import Final

from django.utils import timezone

from deployments.models import Flavor, Principal, QuotaAccount, QuotaGrant, Team
from deployments.services import events, impartial, waiting
from deployments.services.errors import Checks, ConflictError, InvalidError, MissingError, NotAllowedError, StaleError
from deployments.services.principals import anew
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction
from portal.lib.hints import RECONCILE_TEAM, hint

MOST_GPUS = 10_000
# Nobody means a later date, and years near 9999 cannot be counted with; for good is said by no end at all.
LONGEST = timedelta(days=36_525)
TOO_FAR = "Must lie within a hundred years."


class Kept(Enum):
    """Says of a date that it stays as it is: None is a date too, that of what has no end."""

    KEPT = "kept"


KEPT: Final = Kept.KEPT


@in_transaction
def grant(
    *,
    principal: Principal,
    team: Team,
    flavor: Flavor,
    gpus: int,
    since: datetime | None = None,
    until: datetime | None = None,
    comment: str = "",
    asked_by: int | None = None,
) -> QuotaGrant:
    """Let a team hold more GPUs of a flavor, from `since` (now) until `until` (for good); who waits for them is served.

    An admin grants nothing to a team that they belong to. `asked_by` is the key of the user whose request it answers:
    they hear of that. InvalidError for a number, a flavor or dates that cannot be meant.
    """
    _needs_admin(principal)
    why = checked(gpus=gpus, since=since, until=until, comment=comment)
    # The team before the account that the trigger locks, as `requests.submit` does: no deadlocks.
    impartial.needs_stranger(principal, _governed(principal, team.pk), "grant its quota")
    made = QuotaGrant.objects.create(
        team=team,
        flavor=flavor,
        gpus=gpus,
        valid_from=since or timezone.now(),
        valid_until=until,
        granted_by=principal.user,
        comment=why,
    )
    message = f"{gpus} × {flavor.name} granted to {team.name}"
    after = {"gpus": gpus, "from": since.isoformat() if since else None, "until": until.isoformat() if until else None}
    _granted(principal, made, message, {"after": after, **({"author": asked_by} if asked_by else {})})
    return made


@in_transaction
def change_grant(
    *,
    principal: Principal,
    grant_id: int,
    gpus: int | None = None,
    until: datetime | Kept | None = KEPT,
    comment: str = "",
    seen: str | None = None,
) -> QuotaGrant:
    """Cut, raise, end or prolong a grant; without an end (None) it holds for good. What is held stays held.

    Growth alone is refused from then on. Any admin cuts; only a stranger to the team raises or prolongs. ConflictError
    where nothing would change; StaleError where the grant is not as its `tag_of` that was `seen` says; InvalidError for
    an end that lies in the past: 0 GPUs end it at once.
    """
    _needs_admin(principal)
    why = line_of(comment, field="comment", longest=500, required=False)
    row = QuotaGrant.objects.writable_by(principal).select_related("team", "flavor").filter(pk=grant_id).first()
    if row is None:
        raise MissingError("There is no such grant.")
    team = _governed(principal, row.team_id)
    row.refresh_from_db(fields=["gpus", "valid_until", "warned_at", "ended_at"])
    if seen is not None and seen != tag_of(row):
        end = f"until {timezone.localtime(row.valid_until):%-d %b %Y}" if row.valid_until else "without an end"
        raise StaleError(f"Somebody changed this grant meanwhile: it is of {row.gpus} now, {end}. Look at it again.")
    before = {"gpus": row.gpus, "until": row.valid_until.isoformat() if row.valid_until else None}
    checks, until = Checks(), row.valid_until if until is KEPT else until
    if (gpus is not None and gpus > row.gpus) or _later(until, row.valid_until):
        impartial.needs_stranger(principal, team, "raise its quota")
    if gpus is not None:
        checks.of(partial(check_gpus, gpus, least=0), None)
    checks.of(partial(check_end, row, until), None)
    checks.done()
    row.gpus = row.gpus if gpus is None else gpus
    if until != row.valid_until:
        row.valid_until = until
        # Another end is told of anew: that it comes near, and that it has come.
        row.warned_at = row.ended_at = None
    after = {"gpus": row.gpus, "until": row.valid_until.isoformat() if row.valid_until else None}
    if after == before:
        raise ConflictError("Nothing would change: the grant is like this already.", code="unchanged")
    row.save(update_fields=["gpus", "valid_until", "warned_at", "ended_at"])
    message = f"Grant of {row.flavor.name} to {row.team.name} changed to {row.gpus}" + (f": {why}" if why else "")
    _granted(principal, row, message, {**events.changed(before, after), "comment": why})
    return row


def _later(one: datetime | None, other: datetime | None) -> bool:
    """True when the one end is after the other; no end is after all."""
    return other is not None and (one is None or one > other)


def tag_of(row: QuotaGrant) -> str:
    """A word for how a grant is now: another one as soon as its GPUs or dates are others."""
    dates = (moment.isoformat() if moment else "" for moment in (row.valid_from, row.valid_until))
    return sha256(" ".join((str(row.pk), str(row.gpus), *dates)).encode()).hexdigest()[:16]


def follow(team_id: int, flavor_id: int) -> None:
    """After the grants of a team changed, or one began or ended: its namespace's ResourceQuota and its line follow."""
    Team.objects.filter(pk=team_id).update(next_reconcile_at=timezone.now())
    hint(RECONCILE_TEAM, team_id)
    waiting.wake_later(QuotaAccount.objects.get(team=team_id, flavor=flavor_id).pk)


def check_gpus(gpus: object, *, least: int = 1) -> None:
    """Raise InvalidError unless `gpus` is a number of GPUs that somebody can mean."""
    if isinstance(gpus, bool) or not isinstance(gpus, int) or not least <= gpus <= MOST_GPUS:
        raise InvalidError(f"Must be a whole number from {least} to {MOST_GPUS:,}.", field="gpus", pointer="/gpus")


def checked(*, gpus: object, since: datetime | None, until: datetime | None, comment: str) -> str:
    """The comment as it is kept; InvalidError with all that is wrong with the fields of a new grant."""
    checks = Checks()
    checks.of(lambda: check_gpus(gpus, least=1), None)
    checks.of(lambda: check_dates(since, until), None)
    words = checks.of(lambda: line_of(comment, field="comment", longest=500, required=False), "")
    checks.done()
    return words


def check_dates(since: datetime | None, until: datetime | None) -> None:
    """Raise InvalidError, at each field, for a span that is over or ends before it begins."""
    now, checks = timezone.now(), Checks()
    if since is not None and since <= now:
        checks.note("valid_from", "Must lie in the future. Leave it empty to begin at once.")
    elif since is not None and since > now + LONGEST:
        checks.note("valid_from", TOO_FAR)
    if until is not None and until <= now:
        checks.note("valid_until", "Must lie in the future.")
    elif since is not None and until is not None and until <= since:
        checks.note("valid_until", "Must lie after the beginning.")
    elif until is not None and until > now + LONGEST:
        checks.note("valid_until", TOO_FAR)
    checks.done()


def check_end(row: QuotaGrant, until: datetime | None) -> None:
    """Raise InvalidError for an end that the grant cannot have from now on."""
    if until is None or until == row.valid_until:
        return
    checks = Checks()
    if until <= timezone.now():
        checks.note("valid_until", "Must lie in the future. To let the grant end now, set its GPUs to 0.")
    elif until <= row.valid_from:
        checks.note("valid_until", f"Must lie after the beginning, {timezone.localtime(row.valid_from):%-d %b %Y}.")
    elif until > timezone.now() + LONGEST:
        checks.note("valid_until", TOO_FAR)
    checks.done()


def _granted(principal: Principal, row: QuotaGrant, message: str, data: Mapping[str, object]) -> None:
    events.record(
        kind="quota_granted",
        message=message,
        team=row.team,
        actor=principal.user,
        data={**data, "grant": row.pk, "flavor": row.flavor.slug},
    )
    follow(row.team_id, row.flavor_id)


def _needs_admin(principal: Principal) -> None:
    if not (principal.is_admin and principal.may("approve")):
        raise NotAllowedError("Only an admin may grant quota.")


def _governed(principal: Principal, team_id: int) -> Team:
    """The team, locked; to a token that does not reach it there is none."""
    row = Team.objects.governed_by(principal).hold(team_id)
    # Again: who waited for the lock may be no admin any more.
    if row is None or not Team.objects.governed_by(anew(principal)).filter(pk=team_id).exists():
        raise MissingError("There is no such team.")
    return row
