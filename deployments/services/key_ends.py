"""Keys of endpoints that end soon: whoever rotates them is told before programs are refused."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone

from deployments.models import EndpointKey, Event
from deployments.services import events
from deployments.services.transactions import in_transaction

logger = logging.getLogger(__name__)

# Days before the end on which its people are told; once for each, and never of days that the key never had.
DAYS = (14, 7, 1)
KIND = "key_ends_soon"
# At most so many in one sweep.
AT_ONCE = 100


def warn() -> int:
    """Tell of keys that end soon; the slower sweep calls this. Returns how many. One that fails is logged."""
    done = 0
    for pk in _candidates():
        if done == AT_ONCE:
            break
        try:
            done += _warn(pk)
        except Exception:
            logger.exception("of the end of key %s nobody could be told", pk)
    return done


def ending() -> QuerySet[EndpointKey]:
    """Living keys that end within the first of the days, without those that a newer key replaces already."""
    soon = timezone.now() + timedelta(days=DAYS[0])
    replaced = EndpointKey.objects.filter(revoked_at=None).exclude(rotated_from=None).values("rotated_from")
    return EndpointKey.objects.live().filter(expires_at__lte=soon).exclude(pk__in=replaced)


def _candidates() -> list[int]:
    """Keys of which something is to be told, the next to end first (two queries)."""
    rows = list(ending().order_by("expires_at", "pk"))
    told = _told([row.pk for row in rows])
    return [row.pk for row in rows if (mark := _mark(row)) is not None and (row.pk, mark) not in told]


@in_transaction
def _warn(pk: int) -> bool:
    row = EndpointKey.objects.select_for_update(no_key=True, of=("self",)).select_related("team").get(pk=pk)
    mark = _mark(row)
    # Another sweep, or a rotation, may have come before.
    if mark is None or (pk, mark) in _told([pk]) or not ending().filter(pk=pk).exists():
        return False
    assert row.expires_at is not None
    end = timezone.localtime(row.expires_at)
    events.record(
        kind=KIND,
        message=f"The key “{row.name}” ({row.prefix}…) ends on {end.day} {end:%b %Y}. Rotate it before: then programs "
        "that use it are refused.",
        team=row.team,
        level="warning",
        data={"key": pk, "days": mark, "person": row.person_id},
    )
    return True


def _mark(row: EndpointKey) -> int | None:
    """The fewest of the days that are left to a key; None for more, or where it never lived longer."""
    if row.expires_at is None:
        return None
    left, lived = row.expires_at - timezone.now(), row.expires_at - row.created_at
    reached = [days for days in DAYS if left <= timedelta(days=days) < lived]
    return min(reached, default=None)


def _told(pks: list[int]) -> set[tuple[int, int]]:
    rows = Event.objects.filter(kind=KIND, data__key__in=pks)
    return set(rows.values_list("data__key", "data__days"))
