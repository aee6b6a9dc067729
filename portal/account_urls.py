"""Those of allauth's addresses that Slipway means to have. The others keep their names, and answer 404.

allauth reverses names of pages that nobody here ever sees, so none may be missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, cast

import allauth.urls
from allauth.core.exceptions import ImmediateHttpResponse
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, URLResolver, path
from django.views.generic import RedirectView

logger = logging.getLogger(__name__)

# There is no mail: a forgotten password is set anew by whoever runs Slipway (docs/settings.md).
ALWAYS = frozenset(
    {
        "account_login",
        "account_logout",
        "account_change_password",
        "account_inactive",
        "account_reauthenticate",
        "mfa_index",
        "mfa_authenticate",
        "mfa_reauthenticate",
        "mfa_activate_totp",
        "mfa_deactivate_totp",
        "mfa_view_recovery_codes",
        "mfa_generate_recovery_codes",
        "mfa_download_recovery_codes",
    }
)
# Without a second factor there is nothing to show or to switch off.
NEEDS_ONE = frozenset({"mfa_deactivate_totp", "mfa_view_recovery_codes", "mfa_download_recovery_codes"})
BY_INVITATION = frozenset({"account_signup"})
SINGLE_SIGN_ON = frozenset(
    {
        "openid_connect_login",
        "openid_connect_callback",
        "socialaccount_login_cancelled",
        "socialaccount_login_error",
        "socialaccount_signup",
    }
)

ISSUER_ASKED = frozenset({"openid_connect_login", "openid_connect_callback"})

View = Callable[..., HttpResponse]


def served() -> frozenset[str]:
    """Names of the addresses that answer, by what is configured."""
    names = ALWAYS | SINGLE_SIGN_ON if settings.SOCIALACCOUNT_PROVIDERS else ALWAYS
    return names | BY_INVITATION if settings.SIGNUP_BY_INVITATION else names


def closed(patterns: Iterable[URLPattern | URLResolver]) -> list[URLPattern | URLResolver]:
    """The same addresses, of which only the served ones answer."""
    found: list[URLPattern | URLResolver] = []
    for item in patterns:
        if isinstance(item, URLResolver):
            found.append(URLResolver(item.pattern, cast(Any, closed(item.url_patterns)), item.default_kwargs))
        else:
            view = _door(cast(View, item.callback), item.name or "")
            found.append(URLPattern(item.pattern, view, item.default_args, item.name))
    return found


def _door(view: View, name: str) -> View:
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if name not in served():
            raise Http404
        if name in NEEDS_ONE:
            return _or_to_setting_up(view, request, *args, **kwargs)
        if name not in ISSUER_ASKED:
            try:
                return view(request, *args, **kwargs)
            except ImmediateHttpResponse as refused:
                answered: HttpResponse = refused.response
                return answered
        try:
            return view(request, *args, **kwargs)
        except (OSError, KeyError, ValueError) as error:
            # Away, or no such issuer: what the HTTP library raises is an OSError.
            logger.warning("single sign-on: %s: %s", type(error).__name__, error)
            return render(request, "socialaccount/authentication_error.html", status=503)

    return answer


def _or_to_setting_up(view: View, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    try:
        return view(request, *args, **kwargs)
    except Http404:
        return redirect("mfa_index")


urlpatterns: list[URLPattern | URLResolver] = [
    # allauth would lead from here to its page of addresses for mail.
    path("", RedirectView.as_view(pattern_name="account")),
    *closed(allauth.urls.urlpatterns),
]
