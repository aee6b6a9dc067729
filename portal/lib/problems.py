"""Problem documents (RFC 9457): the one shape of everything that goes wrong below /api/, whoever answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    instance: str,
    request_id: str,
    errors: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The document; `instance` is the path that was asked for, `errors` names each place that is wrong."""
    listed = [dict(error) for error in errors]
    document = {
        "type": f"urn:slipway:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "instance": instance,
        "request_id": request_id,
    }
    return {**document, "errors": listed} if listed else document


def entry(pointer: str, field: str, detail: str, code: str = "invalid") -> dict[str, Any]:
    """One of its errors: a JSON pointer into the body, or `?name` for a query parameter."""
    return {"pointer": pointer, "field": field, "detail": detail, "code": code, "remedy": "", "value": None}
