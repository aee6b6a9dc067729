"""Everything that goes wrong, as one kind of answer: application/problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from deployments.findings import Finding, field_of
from deployments.services.errors import DomainError

MEDIA_TYPE = "application/problem+json"


def problem_handler(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """The problem for an error of a view; None for a bug, which stays a 500."""
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if isinstance(error, DomainError):
        answer = _answer(error.status, error.code, error.message, list(_errors_of(error)), context)
    elif isinstance(error, exceptions.ValidationError):
        listed = list(_flat(error.detail, ""))
        answer = _answer(422, "invalid", listed[0]["detail"] if listed else "Not valid.", listed, context)
    elif isinstance(error, exceptions.APIException):
        code = error.get_codes()
        answer = _answer(error.status_code, code if isinstance(code, str) else "error", str(error.detail), [], context)
        if header := getattr(error, "auth_header", None):
            answer["WWW-Authenticate"] = header
    else:
        return None
    set_rollback()
    return answer


def _answer(status: int, code: str, detail: str, errors: list[dict[str, Any]], context: Mapping[str, Any]) -> Response:
    request = context.get("request")
    problem: dict[str, Any] = {
        "type": f"urn:slipway:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if request is not None:
        problem["instance"] = request.path
        problem["request_id"] = request.META.get("SLIPWAY_REQUEST_ID", "")
    if errors:
        problem["errors"] = errors
    return Response(problem, status=status, content_type=MEDIA_TYPE)


def _errors_of(error: DomainError) -> Iterator[dict[str, Any]]:
    if error.findings:
        yield from (_entry(finding) for finding in error.findings if finding.is_error)
    elif error.pointer or error.field:
        yield {
            "pointer": error.pointer,
            "field": error.field,
            "detail": error.message,
            "code": error.code,
            "remedy": "",
            "value": None,
        }


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
        yield {
            "pointer": pointer,
            "field": field_of(pointer) or pointer.rsplit("/", 1)[-1],
            "detail": str(detail),
            "code": getattr(detail, "code", "invalid"),
            "remedy": "",
            "value": None,
        }
