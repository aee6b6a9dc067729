"""What was decided, about deployments and about quota, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet

from deployments.models import Approval, Principal, QuotaRequest
from deployments.services.inbox import DEPLOYMENT, EPOCH, KINDS, QUOTA, decided_teams

APPROVED, REJECTED, EMERGENCY, POLICY = "approved", "rejected", "emergency", "policy"
VERDICTS = (APPROVED, REJECTED, EMERGENCY, POLICY)
GRANTED = [QuotaRequest.State.GRANTED, QuotaRequest.State.PARTLY, QuotaRequest.State.OTHERWISE]
LONGEST_SEARCH = 80


@dataclass(frozen=True)
class History:
    """One page of verdicts; `after` is where older ones begin, empty on the last page."""

    rows: list[Approval | QuotaRequest]
    after: str = ""


def history(
    principal: Principal,
    *,
    kinds: Sequence[str] = KINDS,
    verdict: str = "",
    team: str = "",
    search: str = "",
    after: str = "",
    size: int = 30,
) -> History:
    """Verdicts on requests of the teams whose requests the principal decides (two queries)."""
    words = search.replace("\x00", "").strip()[:LONGEST_SEARCH]
    found: list[tuple[datetime, str, int, Any]] = []
    if DEPLOYMENT in kinds:
        rows = _approvals(principal, verdict, team, words)
        found += [(row.created_at, "d", row.pk, row) for row in _before(rows, "created_at", "d", after)[: size + 1]]
    if QUOTA in kinds and verdict in {"", APPROVED, REJECTED}:
        asked = _quota(principal, verdict, team, words)
        found += [
            (row.decided_at, "q", row.pk, row)
            for row in _before(asked, "decided_at", "q", after)[: size + 1]
            if row.decided_at
        ]
    found.sort(key=lambda entry: entry[:3], reverse=True)
    shown = found[:size]
    following = ""
    if len(found) > size:
        at, kind, pk, _ = shown[-1]
        following = f"{(at - EPOCH) // timedelta(microseconds=1)}-{kind}-{pk}"
    return History([row for *_, row in shown], following)


def _approvals(principal: Principal, verdict: str, team: str, words: str) -> QuerySet[Approval]:
    rows = Approval.objects.filter(revision__deployment__team__in=decided_teams(principal))
    rows = rows.select_related(
        "revision__deployment__team", "revision__flavor", "revision__author", "actor", "second"
    ).defer("revision__objects_json", "revision__spec", "revision__resolution", "revision__findings")
    if verdict in {APPROVED, REJECTED}:
        rows = rows.filter(approved=verdict == APPROVED)
    elif verdict in {EMERGENCY, POLICY}:
        rows = rows.filter(kind=verdict)
    if team:
        rows = rows.filter(revision__deployment__team__slug=team)
    columns = ("revision__deployment__name", "revision__deployment__team__name", "revision__author__username")
    return _found(rows, words, *columns, "actor__username", "second__username", "comment", "revision__note")


def _quota(principal: Principal, verdict: str, team: str, words: str) -> QuerySet[QuotaRequest]:
    rows = QuotaRequest.objects.filter(team__in=decided_teams(principal))
    rows = rows.select_related("team", "flavor", "author", "decided_by", "granted__flavor")
    states = {APPROVED: GRANTED, REJECTED: [QuotaRequest.State.DENIED]}
    rows = rows.filter(state__in=states.get(verdict, [*GRANTED, QuotaRequest.State.DENIED]))
    if team:
        rows = rows.filter(team__slug=team)
    columns = ("team__name", "flavor__name", "author__username", "decided_by__username", "comment", "why")
    return _found(rows, words, *columns)


def _found(rows: QuerySet[Any], words: str, *columns: str) -> QuerySet[Any]:
    """Rows in which each word stands in one of the columns."""
    for word in words.split():
        where = Q()
        for column in columns:
            where |= Q(**{f"{column}__icontains": word})
        rows = rows.filter(where)
    return rows


def _before(rows: QuerySet[Any], column: str, kind: str, cursor: str) -> QuerySet[Any]:
    """The rows of this kind behind the cursor, the newest first; all of them for a cursor that nobody was given."""
    ordered = rows.order_by(f"-{column}", "-pk")
    micros, _, rest = cursor.partition("-")
    of, _, pk = rest.partition("-")
    if not (micros.isascii() and micros.isdecimal() and pk.isascii() and pk.isdecimal() and of in {"d", "q"}):
        return ordered
    if len(micros) > 17 or len(pk) > 18:
        return ordered
    at = EPOCH + timedelta(microseconds=int(micros))
    earlier = Q(**{f"{column}__lt": at})
    if kind == of:
        return ordered.filter(earlier | Q(**{column: at, "pk__lt": int(pk)}))
    return ordered.filter(earlier | Q(**{column: at})) if kind < of else ordered.filter(earlier)
