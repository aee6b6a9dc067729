"""How long a session lasts: from sign-in, since somebody last did something, and until an admin ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY, signals
from django.contrib.auth.models import AnonymousUser
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from deployments.models import User

# Seconds since 1970: when the session began, and when somebody last did something in it.
BEGAN, SEEN = "began_at", "seen_at"
# What somebody does is written down so often, in seconds.
NOTED_EVERY = 60.0


@receiver(signals.user_logged_in)
def begun(request: HttpRequest | None, **_: Any) -> None:
    """Note when a session began."""
    if request is not None and hasattr(request, "session"):
        request.session[BEGAN] = request.session[SEEN] = timezone.now().timestamp()


def is_over(session: Mapping[str, Any] | Any, user: User) -> bool:
    """True for a session that began too long ago, in which too long nothing was done, or that an admin ended."""
    began, seen = session.get(BEGAN), session.get(SEEN)
    if not isinstance(began, float) or not isinstance(seen, float):
        return True  # Of a version that did not count.
    now = timezone.now().timestamp()
    if now - began >= settings.SESSION_LASTS.total_seconds() or now - seen >= settings.SESSION_IDLE.total_seconds():
        return True
    return user.sessions_after is not None and began <= user.sessions_after.timestamp()


class SessionAgeMiddleware:
    """Whoever comes with a session that is over has to sign in again."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if SESSION_KEY in request.session and isinstance(request.user, User):
            if is_over(request.session, request.user):
                request.session.flush()
                request.user = AnonymousUser()
            elif _somebody(request):
                now = timezone.now().timestamp()
                if now - request.session[SEEN] >= NOTED_EVERY:
                    request.session[SEEN] = now
        return self.get_response(request)


def _somebody(request: HttpRequest) -> bool:
    """False for what pages fetch by themselves every few seconds: nobody has to sit before them."""
    return request.method != "GET" or request.headers.get("HX-Request") != "true"
