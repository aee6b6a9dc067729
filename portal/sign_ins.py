"""Hands what Django and allauth say of sign-ins to the audit."""

from __future__ import annotations

from typing import Any

from allauth.account import signals as accounts
from allauth.account.adapter import get_adapter
from allauth.mfa import signals as factors
from allauth.socialaccount import signals as links
from django.contrib.auth import signals
from django.core.exceptions import PermissionDenied
from django.dispatch import receiver
from django.http import HttpRequest

from deployments.models import User
from deployments.services import events, sign_ins


@receiver(signals.user_logged_in)
def logged_in(request: HttpRequest | None, user: Any, **_: Any) -> None:
    """A session began."""
    if _asked(request) and isinstance(user, User):
        sign_ins.signed_in(user=user, address=_address(request))


@receiver(signals.user_logged_out)
def logged_out(request: HttpRequest | None, user: Any, **_: Any) -> None:
    """A session was ended by its person."""
    if _asked(request) and isinstance(user, User):
        sign_ins.signed_out(user=user, address=_address(request))


@receiver(signals.user_login_failed)
def login_failed(credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    """A name and a password did not belong together."""
    if _asked(request):
        sign_ins.refused(username=str(credentials.get("username", "")), address=_address(request))


@receiver(accounts.password_changed)
def password_changed(request: HttpRequest, user: Any, **_: Any) -> None:
    """Somebody changed their own password."""
    if _asked(request) and isinstance(user, User):
        sign_ins.password_changed(user=user, address=_address(request))


@receiver(accounts.user_signed_up)
def signed_up(request: HttpRequest, user: Any, **more: Any) -> None:
    """Somebody made themselves an account."""
    if _asked(request) and isinstance(user, User):
        how = "single sign-on" if more.get("sociallogin") is not None else "an invitation"
        sign_ins.account_made(user=user, how=how, address=_address(request))


@receiver(factors.authenticator_added)
@receiver(factors.authenticator_removed)
@receiver(factors.authenticator_reset)
def factor_changed(request: HttpRequest, user: Any, authenticator: Any, signal: Any, **_: Any) -> None:
    """A second factor came, went, or got new codes."""
    if _asked(request) and isinstance(user, User):
        sign_ins.second_factor(
            user=user,
            factor=str(authenticator.type),
            had=signal is not factors.authenticator_added,
            has=signal is not factors.authenticator_removed,
            address=_address(request),
        )


@receiver(links.social_account_added)
@receiver(links.social_account_updated)
def link_added(request: HttpRequest, sociallogin: Any, **_: Any) -> None:
    """An identity of an issuer was attached to an account that was there."""
    if _asked(request) and isinstance(sociallogin.user, User):
        account = sociallogin.account
        sign_ins.linked(user=sociallogin.user, provider=account.provider, linked=True, address=_address(request))


@receiver(links.social_account_removed)
def link_removed(request: HttpRequest, socialaccount: Any, **_: Any) -> None:
    """An identity of an issuer was taken off an account."""
    if _asked(request) and isinstance(socialaccount.user, User):
        provider, user = socialaccount.provider, socialaccount.user
        sign_ins.linked(user=user, provider=provider, linked=False, address=_address(request))


@receiver(factors.authentication_failed)
def code_refused(request: HttpRequest, user: Any, **_: Any) -> None:
    """A code was wrong."""
    if _asked(request) and isinstance(user, User):
        sign_ins.code_refused(user=user, address=_address(request))


def _asked(request: HttpRequest | None) -> bool:
    """True for requests that came through our middleware: what happens in them carries their id."""
    request_id = str(request.META.get("SLIPWAY_REQUEST_ID", "")) if request is not None else ""
    if request_id:
        events.request_id.set(request_id)
    return bool(request_id)


def _address(request: HttpRequest | None) -> str:
    try:
        return str(get_adapter(request).get_client_ip(request))[:45]
    except (PermissionDenied, ValueError):
        return ""  # The proxy said nothing that is an address.
