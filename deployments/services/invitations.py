"""Invitations: links that let whoever opens them into a team once. The word is shown once, its SHA-256 is kept."""

from __future__ import annotations

import secrets
from datetime import timedelta
from enum import Enum

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.urls import reverse
from django.utils import timezone

from deployments.models import Invitation, Membership, Principal, Team, User
from deployments.services import events, memberships
from deployments.services.errors import Checks, ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.principals import anew
from deployments.services.text import line_of
from deployments.services.tokens import digest_of
from deployments.services.transactions import in_transaction
from portal.lib.hints import MAIL_INVITATION, hint
from portal.lib.sealed_text import sealed

MOST_DAYS = 30
DEFAULT_DAYS = 7
MOST_OPEN = 50
LONGEST_WORD = 100
ELSEWHERE = "This invitation was mailed to another address. Ask for one that is yours."
# Kept in the session while somebody who was invited makes an account.
INVITED_WITH = "invited_with"
# For what the word of one is sealed until it is mailed.
SEALED_FOR = b"slipway invitation "


class Standing(Enum):
    """What a link is worth now."""

    OPEN = "open"
    ACCEPTED = "accepted"
    EXPIRED = "expired"
    REVOKED = "revoked"


@in_transaction
def invite(
    *,
    principal: Principal,
    team: Team,
    role: str = Membership.Role.MEMBER,
    email: str = "",
    days: int = DEFAULT_DAYS,
    word: str | None = None,
) -> tuple[Invitation, str]:
    """Make an invitation that lives `days` days, and return it with its word, which is never shown again.

    Leads invite into their own team, admins into all; an address is invited once at a time. Where there is a mail
    server a worker mails it after the commit (`mail_due`). `word` is for a form that may be sent twice: as long and as
    random as ours.
    """
    row = memberships.ruled(principal, team)
    checks = Checks()
    checks.of(lambda: memberships.check_role(role), None)
    checks.of(lambda: _check_days(days), None)
    address = checks.of(lambda: _address(email), "")
    checks.done()
    if Invitation.objects.open().filter(team=row).count() >= MOST_OPEN:
        raise ConflictError(f"{MOST_OPEN} invitations of the team are open: revoke one first.", code="too_many")
    # Under the team's lock: of many at once one is made, and mailed.
    waits = Invitation.objects.open().filter(team=row, email__iexact=address).first() if address else None
    if waits is not None:
        raise ConflictError(
            f"{address} is invited already, as {waits.get_role_display().lower()}, until "
            f"{timezone.localtime(waits.expires_at):%-d %b %Y}. Revoke that invitation (number {waits.pk}) first.",
            field="email",
            pointer="/email",
            code="invited_already",
        )
    word = word or secrets.token_urlsafe(24)
    mails = bool(address) and settings.SENDS_MAIL
    invitation = Invitation.objects.create(
        team=row,
        email=address,
        role=role,
        digest=digest_of(word),
        invited_by=principal.user,
        expires_at=timezone.now() + timedelta(days=days),
        mail_due=mails,
        mail_word=sealed(word, SEALED_FOR) if mails else "",
    )
    if mails:
        hint(MAIL_INVITATION, invitation.pk)
    whom = address or "Whoever has the link"
    events.record(
        kind="invited",
        message=f"{whom} invited into {row.name} as {invitation.get_role_display().lower()}",
        team=row,
        actor=principal.user,
        data={"invitation": invitation.pk, "after": {"role": role, "until": invitation.expires_at.isoformat()}},
    )
    return invitation, word


def link_of(word: str) -> str:
    """The address that lets somebody in, as people reach it."""
    return f"{settings.SLIPWAY_URL.rstrip('/')}{reverse('invitation', args=[word])}"


@in_transaction
def revoke(*, principal: Principal, invitation_id: int) -> Invitation:
    """End an open invitation. To strangers it does not exist; revoking twice changes nothing."""
    if not principal.may("write"):
        raise NotAllowedError("This token may not do that.")
    rows = Invitation.objects.manageable_by(principal)
    team_id = rows.filter(pk=invitation_id).values_list("team_id", flat=True).first()
    if team_id is None:
        raise MissingError("There is no such invitation.")
    # The team before the invitation, as everything that changes a team's people does: no deadlocks.
    Team.objects.hold(team_id)
    row = Invitation.objects.manageable_by(anew(principal)).hold(invitation_id, "team")
    if row is None:
        raise MissingError("There is no such invitation.")
    if row.accepted_at is not None:
        raise ConflictError("This invitation is accepted already: take the person out of the team instead.")
    if row.revoked_at is None:
        row.revoked_at = timezone.now()
        row.save(update_fields=["revoked_at"])
        events.record(
            kind="invitation_revoked",
            message=f"Invitation of {row.email or 'whoever has the link'} into {row.team.name} revoked",
            team=row.team,
            actor=principal.user,
            data={"invitation": row.pk, **events.changed({"revoked": False}, {"revoked": True})},
        )
    return row


def found(word: str) -> Invitation | None:
    """The invitation that this word opens, whatever it is worth; None for a word that nobody made."""
    if not word.isascii() or len(word) > LONGEST_WORD:
        return None
    return with_digest(digest_of(word))


def with_digest(digest: str) -> Invitation | None:
    """The invitation whose word has this digest: a session remembers that, and never the word."""
    return Invitation.objects.select_related("team", "invited_by").filter(digest=digest[:64]).first()


def standing(invitation: Invitation) -> Standing:
    """Whether it lets somebody in now. It ends with the right of the person who gave it."""
    if invitation.accepted_at is not None:
        return Standing.ACCEPTED
    if invitation.revoked_at is not None or invitation.team.archived_at is not None:
        return Standing.REVOKED
    if invitation.expires_at <= timezone.now():
        return Standing.EXPIRED
    host = Principal(user=invitation.invited_by)
    if not Team.objects.managed_by(host).filter(pk=invitation.team_id).exists():
        return Standing.REVOKED
    return Standing.OPEN


@in_transaction
def accept(*, user: User, word: str) -> Membership:
    """Let this person into the team. ConflictError with the code accepted, expired, revoked, elsewhere or member.

    One mailed to an address is for an account that has this address. Whoever belongs already keeps the invitation
    whole, unless it makes them a lead.
    """
    return _take(user, found(word), signing_up=False)


@in_transaction
def accept_by_sign_up(*, user: User, digest: str) -> Membership:
    """Let somebody in whose account this very invitation makes: whoever signs up with it is whom it was sent to.

    Errors as of `accept`: of two who sign up with one link the second has to be turned away.
    """
    return _take(user, with_digest(digest), signing_up=True)


def _take(user: User, known: Invitation | None, *, signing_up: bool) -> Membership:
    # The team before the invitation, as everything that changes a team's people does: no deadlocks.
    team = Team.objects.hold(known.team_id) if known is not None else None
    row = Invitation.objects.hold(known.pk, "invited_by") if known is not None else None
    if team is None or row is None or not User.objects.filter(pk=user.pk, is_active=True).exists():
        raise MissingError("There is no such invitation.")
    row.team = team
    worth = standing(row)
    if worth is not Standing.OPEN:
        raise ConflictError(f"This invitation is {worth.value}.", code=worth.value)
    if not signing_up and not is_for(user, row):
        raise ConflictError(ELSEWHERE, code="elsewhere")
    if gains_nothing(user, row):
        raise ConflictError(f"You belong to {team.name} already.", code="member")
    row.accepted_at, row.accepted_by = timezone.now(), user
    row.save(update_fields=["accepted_at", "accepted_by"])
    return memberships.write(team, user, role=row.role, actor=user, why=f"invited by {row.invited_by.username}")


def is_for(user: User, invitation: Invitation) -> bool:
    """True unless it was mailed to an address that is not known to be this person's.

    An address counts that an issuer has verified, or that an operator gave to a local account.
    """
    if not invitation.email:
        return True
    if EmailAddress.objects.filter(user=user, verified=True, email__iexact=invitation.email).exists():
        return True
    same = user.email.casefold() == invitation.email.casefold()
    return same and not SocialAccount.objects.filter(user=user).exists()


def gains_nothing(user: User, invitation: Invitation) -> bool:
    """True for who belongs to the team already, unless the invitation would make them a lead."""
    before = Membership.objects.filter(team=invitation.team_id, user=user).first()
    return before is not None and before.role in {invitation.role, Membership.Role.LEAD}


def _check_days(days: object) -> None:
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS:
        raise InvalidError(f"An invitation lives 1 to {MOST_DAYS} days.", field="days", pointer="/days")


def _address(email: object) -> str:
    text = line_of(email, field="email", longest=254, required=False)
    if text:
        try:
            validate_email(text)
        except ValidationError:
            raise InvalidError("This is no e-mail address.", field="email", pointer="/email") from None
    return text
