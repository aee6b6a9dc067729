"""Answering browsers: pages for people, parts for htmx, and a sign-in that never lands inside a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.utils.http import urlencode


class PortalRequest(HttpRequest):
    """A request as our middleware leaves it: `htmx` is there, `user` is there."""

    htmx: Any


View = Callable[..., HttpResponse]


def signed_in(view: View) -> View:
    """Let only people in who are signed in; an htmx call is told to move the whole page to the sign-in."""

    @wraps(view)
    def guarded(request: PortalRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.user.is_authenticated and request.user.is_active:
            response = view(request, *args, **kwargs)
            response.headers.setdefault("Cache-Control", "no-store")
            return response
        login = resolve_url(settings.LOGIN_URL)
        if is_htmx(request):
            response = HttpResponse(status=204)
            response["HX-Redirect"] = f"{login}?{urlencode({'next': request.htmx.current_url_abs_path or '/'})}"
            return response
        return redirect(f"{login}?{urlencode({'next': request.get_full_path()})}")

    return guarded


def is_htmx(request: HttpRequest) -> bool:
    """True when htmx asks for a part, not the browser for a page (nor htmx for a page it has lost)."""
    details = getattr(request, "htmx", None)
    return details is not None and bool(details) and not details.history_restore_request


def page_or_partial(request: HttpRequest, template: str) -> str:
    """The template to render for `page.html#part`: the part for htmx, the whole page otherwise."""
    page, _, part = template.partition("#")
    return f"{page}#{part}" if part and is_htmx(request) else page


def go_to(request: HttpRequest, url: str) -> HttpResponse:
    """A redirect that moves the page, also when htmx asked."""
    if is_htmx(request):
        response = HttpResponse(status=204)
        response["HX-Redirect"] = url
        return response
    return redirect(url)
