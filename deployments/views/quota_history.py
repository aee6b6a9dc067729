"""The ledger behind the quotas: a page of it, and all of it as a file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from django.utils import timezone

from deployments.models import Principal, Reservation, Team
from deployments.services.principals import still_in
from portal.lib.htmx import PortalRequest
from portal.lib.pages import Page, keyset_page
from portal.lib.sheets import CUT_SHORT, csv_chunks, download, spooled, while_allowed

ROWS = 30
CHUNK = 2000
HEADER = ("time", "team", "flavor", "deployment", "change", "balance", "kind", "reason", "by")
COLUMNS = (
    "created_at",
    "account__team__slug",
    "account__flavor__slug",
    "deployment__name",
    "delta",
    "balance_before",
    "kind",
    "reason",
    "actor__username",
)


def page_of_ledger(principal: Principal, team: str, after: str, before: str) -> Page:
    """Its newest rows, of one team or of all (one query)."""
    rows = _ledger(principal, team).select_related("account__team", "account__flavor", "deployment", "actor")
    return keyset_page(rows, order=("-pk",), after=after, before=before, size=ROWS)


def export(request: PortalRequest, principal: Principal, team: str) -> HttpResponse:
    """All of it as CSV, as one statement of the database saw it: what is written meanwhile is not in it.

    It is read to its end before the first byte is sent, into a temporary file: no slow reader holds a connection or a
    snapshot, and memory stays the same for any number of rows. Who loses the right to it while they read gets no more.
    """
    began = timezone.now()

    def allowed() -> bool:
        now = still_in(principal, began)
        if now is None:
            return False
        seen = Team.objects.visible_to(now)
        return now.is_admin if whole else seen.filter(pk__in=teams).count() == len(teams)

    whole = principal.is_admin
    teams = set() if whole else set(Team.objects.visible_to(principal).values_list("pk", flat=True))
    with transaction.atomic():  # A cursor at the server lives in a transaction.
        pieces = spooled(csv_chunks(HEADER, _lines(_ledger(principal, team))))
    kept = while_allowed(pieces, allowed, f"{CUT_SHORT}\r\n".encode())
    answer = download(request, kept, filename="ledger.csv", kind="text/csv; charset=utf-8")
    return cast(HttpResponse, answer)  # What is streamed has the same headers.


def _ledger(principal: Principal, team: str) -> QuerySet[Reservation]:
    rows = Reservation.objects.visible_to(principal)
    return rows.filter(account__team__slug=team) if team else rows


def _lines(rows: QuerySet[Reservation]) -> Iterator[list[list[Any]]]:
    found = rows.order_by("-pk").values_list(*COLUMNS).iterator(chunk_size=CHUNK)
    while chunk := list(islice(found, CHUNK)):
        yield [_line(row) for row in chunk]


def _line(row: tuple[Any, ...]) -> list[Any]:
    at, team, flavor, deployment, delta, before, kind, reason, actor = row
    return [at.isoformat(), team, flavor, deployment, delta, before + delta, kind, reason, actor or ""]
