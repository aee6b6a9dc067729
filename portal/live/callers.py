"""Who opens a stream: the session of a page, or below /api/ a token. The same checks as for a page."""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.middleware.csrf import CsrfViewMiddleware

from deployments.models import Principal, User
from deployments.services import tokens
from deployments.services.principals import principal_of_token
from portal import second_factor, sessions
from portal.live.http import Refused, Scope, header_of

SessionStore = import_module(settings.SESSION_ENGINE).SessionStore


@dataclass(frozen=True)
class Caller:
    """A principal, and the session it came with (empty for a token)."""

    principal: Principal
    session_key: str = ""
    token_id: int | None = None

    @property
    def user_id(self) -> int:
        return int(self.principal.user.pk)


def caller_of(scope: Scope, *, token_allowed: bool = False, csrf: bool = False) -> Caller:
    """The caller of a request; Refused with 401 or 403. Runs in a database thread."""
    request = ASGIRequest(dict(scope), io.BytesIO(b""))
    try:
        request.get_host()
    except DisallowedHost:
        raise Refused(400, "bad_host", "This is not an address of Slipway.") from None
    if token_allowed and header_of(scope, b"authorization"):
        return _by_token(header_of(scope, b"authorization"))
    request.session = SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    user = get_user(request)
    if not isinstance(user, User) or not user.is_active or sessions.is_over(request.session, user):
        raise Refused(401, "not_authenticated", "Your session has ended. Sign in again.")
    if second_factor.owes(user):
        raise Refused(403, "second_factor", second_factor.WORDS)
    if csrf:
        _check_csrf(request)
    return Caller(Principal(user=user), request.session.session_key or "")


def _by_token(header: str) -> Caller:
    scheme, _, text = header.partition(" ")
    token = tokens.authenticate(text.strip()) if scheme.lower() == "bearer" else None
    if token is None:
        raise Refused(401, "invalid_token", "This token is unknown, expired or revoked.")
    return Caller(principal_of_token(token), token_id=token.pk)


def _check_csrf(request: ASGIRequest) -> None:
    check: Any = CsrfViewMiddleware(lambda _: HttpResponse())
    check.process_request(request)
    if check.process_view(request, None, (), {}) is not None:
        raise Refused(403, "csrf", "This page is out of date. Reload it and try again.")
