"""API tokens: shown once, stored as SHA-256, narrower than their owner, and dead the moment they are revoked."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from deployments.models import ApiToken, EndpointKey, Principal, Team, User
from deployments.services import events
from deployments.services.errors import InvalidError, MissingError, NotAllowedError
from deployments.services.principals import ALL_SCOPES
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction

PREFIX = "slp_"
LONGEST = 200
# Of new ones: those made while a year was allowed live to their end.
MOST_DAYS = DEFAULT_DAYS = 90
PER_USER = 50
SEEN_EVERY = timedelta(minutes=1)
# Who may not see a thing is told that it is not there: these scopes do nothing without “read”, and bring it.
SEEING = frozenset({"write", "approve"})


@in_transaction
def create(
    *,
    principal: Principal,
    name: str,
    scopes: Iterable[str] = ("read",),
    days: int = DEFAULT_DAYS,
    teams: Iterable[Team] | None = None,
    text: str | None = None,
) -> tuple[ApiToken, str]:
    """Make a token and return it with its text, which is never shown again. `days` is its life, at most 90.

    “write” and “approve” bring “read”. Scopes, teams and life are at most those of the principal: a token made by a
    token ends with it. Nobody makes tokens for somebody else. Living tokens of one user have different names.
    `text` is for an installation that derives it from its own secret key: as long and as random as ours.
    """
    owner = principal.user
    if not principal.may("write"):
        raise NotAllowedError("This token may not make tokens.")
    label = line_of(name, field="name", longest=80)
    wanted = _scopes(principal, scopes)
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS:
        raise InvalidError(f"A token lives 1 to {MOST_DAYS} days.", field="days", pointer="/days")
    check_alive(principal)
    User.objects.select_for_update(no_key=True).get(pk=owner.pk)
    if ApiToken.objects.live().filter(user=owner).count() >= PER_USER:
        raise InvalidError(f"At most {PER_USER} tokens at a time: revoke one first.", field="name", pointer="/name")
    # Under the lock of their owner: a button that was pressed twice makes one.
    if ApiToken.objects.live().filter(user=owner, name=label).exists():
        words = f"There is a living token “{label}” already: choose another name, or revoke that one first."
        raise InvalidError(words, field="name", pointer="/name", code="name_taken")
    text = text or PREFIX + secrets.token_urlsafe(32)
    team_ids = sorted(team.pk for team in teams) if teams is not None else None
    if principal.team_ids is not None:
        team_ids = sorted(principal.team_ids if team_ids is None else principal.team_ids & set(team_ids))
    expires_at = timezone.now() + timedelta(days=days)
    if principal.expires_at is not None:
        expires_at = min(expires_at, principal.expires_at)
    token = ApiToken.objects.create(
        user=owner,
        name=label,
        prefix=text[:12],
        digest=digest_of(text),
        scopes=wanted,
        team_ids=team_ids,
        expires_at=expires_at,
        parent_id=principal.token_id,
    )
    events.record(
        kind="token_created",
        message=f"Token “{token.name}” made for {owner.username}",
        actor=principal.user,
        data={
            "token": token.pk,
            "prefix": token.prefix,
            "owner": owner.pk,
            "after": {"name": token.name, "scopes": wanted, "teams": team_ids, "until": expires_at.isoformat()},
        },
    )
    return token, text


def authenticate(text: str) -> ApiToken | None:
    """The live token with this text, with its user; None for anything else. `last_used_at` is kept to the minute."""
    if not text.startswith(PREFIX) or len(text) > LONGEST or not text.isascii():
        return None
    token = ApiToken.objects.live().select_related("user").filter(digest=digest_of(text)).first()
    if token is None:
        return None
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - SEEN_EVERY)
    if token.last_used_at is None or token.last_used_at < now - SEEN_EVERY:
        ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)
    return token


@in_transaction
def revoke(*, principal: Principal, token_id: int) -> ApiToken:
    """End a token at once, and with it all tokens and endpoint keys that it made, and theirs.

    Its owner may, and an admin; to others, and to narrower tokens, it does not exist.
    """
    token = ApiToken.objects.revocable_by(principal).hold(token_id, "user")
    if token is None:
        raise MissingError("There is no such token.")
    if not principal.may("write"):
        raise NotAllowedError("This token may not revoke tokens.")
    if token.revoked_at is None:
        token.revoked_at = timezone.now()
        _end(principal, token)
    return token


def check_alive(principal: Principal) -> None:
    """Hold the token that speaks, where one does, so that it makes nothing while it is being revoked."""
    if principal.token_id is None:
        return
    token = ApiToken.objects.hold(principal.token_id)
    if token is None or token.revoked_at is not None:
        raise NotAllowedError("This token is revoked.")


def _end(principal: Principal, token: ApiToken, by: ApiToken | None = None) -> None:
    """Write down that a token ended, and end what it made; `by` is the one that it ends with."""
    ApiToken.objects.filter(pk=token.pk).update(revoked_at=token.revoked_at)
    why = f" with “{by.name}” ({by.prefix}…), which made it" if by is not None else ""
    events.record(
        kind="token_revoked",
        message=f"Token “{token.name}” of {token.user.username} revoked{why}",
        actor=principal.user,
        data={
            "token": token.pk,
            "prefix": token.prefix,
            "owner": token.user_id,
            **({"parent": by.pk} if by is not None else {}),
            **events.changed({"revoked": False}, {"revoked": True}),
        },
    )
    for key in EndpointKey.objects.filter(made_by_token=token, revoked_at=None).select_related("team").order_by("pk"):
        EndpointKey.objects.filter(pk=key.pk).update(revoked_at=token.revoked_at)
        events.record(
            kind="key_revoked",
            message=f"Endpoint key “{key.name}” revoked with token “{token.name}”, which made it ({key.prefix}…)",
            team=key.team,
            actor=principal.user,
            data={"key": key.pk, "prefix": key.prefix, **events.changed({"revoked": False}, {"revoked": True})},
        )
    for child in ApiToken.objects.filter(parent=token, revoked_at=None).select_related("user").order_by("pk"):
        child.revoked_at = token.revoked_at
        _end(principal, child, by=token)


def digest_of(text: str) -> str:
    """What is stored of a token. Plain SHA-256 suffices: its text has 256 random bits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _scopes(principal: Principal, scopes: Iterable[str]) -> list[str]:
    asked = {scope for scope in scopes if isinstance(scope, str)}
    unknown = sorted(asked - ALL_SCOPES)
    if unknown or not asked:
        known = ", ".join(sorted(ALL_SCOPES))
        raise InvalidError(f"Choose one or more of: {known}.", field="scopes", pointer="/scopes")
    if asked & SEEING:
        asked |= {"read"} & principal.scopes
    beyond = sorted(asked - principal.scopes)
    if beyond:
        raise NotAllowedError(f"A token cannot give what it has not: {', '.join(beyond)}.", field="scopes")
    return sorted(asked)
