"""Idempotency-Key: a POST that is sent again is answered as the first time, and not done again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from django.urls import Resolver404, resolve
from django.utils.crypto import salted_hmac
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.models import IdempotencyKey
from deployments.services import idempotency
from deployments.services.errors import ConflictError, DomainError

if TYPE_CHECKING:
    from deployments.api.base import ApiViewSet

REPLAYED = "Idempotent-Replayed"
Handler = Callable[..., Response]


class ShownOnceError(ConflictError):
    """The write was done; its answer held something that is shown once."""

    code = "shown_once"


class DoneAlreadyError(ConflictError):
    """The write was done; no address answers what it answered."""

    code = "done_already"


class SaidAlreadyError(ConflictError):
    """The same person sent the same a moment ago, and nothing says that they mean it twice."""

    code = "said_already"


def once(view: ApiViewSet, handler: Handler) -> Handler:
    """The handler of a POST, which does its write once for each key that callers send."""

    def guarded(request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.META.get("HTTP_IDEMPOTENCY_KEY")
        alone = key is None and (view.action or "") in view.not_twice
        if (key is None and not alone) or (view.action or "") in view.harmless:
            return handler(request, *args, **kwargs)
        same = hash_of(request)
        row, first = idempotency.claim(
            user=view.principal.user,
            key=f"same-{same}" if alone else str(key),
            route=f"POST {request.path}"[:200],
            request_hash=same,
            kept=idempotency.SOON if alone else idempotency.KEPT,
        )
        if not first and alone:
            raise SaidAlreadyError(
                f"You sent exactly this less than a minute ago, and it was done: {row.location or row.status}. "
                f"To do it again, send an {idempotency.HEADER}."
            )
        if not first:
            return _again(view, row)
        try:
            answer = handler(request, *args, **kwargs)
        except (DomainError, APIException):
            idempotency.give_back(row)
            raise
        location = "" if _shown_once(view) else view.location_of(answer)
        idempotency.settle(row, status=answer.status_code, location=location[:200])
        return answer

    return guarded


def hash_of(request: Request) -> str:
    """What makes a request the same: address, precondition and body, whatever the order of its names.

    Keyed: a body may hold a password, which nobody shall try out against what is stored.
    """
    body = orjson.dumps(request.data, option=orjson.OPT_SORT_KEYS)
    parts = [request.get_full_path(), str(request.META.get("HTTP_IF_MATCH", ""))]
    said = "\0".join(parts).encode() + b"\0" + body
    return salted_hmac("slipway.idempotency", said, algorithm="sha256").hexdigest()


def _again(view: ApiViewSet, row: IdempotencyKey) -> Response:
    if _shown_once(view):
        raise ShownOnceError("This was done with this key already. What it made is shown once, and was.")
    if not row.location:
        raise DoneAlreadyError(f"This was done with this key already, and answered {row.status}.")
    answer = view.rebuilt(row.location)
    answer.status_code = row.status or answer.status_code
    answer[REPLAYED] = "true"
    return answer


def _shown_once(view: ApiViewSet) -> bool:
    return (view.action or "") in view.shown_once


def answer_at(view: ApiViewSet, location: str) -> Response:
    """What a GET of this address answers the caller of `view`, who wrote it and so may read it if they still see it."""
    try:
        match = resolve(location)
    except Resolver404:
        raise DoneAlreadyError("This was done with this key already; what it made is not there any more.") from None
    other = view if isinstance(view, match.func.cls) else match.func.cls()  # type: ignore[attr-defined]
    other.request, other.args, other.kwargs, other.format_kwarg = view.request, (), match.kwargs, None
    other.rereading = True
    retrieve: Handler = other.retrieve
    return retrieve(view.request, **match.kwargs)
