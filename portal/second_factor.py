"""A second factor: codes of an authenticator app, and codes to recover with. Its secrets are stored encrypted."""

from __future__ import annotations

from collections.abc import Callable

from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse

from deployments.models import User
from portal.lib.htmx import go_to
from portal.lib.problems import MEDIA_TYPE, problem
from portal.lib.sealed_text import opened, sealed

CONTEXT = b"slipway second factor "
# What somebody who has to set one up may open meanwhile.
OPEN = ("/accounts/", "/static/", "/healthz", "/readyz")
WORDS = "Admins need a second factor here: set one up first."


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth carries no types
    """Encrypts what a stolen database would otherwise let its thief sign in with."""

    def encrypt(self, text: str) -> str:
        """The text, sealed with a key that follows from the secret key of the site."""
        return sealed(text, CONTEXT)

    def decrypt(self, encrypted_text: str) -> str:
        """The text again; InvalidToken when the site's secret key is another one now."""
        return opened(encrypted_text, CONTEXT)


class SecondFactorMiddleware:
    """Where settings ask for it, an admin with a password opens nothing before they have a second factor.

    Whoever signs in through an issuer has theirs there, and API tokens are none of a person's.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path.startswith(OPEN) or not owes(request.user):
            return self.get_response(request)
        if request.path.startswith("/api/"):
            document = problem(403, "second_factor", WORDS, instance=request.path, request_id="")
            return JsonResponse(document, status=403, content_type=MEDIA_TYPE)
        messages.warning(request, WORDS)
        return go_to(request, reverse("mfa_index"))


def has_one(user: User) -> bool:
    """True for somebody who gives a code of an authenticator app when they sign in."""
    return bool(Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).exists())


def owes(user: object) -> bool:
    """True for whom the settings let do nothing before they have set one up; streams ask this too."""
    if not settings.ADMINS_NEED_SECOND_FACTOR or not isinstance(user, User):
        return False
    return user.is_platform_admin and user.has_usable_password() and not has_one(user)
