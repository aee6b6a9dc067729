"""Who a request speaks for: the one typed way from `request` to `Principal`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from django.http import HttpRequest

from deployments.models import ApiToken, Principal, User
from deployments.services import events
from deployments.services.errors import NotAuthenticatedError

ALL_SCOPES = frozenset({"read", "write", "approve", "invoke"})


def principal_of(request: HttpRequest | Any) -> Principal:
    """The principal of a Django or REST request; raises NotAuthenticatedError for an anonymous one."""
    user = request.user
    if not isinstance(user, User) or not user.is_active:
        raise NotAuthenticatedError("Log in first, or send an API token.")
    events.request_id.set(str(request.META.get("SLIPWAY_REQUEST_ID", "")))
    token = getattr(request, "auth", None)
    if not isinstance(token, ApiToken):
        events.acting_token.set("")
        return Principal(user=user)
    events.acting_token.set(token.prefix)
    return principal_of_token(token)


def anew(principal: Principal) -> Principal:
    """The principal as the database knows the user now: who has waited for a lock may have lost a right meanwhile."""
    user = User.objects.filter(pk=principal.user.pk).first()
    return replace(principal, user=user) if user is not None else principal


def still_in(principal: Principal, since: datetime) -> Principal | None:
    """The principal anew; None where the account is off, its token, or after `since` its sessions, ended."""
    now = anew(principal)
    if now.token_id is not None:
        return now if ApiToken.objects.live().filter(pk=now.token_id).exists() else None
    ended = now.user.sessions_after is not None and now.user.sessions_after > since
    return now if now.user.is_active and not ended else None


def principal_of_token(token: ApiToken) -> Principal:
    """What a token may do: its scopes, in its teams, while it lives, never more than its user."""
    scopes = frozenset(scope for scope in token.scopes if scope in ALL_SCOPES)
    teams = None if token.team_ids is None else frozenset(int(pk) for pk in token.team_ids)
    return Principal(user=token.user, scopes=scopes, team_ids=teams, expires_at=token.expires_at, token_id=token.pk)
