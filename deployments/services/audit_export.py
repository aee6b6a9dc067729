"""The audit as a file: all that its reader answers for, asked anew while it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

from deployments.models import Event, Principal, Team
from deployments.models.audit import EventQuerySet
from deployments.services.principals import still_in
from portal.lib.sheets import CUT_SHORT, csv_chunks, download, json_chunks

KINDS = ("csv", "jsonl")
CHUNK = 1000
HEADER = ("id", "time", "team", "deployment", "actor", "kind", "level", "message", "before", "after", "request_id")
HEADER_OF_ADMINS = (*HEADER, "address")
Narrow = Callable[[EventQuerySet], EventQuerySet]


def audits(principal: Principal) -> bool:
    """True for admins, and for who leads a team."""
    return principal.is_admin or Team.objects.led_by(principal).exists()


def audited(principal: Principal) -> EventQuerySet:
    """The events that they answer for."""
    return Event.objects.auditable_by(principal).select_related("team", "deployment", "actor")


def export(request: HttpRequest, principal: Principal, narrow: Narrow, kind: str) -> StreamingHttpResponse:
    """The events that `narrow` leaves as `csv`, or as `jsonl` with all that each of them holds."""
    found = _chunks(principal, narrow)
    if kind == "csv":
        names = HEADER_OF_ADMINS if principal.is_admin else HEADER
        lines = (
            [[values[name] for name in names] for values in map(_line, chunk)] if chunk else [[CUT_SHORT]]
            for chunk in found
        )
        return download(request, csv_chunks(names, lines), filename="audit.csv", kind="text/csv; charset=utf-8")
    documents = (
        [_document(event, with_address=principal.is_admin) for event in chunk] if chunk else [{"error": CUT_SHORT}]
        for chunk in found
    )
    return download(request, json_chunks(documents), filename="audit.jsonl", kind="application/jsonl")


def _chunks(principal: Principal, narrow: Narrow) -> Iterator[list[Event]]:
    """All rows, newest first, by keyset: before each query it is asked anew who this is and what they may see.

    Nothing is held between two. An empty chunk says that the person may have no more.
    """
    began = timezone.now()
    last: int | None = None
    while True:
        now = still_in(principal, began)
        if now is None or not audits(now):
            yield []
            return
        ordered = narrow(audited(now)).order_by("-pk")
        chunk = list((ordered if last is None else ordered.filter(pk__lt=last))[:CHUNK])
        if not chunk:
            return
        yield chunk
        last = chunk[-1].pk


def _line(event: Event) -> dict[str, Any]:
    return {
        "id": event.pk,
        "time": event.created_at.isoformat(),
        "team": event.team.slug if event.team else None,
        "deployment": event.deployment.name if event.deployment else None,
        "actor": event.actor.username if event.actor else None,
        "kind": event.kind,
        "level": event.level,
        "message": event.message,
        "before": event.data.get("before"),
        "after": event.data.get("after"),
        "request_id": event.request_id,
        "address": event.address,
    }


def _document(event: Event, *, with_address: bool) -> dict[str, Any]:
    line = _line(event)
    return {name: line[name] for name in (HEADER_OF_ADMINS if with_address else HEADER)} | {"data": event.data}
