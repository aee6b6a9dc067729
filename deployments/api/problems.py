"""Everything that goes wrong, as one kind of answer: application/problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from rest_framework import exceptions
from rest_framework.views import set_rollback

from deployments.findings import Finding, field_of
from deployments.services.errors import DomainError
from portal.lib.problems import MEDIA_TYPE, entry, problem


def problem_handler(error: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """The problem for an error of a view; None for a bug, which stays a 500."""
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if isinstance(error, DomainError):
        answer = _answer(error.status, error.code, error.message, list(_errors_of(error)), context)
        if error.wait is not None:
            answer["Retry-After"] = str(error.wait)
    elif isinstance(error, exceptions.ValidationError):
        listed = list(_flat(error.detail, ""))
        answer = _answer(422, "invalid", listed[0]["detail"] if listed else "Not valid.", listed, context)
    elif isinstance(error, exceptions.APIException):
        code = error.get_codes()
        answer = _answer(error.status_code, code if isinstance(code, str) else "error", str(error.detail), [], context)
        for name, header in _headers_of(error):
            answer[name] = header
    else:
        return None
    set_rollback()
    return answer


def _answer(
    status: int, code: str, detail: str, errors: list[dict[str, Any]], context: Mapping[str, Any]
) -> HttpResponse:
    # Not the framework's response: that would be rendered as the view renders its answers, the schema as YAML.
    request = context["request"]
    document = problem(
        status,
        code,
        detail,
        instance=request.path,
        request_id=request.META.get("SLIPWAY_REQUEST_ID", ""),
        errors=errors,
    )
    return HttpResponse(orjson.dumps(document), status=status, content_type=MEDIA_TYPE)


def _headers_of(error: exceptions.APIException) -> Iterator[tuple[str, str]]:
    if header := getattr(error, "auth_header", None):
        yield "WWW-Authenticate", header
    if wait := getattr(error, "wait", None):
        yield "Retry-After", f"{wait:.0f}"


def _errors_of(error: DomainError) -> Iterator[dict[str, Any]]:
    if error.findings:
        yield from (_entry(finding) for finding in error.findings if finding.is_error)
        return
    for one in (error, *error.also):
        if one.pointer or one.field:
            yield entry(one.pointer, one.field, one.message, one.code)


def _entry(finding: Finding) -> dict[str, Any]:
    return {
        "pointer": finding.pointer,
        "field": finding.field,
        "detail": finding.message,
        "code": finding.code,
        "remedy": finding.remedy,
        "value": finding.value,
    }


def _flat(detail: Any, pointer: str) -> Iterator[dict[str, Any]]:
    """Errors of a serializer, which nests them by field."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            below = pointer if name == "non_field_errors" else f"{pointer}/{name}"
            yield from _flat(inner, below)
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            yield from _flat(inner, f"{pointer}/{index}" if isinstance(inner, Mapping | list) else pointer)
    else:
        # An entry of a list is shown at the field of the list.
        named = [part for part in pointer.split("/") if part and not part.isdecimal()]
        field = field_of(pointer) or (named[-1] if named else "")
        yield entry(pointer, field, str(detail), getattr(detail, "code", "invalid"))
