"""Accounts that admins switch off and on, whose sessions and tokens they end, and from whom they take administration.

Each is audited. Nobody does it to themselves, and one admin always stays.
"""

from __future__ import annotations

from django.db.models import Q, QuerySet
from django.utils import timezone

from deployments.models import ApiToken, EndpointKey, Invitation, Principal, Team, User, admins_now
from deployments.services import authority, events, left_keys, memberships
from deployments.services.errors import ConflictError, MissingError, NotAllowedError
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction


@in_transaction
def switch_off(*, principal: Principal | None, user: User, reason: str) -> User:
    """Let this person in no more: sessions, tokens, keys, invitations and approvals not carried out end at once.

    `principal` None is the operator, at the command line. ConflictError for the last admin.
    """
    why = line_of(reason, field="reason", longest=300)
    row = _locked(principal, user)
    if not row.is_active:
        return row
    _keep_an_admin(row)
    row.is_active = False
    row.sessions_after = timezone.now()
    row.save(update_fields=["is_active", "sessions_after"])
    ended = _end_credentials(row)
    _record(principal, row, "account_off", f"The account {row.username} is switched off: {why}", "active", ended=ended)
    left_keys.tell_of(row)
    authority.withdraw(row)
    memberships.tell_streams()
    return row


@in_transaction
def switch_on(*, principal: Principal | None, user: User) -> User:
    """Let this person in again; what ended with the account stays ended."""
    row = _locked(principal, user)
    if row.is_active:
        return row
    row.is_active = True
    row.save(update_fields=["is_active"])
    _record(principal, row, "account_on", f"The account {row.username} is switched on again", "active", now=True)
    return row


@in_transaction
def end_sessions(*, principal: Principal | None, user: User) -> User:
    """End this person's sessions, tokens and keys of their own: they have to sign in, and make tokens, anew."""
    row = _locked(principal, user)
    row.sessions_after = timezone.now()
    row.save(update_fields=["sessions_after"])
    ended = _end_credentials(row)
    words = f"Sessions and tokens of {row.username} are ended"
    _record(principal, row, "sessions_ended", words, "sessions", ended=ended)
    memberships.tell_streams()
    return row


@in_transaction
def take_admin(*, principal: Principal | None, user: User) -> User:
    """Let this person be no platform admin any more; a rule about their groups may make them one again.

    ConflictError for the last admin.
    """
    row = _locked(principal, user)
    if not row.is_platform_admin:
        return row
    _keep_an_admin(row)
    row.is_platform_admin = row.admin_by_group = row.is_staff = False
    row.save(update_fields=["is_platform_admin", "admin_by_group", "is_staff"])
    _record(principal, row, "admin_taken", f"{row.username} is no longer a platform admin", "admin")
    for team in Team.objects.filter(invitations__in=Invitation.objects.open().filter(invited_by=row)).distinct():
        memberships.end_words_of(row, team)
    left_keys.tell_of(row)
    authority.withdraw(row)
    memberships.tell_streams()
    return row


def listed(principal: Principal) -> QuerySet[User]:
    """All accounts, for an admin whose token is bound to no team; for others none."""
    whole = principal.is_admin and principal.may("read") and principal.team_ids is None
    return User.objects.all() if whole else User.objects.none()


def _locked(principal: Principal | None, user: User) -> User:
    """The account and, in one order, all admins, for whoever may do this; two admins never take each other out."""
    if principal is not None:
        if not (principal.is_admin and principal.may("approve") and principal.may("write")):
            raise NotAllowedError("Only an admin may do this to an account.")
        if principal.team_ids is not None:
            raise NotAllowedError("A token that is bound to teams changes no accounts.")
        if principal.user.pk == user.pk:
            raise NotAllowedError("Nobody does this to their own account: another admin has to.")
    wanted = Q(pk=user.pk) | Q(is_platform_admin=True)
    rows = {row.pk: row for row in User.objects.select_for_update(no_key=True).filter(wanted).order_by("pk")}
    if user.pk not in rows:
        raise MissingError("There is no such account.")
    if principal is not None and not (principal.user.pk in rows and rows[principal.user.pk].rules):
        raise NotAllowedError("Only an admin may do this to an account.")
    return rows[user.pk]


def _keep_an_admin(row: User) -> None:
    if row.is_platform_admin and not User.objects.filter(admins_now()).exclude(pk=row.pk).exists():
        raise ConflictError("This is the last platform admin: make another one first (manage.py make_admin).")


def _end_credentials(row: User) -> dict[str, int]:
    now = timezone.now()
    return {
        "tokens": ApiToken.objects.filter(user=row, revoked_at=None).update(revoked_at=now),
        "keys": EndpointKey.objects.filter(person=row, revoked_at=None).update(revoked_at=now),
    }


def _record(
    principal: Principal | None,
    row: User,
    kind: str,
    message: str,
    what: str,
    *,
    now: bool = False,
    ended: dict[str, int] | None = None,
) -> None:
    events.record(
        kind=kind,
        message=message + ("" if principal else ", by the operator"),
        actor=principal.user if principal else None,
        level="warning",
        data={"user": row.pk, **({"ended": ended} if ended else {}), **events.changed({what: not now}, {what: now})},
    )
