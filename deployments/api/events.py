"""The audit: what happened, by whom, from what to what; filtered and searched as on its page."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import ClassVar

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import schemas, shapes
from deployments.api.base import PAGING, ApiViewSet, choices_of, keyset, number_of, word_of
from deployments.api.deployments import PAGE, PROBLEMS
from deployments.models import Event
from deployments.services.errors import InvalidError
from portal.lib import plain

FILTERS = ("team", "actor", "kind", "level", "deployment", "since", "until", "q")
LONGEST = 150


class EventViewSet(ApiViewSet):
    """The audit."""

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"list": (*PAGING, *FILTERS)}

    @extend_schema(
        operation_id="events_list",
        parameters=[
            *PAGE,
            OpenApiParameter("team", str, description="Slug of a team"),
            OpenApiParameter("actor", str, description="User name of who did it"),
            OpenApiParameter("kind", str),
            OpenApiParameter("level", str, enum=Event.Level.values),
            OpenApiParameter("deployment", int, description="Id of a deployment"),
            OpenApiParameter("since", str, description="From this day or moment (ISO 8601, UTC unless it says more)"),
            OpenApiParameter("until", str, description="Before this moment; of a day up to its end"),
            OpenApiParameter("q", str, description="Beginnings of words of the message, or a request id"),
        ],
        responses={200: schemas.page_of(schemas.EventAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """What happened, newest first."""
        levels = choices_of(request, "level", Event.Level.values)
        rows = Event.objects.visible_to(self.principal).narrowed(
            team=word_of(request, "team") or "",
            actor=text_of(request, "actor"),
            kind=word_of(request, "kind") or "",
            level=levels[0] if levels else "",
            deployment=number_of(request, "deployment") or "",
            since=moment_of(request, "since"),
            until=moment_of(request, "until", end=True),
        )
        if words := text_of(request, "q"):
            rows = rows.search(words)
        return keyset(request, shapes.events(rows), shapes.event)


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
