"""Quota that leads ask for and admins grant: whole, in part, otherwise, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from deployments.models import Flavor, Principal, QuotaGrant, QuotaRequest, Team
from deployments.services import events, grants
from deployments.services.errors import Checks, ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.grants import KEPT, Kept
from deployments.services.principals import anew
from deployments.services.quota_context import Context, Share, context_of, contexts_of
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction

__all__ = [
    "Context",
    "Share",
    "ask",
    "beyond_of",
    "checked",
    "context_of",
    "contexts_of",
    "decide",
    "may_ask",
    "not_meant",
    "withdraw",
]

# Undecided requests of one team for one flavor.
MOST_PENDING = 3
MOST_WORDS = 500


@in_transaction
def ask(
    *,
    principal: Principal,
    team: Team,
    flavor: Flavor,
    gpus: int,
    why: str,
    valid_from: datetime | None = None,
    valid_until: datetime | None = None,
) -> QuotaRequest:
    """Ask admins for GPUs of a flavor. Leads of the team alone; at most three wait per team and flavor."""
    _leads(principal, team)
    words = checked(gpus=gpus, why=why, valid_from=valid_from, valid_until=valid_until)
    # One request of a team at a time: the number of those that wait stays as it was counted.
    Team.objects.hold(team.pk)
    _leads(anew(principal), team)
    if not Flavor.objects.filter(pk=flavor.pk, active=True).exists():
        raise InvalidError("This GPU is not offered.", field="flavor", pointer="/flavor", code="flavor_unknown")
    waiting = QuotaRequest.objects.pending().filter(team=team, flavor=flavor)
    same = {"gpus": gpus, "why": words, "valid_from": valid_from, "valid_until": valid_until}
    if waiting.filter(author=principal.user, **same).exists():
        # A button that was pressed twice.
        raise ConflictError("You asked for exactly this already: it waits for a decision.", code="asked_already")
    if waiting.count() >= MOST_PENDING:
        raise ConflictError(
            f"{MOST_PENDING} requests of the team for {flavor.name} wait for a decision. Withdraw one first.",
            field="flavor",
            pointer="/flavor",
        )
    row = QuotaRequest.objects.create(
        team=team,
        flavor=flavor,
        gpus=gpus,
        why=words,
        valid_from=valid_from,
        valid_until=valid_until,
        author=principal.user,
    )
    events.record(
        kind="quota_asked",
        message=f"{gpus} × {flavor.name} asked for by {principal.user.username}: {words}",
        team=team,
        actor=principal.user,
        data={"request": row.pk, "flavor": flavor.slug, "after": _as_asked(row)},
    )
    return row


@in_transaction
def withdraw(*, principal: Principal, request_id: int) -> QuotaRequest:
    """Take a request back before anybody decides: its author, or another lead of the team."""
    row = _locked(principal, request_id)
    if row.author_id != principal.user.pk or not principal.may("write"):
        _leads(principal, row.team)
    _end(row, QuotaRequest.State.WITHDRAWN)
    events.record(
        kind="quota_withdrawn",
        message=f"Request for {row.gpus} × {row.flavor.name} withdrawn by {principal.user.username}",
        team=row.team,
        actor=principal.user,
        data=_changed(row),
    )
    return row


@in_transaction
def decide(
    *,
    principal: Principal,
    request_id: int,
    grant: bool,
    comment: str,
    flavor: Flavor | None = None,
    gpus: int | None = None,
    valid_from: datetime | Kept | None = KEPT,
    valid_until: datetime | Kept | None = KEPT,
    beyond: bool = False,
) -> QuotaRequest:
    """Grant a request or deny it, with a comment. What is not said is granted as it was asked for.

    `valid_from` None: at once; `valid_until` None: without an end.

    Fewer GPUs grant it in part; another flavor or another date grants it otherwise. More than was asked for
    (`beyond_of`) is granted with `beyond` alone: InvalidError at that field otherwise. Admins alone, never the author.
    """
    row = _locked(principal, request_id)
    principal = anew(principal)
    if not QuotaRequest.objects.decidable_by(principal).filter(pk=row.pk).exists():
        if row.author_id == principal.user.pk and principal.is_admin:
            raise NotAllowedError("You asked for this: another admin has to decide.")
        raise NotAllowedError("Only an admin decides about quota.")
    words = line_of(comment, field="comment", longest=MOST_WORDS)
    if not grant:
        _end(row, QuotaRequest.State.DENIED, by=principal, comment=words)
        _tell(principal, row, f"Request for {row.gpus} × {row.flavor.name} denied: {words}", level="warning")
        return row
    _pending(row)
    given = _given(row, flavor, gpus, valid_from, valid_until)
    if not beyond and (more := beyond_of(row, flavor=given.flavor, gpus=given.gpus, valid_until=given.valid_until)):
        raise InvalidError(not_meant(more), field="beyond", pointer="/beyond", code="not_confirmed")
    made = grants.grant(
        principal=principal,
        team=row.team,
        flavor=given.flavor,
        gpus=given.gpus,
        since=given.valid_from,
        until=given.valid_until,
        comment=words,
        asked_by=row.author_id,
    )
    _end(row, _verdict(row, given), by=principal, comment=words, granted=made)
    granted = f"{given.gpus} × {given.flavor.name}"
    asked = f"{row.gpus} × {row.flavor.name}"
    _tell(principal, row, f"{granted} granted" + (f" of {asked} asked for" if granted != asked else "") + f": {words}")
    return row


def checked(*, gpus: object, why: str, valid_from: datetime | None, valid_until: datetime | None) -> str:
    """The reason as it is kept; InvalidError with all that is wrong with the fields of a request."""
    checks = Checks()
    checks.of(lambda: grants.check_gpus(gpus), None)
    checks.of(lambda: grants.check_dates(valid_from, valid_until), None)
    words = checks.of(lambda: line_of(why, field="why", longest=MOST_WORDS), "")
    checks.done()
    return words


def may_ask(principal: Principal, team: Team) -> bool:
    """True for leads of the team: they ask for its quota."""
    return principal.may("write") and Team.objects.active().led_by(principal).filter(pk=team.pk).exists()


def beyond_of(row: QuotaRequest, *, flavor: Flavor, gpus: int, valid_until: datetime | None) -> list[str]:
    """What a grant would give that was not asked for, in words: more GPUs, others, or for longer."""
    found = []
    if gpus > row.gpus:
        found.append(f"{gpus} GPUs where {row.gpus} {'was' if row.gpus == 1 else 'were'} asked for")
    if flavor.pk != row.flavor_id:
        found.append(f"{flavor.name} where {row.flavor.name} was asked for")
    # An end that has passed is chosen anew: any other lies after it.
    passed = row.valid_until is not None and row.valid_until <= timezone.now()
    if row.valid_until is not None and (valid_until is None or (valid_until > row.valid_until and not passed)):
        found.append("an end later than was asked for" if valid_until else "no end where one was asked for")
    return found


def not_meant(more: list[str]) -> str:
    """What to say to whoever grants more than was asked for without saying that it is meant."""
    return f"This grants {' and '.join(more)}. Say that it is meant."


@dataclass(frozen=True)
class _Given:
    """What is granted of a request."""

    flavor: Flavor
    gpus: int
    valid_from: datetime | None
    valid_until: datetime | None


def _given(
    row: QuotaRequest,
    flavor: Flavor | None,
    gpus: int | None,
    since: datetime | Kept | None,
    until: datetime | Kept | None,
) -> _Given:
    """What is granted, as far as it was said; the rest as it was asked for. A beginning that has passed is now."""
    if flavor is not None and not Flavor.objects.filter(pk=flavor.pk, active=True).exists():
        raise InvalidError("This GPU is not offered.", field="flavor", pointer="/flavor", code="flavor_unknown")
    given = flavor or row.flavor
    if gpus is not None:
        grants.check_gpus(gpus)
    if since is KEPT:
        since = row.valid_from if row.valid_from is not None and row.valid_from > timezone.now() else None
    if until is KEPT:
        until = row.valid_until
        if until is not None and until <= timezone.now():
            words = "The end that was asked for has passed. Say until when."
            raise InvalidError(words, field="valid_until", pointer="/valid_until")
    grants.check_dates(since, until)
    return _Given(given, gpus if gpus is not None else row.gpus, since, until)


def _verdict(row: QuotaRequest, given: _Given) -> QuotaRequest.State:
    # A beginning that has passed meanwhile is now: as it was asked for.
    later = row.valid_from if row.valid_from is not None and row.valid_from > timezone.now() else None
    begins = given.valid_from != later
    more = given.gpus > row.gpus
    if given.flavor.pk != row.flavor_id or more or begins or given.valid_until != row.valid_until:
        return QuotaRequest.State.OTHERWISE
    return QuotaRequest.State.PARTLY if given.gpus < row.gpus else QuotaRequest.State.GRANTED


def _locked(principal: Principal, request_id: int) -> QuotaRequest:
    """The request, its team and itself locked in this order, as every service that grants; 404 for strangers."""
    seen = QuotaRequest.objects.visible_to(principal).filter(pk=request_id).values_list("team_id", flat=True).first()
    if seen is None:
        raise MissingError("There is no such request.")
    Team.objects.hold(seen)
    row = QuotaRequest.objects.hold(request_id, "team", "flavor", "author")
    assert row is not None
    return row


def _leads(principal: Principal, team: Team) -> None:
    if may_ask(principal, team):
        return
    if Team.objects.visible_to(principal).filter(pk=team.pk).exists():
        raise NotAllowedError("Only a lead of the team asks for its quota.")
    raise MissingError("There is no such team.")


def _pending(row: QuotaRequest) -> None:
    if row.state != QuotaRequest.State.PENDING:
        raise ConflictError(f"This request is settled already: {row.get_state_display().lower()}.")


def _end(
    row: QuotaRequest,
    state: QuotaRequest.State,
    *,
    by: Principal | None = None,
    comment: str = "",
    granted: QuotaGrant | None = None,
) -> None:
    _pending(row)
    row.state, row.comment, row.granted = state, comment, granted
    if by is not None:
        row.decided_by, row.decided_at = by.user, timezone.now()
    row.save(update_fields=["state", "comment", "granted", "decided_by", "decided_at"])


def _tell(principal: Principal, row: QuotaRequest, message: str, *, level: str = "good") -> None:
    events.record(
        kind="quota_denied" if row.state == QuotaRequest.State.DENIED else "quota_request_granted",
        message=message,
        team=row.team,
        actor=principal.user,
        level=level,
        data=_changed(row) | {"author": row.author_id, "grant": row.granted_id},
    )


def _changed(row: QuotaRequest) -> dict[str, object]:
    return {
        "request": row.pk,
        "flavor": row.flavor.slug,
        **events.changed({"state": QuotaRequest.State.PENDING}, {"state": row.state}),
    }


def _as_asked(row: QuotaRequest) -> dict[str, object]:
    return {
        "gpus": row.gpus,
        "from": row.valid_from.isoformat() if row.valid_from else None,
        "until": row.valid_until.isoformat() if row.valid_until else None,
    }
