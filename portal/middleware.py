"""Middleware of the site."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, cast

from allauth.core.internal import httpkit
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import BadRequest, ImproperlyConfigured, RequestDataTooBig
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse

from deployments.services import events
from portal import health, long_forms

HEADER = "X-Request-Id"


class Middleware:
    """What middleware for both kinds of server shares."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(cast(Any, self))


class PlainAddressMiddleware(Middleware):
    """Refuse NUL in addresses: no page means one, and PostgreSQL takes none in any filter."""

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        # The API reads its parameters one by one and says which one is wrong.
        query = "" if request.path.startswith("/api/") else request.META.get("QUERY_STRING", "")
        if "\0" in request.path or "%00" in query:
            raise BadRequest("The address holds a NUL character.")
        answer: HttpResponse | Awaitable[HttpResponse] = self.get_response(request)
        return answer


class BodyMiddleware(Middleware):
    """Read bodies that come in chunks, and refuse what is larger than DATA_UPLOAD_MAX_MEMORY_SIZE before anybody reads.

    Without Content-Length the frameworks take a body for empty, and a wish for one without fields. Of the request form
    more is read, and cut where it is long (portal.long_forms).
    """

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        limit, kind = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0, request.META.get("CONTENT_TYPE", "")
        cuts = long_forms.takes(request.path, kind)
        if "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower():
            self._given(request, self._chunked(request, (long_forms.MOST if cuts else limit) + 1))
        if cuts and limit < _length(request) <= long_forms.MOST:
            self._given(request, long_forms.cut(request._stream.read(), kind))
        if _length(request) > limit:
            raise RequestDataTooBig(f"The body is larger than {limit} bytes.")
        answer: HttpResponse | Awaitable[HttpResponse] = self.get_response(request)
        return answer

    @staticmethod
    def _given(request: HttpRequest, body: bytes) -> None:
        """Let the request begin with a body that was read already."""
        request.META["CONTENT_LENGTH"] = str(len(body))
        request._stream = BytesIO(body)

    @staticmethod
    def _chunked(request: HttpRequest, most: int) -> bytes:
        if isinstance(request, WSGIRequest):
            # A server that does not say where the body ends would be read until it hangs up.
            if not request.environ.get("wsgi.input_terminated"):
                raise BadRequest("This server needs Content-Length.")
            source = request.environ["wsgi.input"]
        else:
            # Not through the request: it would count as read.
            source = request._stream
        parts: list[bytes] = []
        while most > 0 and (part := source.read(most)):
            parts.append(part)
            most -= len(part)
        return b"".join(parts)


def _address(request: HttpRequest) -> str:
    """Where a request came from; headers say so only where a proxy that overwrites them is set. Empty for nowhere."""
    try:
        return httpkit.get_client_ip(request) or ""
    except ImproperlyConfigured:
        return ""


def _length(request: HttpRequest) -> int:
    text = str(request.META.get("CONTENT_LENGTH") or "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


@contextmanager
def _heard(request: HttpRequest) -> Iterator[None]:
    """Have events say which request they come of and from where; nothing of it is left for the thread's next one."""
    known = events.request_id.set(request.META["SLIPWAY_REQUEST_ID"])
    place = events.address.set(_address(request))
    token = events.acting_token.set("")  # who the request speaks for is found out later
    try:
        yield
    finally:
        events.acting_token.reset(token)
        events.address.reset(place)
        events.request_id.reset(known)


class RequestIdMiddleware(Middleware):
    """Give every request an id that answers, events and log lines carry."""

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        # Our own value, never the caller's: it ends in the audit log.
        request.META["SLIPWAY_REQUEST_ID"] = uuid.uuid4().hex
        if self.is_async:
            return self.call_async(request)
        with _heard(request):
            response: HttpResponse = self.get_response(request)
        response[HEADER] = request.META["SLIPWAY_REQUEST_ID"]
        return response

    async def call_async(self, request: HttpRequest) -> HttpResponse:
        with _heard(request):
            response: HttpResponse = await self.get_response(request)
        response[HEADER] = request.META["SLIPWAY_REQUEST_ID"]
        return response


class HealthMiddleware:
    """Answer probes before anybody looks at the host: they come by a pod's address, which no host name is."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(cast(Any, self))

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        view = health.PROBES.get(request.path)
        if self.is_async:
            return self.get_response(request) if view is None else sync_to_async(view)(request)
        response: HttpResponse = (view or self.get_response)(request)
        return response
