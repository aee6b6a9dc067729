"""The audit: what happened, by whom, from what to what; filtered and searched as on its page."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any, ClassVar

from django.http import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import schemas, shapes
from deployments.api.base import PAGING, ApiViewSet, choices_of, keyset, number_of, word_of
from deployments.api.deployments import PAGE, PROBLEMS
from deployments.models import Event
from deployments.models.audit import EventQuerySet
from deployments.services import audit_export
from deployments.services.errors import InvalidError, NotAllowedError
from portal.lib import plain

FILTERS = ("team", "actor", "kind", "level", "deployment", "since", "until", "q")
LONGEST = 150
BY = [
    OpenApiParameter("team", str, description="Slug of a team"),
    OpenApiParameter("actor", str, description="User name of who did it"),
    OpenApiParameter("kind", str),
    OpenApiParameter("level", str, enum=Event.Level.values),
    OpenApiParameter("deployment", int, description="Id of a deployment"),
    OpenApiParameter("since", str, description="From this day or moment (ISO 8601, UTC unless it says more)"),
    OpenApiParameter("until", str, description="Before this moment; of a day up to its end"),
    OpenApiParameter("q", str, description="Beginnings of words of the message, or a request id"),
]


class EventViewSet(ApiViewSet):
    """The audit."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": (*PAGING, *FILTERS), "export": ("format", *FILTERS)}

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[Any, str]:
        """The parameter alone says what an export is; whatever is accepted, problems are JSON."""
        return super().perform_content_negotiation(request, force or self.action == "export")

    @extend_schema(
        operation_id="events_list",
        parameters=[*PAGE, *BY],
        responses={200: schemas.page_of(schemas.EventAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """What happened, newest first."""
        rows = _narrowing(request)(Event.objects.visible_to(self.principal))
        return keyset(request, shapes.events(rows), shapes.event)

    @extend_schema(
        operation_id="events_export",
        parameters=[OpenApiParameter("format", str, enum=audit_export.KINDS, description="csv where absent"), *BY],
        responses={(200, "text/csv"): str, (200, "application/jsonl"): str, **PROBLEMS},
        filters=False,
    )
    @action(detail=False, methods=["get"])
    def export(self, request: Request) -> HttpResponseBase:
        """All of it as a file, newest first: for leads what belongs to their teams, for admins everything.

        It ends, and its last line says so, when the right to it does.
        """
        if not audit_export.audits(self.principal):
            raise NotAllowedError("The audit is exported by leads and admins.")
        kind = next(iter(choices_of(request, "format", audit_export.KINDS)), "csv")
        return audit_export.export(request._request, self.principal, _narrowing(request), kind)


def _narrowing(request: Request) -> audit_export.Narrow:
    """What the query parameters leave of events."""
    levels = choices_of(request, "level", Event.Level.values)
    asked: dict[str, Any] = {
        "team": word_of(request, "team") or "",
        "actor": text_of(request, "actor"),
        "kind": word_of(request, "kind") or "",
        "level": levels[0] if levels else "",
        "deployment": number_of(request, "deployment") or "",
        "since": moment_of(request, "since"),
        "until": moment_of(request, "until", end=True),
    }
    words = text_of(request, "q")

    def narrow(rows: EventQuerySet) -> EventQuerySet:
        rows = rows.narrowed(**asked)
        return rows.search(words) if words else rows

    return narrow


def text_of(request: Request, name: str) -> str:
    """A query parameter that is one line of text; empty where absent."""
    value = request.query_params.get(name)
    if value is None:
        return ""
    if not value.strip() or len(value) > LONGEST or not value.isprintable():
        raise InvalidError(f"“{name}” must be 1 to {LONGEST} characters of text.", field=name, pointer=f"?{name}")
    return value.strip()


def moment_of(request: Request, name: str, *, end: bool = False) -> datetime | None:
    """A query parameter that is a day or a moment; of a day its beginning, or with `end` its end."""
    value = request.query_params.get(name)
    if value is None:
        return None
    try:
        day = plain.day(value)
        moment = plain.moment(value) if day is None else None
        if day is not None:
            moment = datetime.combine(day, time.max if end else time.min)
        if moment is not None and 1970 <= moment.year <= 9000:
            return moment if timezone.is_aware(moment) else moment.replace(tzinfo=UTC)
    except ValueError:
        pass
    words = f"“{name}” must be a day or a moment, as 2026-03-31 or 2026-03-31T12:00:00Z."
    raise InvalidError(words, field=name, pointer=f"?{name}")
