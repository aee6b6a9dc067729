"""Seals of the audit: batches of events, each bound to the one before it, so that nobody changes the past unseen.

The database refuses to change or remove an event. Who owns it can switch that off; a seal shows it afterwards. It
holds the SHA-256 of each event of its batch, and its own covers them and the seal before. Each is logged as it is made:
a line that a collector took away is what the whole chain is measured against, for an owner could write that anew as
well.

Writers of events wait for nobody. A batch holds what is older than any transaction may be, by its key.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection

from deployments.models import AuditSeal, Event
from deployments.services.convergence import database_now
from deployments.services.transactions import in_transaction

logger = logging.getLogger(__name__)

# Keys are given before commit: by now every transaction that got one of a sealed batch is over. Web's statements end
# after seconds, tasks after 90.
SETTLED = timedelta(minutes=10)
BATCH = 1000
MOST_BATCHES = 50
ENTRY = struct.Struct(">q32s")
LOCK = 0x51_EA_1
FIELDS = (
    *("id", "team_id", "deployment_id", "actor_id", "kind", "level", "message", "data", "request_id", "address"),
    "created_at",
)
BEGINNING = "0" * 64


@dataclass(frozen=True)
class Verdict:
    """What a check found: how many events the seals cover, the newest seal's digest, and what is wrong, if anything."""

    events: int
    digest: str
    problems: list[str]


def seal_all() -> int:
    """Seal all that has settled; returns how many events."""
    count = 0
    for _ in range(MOST_BATCHES):
        done = seal()
        count += done
        if done < BATCH:
            break
    return count


@in_transaction
def seal(*, settled: timedelta = SETTLED) -> int:
    """Seal the next batch; returns how many events it holds, 0 while none has settled or another process seals."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return 0
    before = AuditSeal.objects.order_by("-pk").first()
    rows = list(_events(before.last if before else 0).values(*FIELDS)[:BATCH])
    limit = database_now() - settled
    young = next((index for index, row in enumerate(rows) if row["created_at"] > limit), len(rows))
    rows = rows[:young]
    if not rows:
        return 0
    entries = b"".join(ENTRY.pack(row["id"], _hash(row)) for row in rows)
    digest = _chained(before.digest if before else BEGINNING, entries)
    first, last = rows[0]["id"], rows[-1]["id"]
    AuditSeal.objects.create(first=first, last=last, entries=entries, digest=digest)
    logger.info("audit: events %d to %d are sealed (%d): %s", first, last, len(rows), digest)
    return len(rows)


def verify(expected: str = "") -> Verdict:
    """Look at every sealed event again. `expected` is a digest kept elsewhere: one of the seals must have it."""
    problems: list[str] = []
    digest, last, count, known = BEGINNING, 0, 0, not expected
    for row in AuditSeal.objects.order_by("pk").iterator(chunk_size=20):
        entries = bytes(row.entries)
        digest = _chained(digest, entries)
        if digest != row.digest:
            problems.append(f"seal {row.pk} ({row}) does not follow from the seal before it")
            digest = row.digest
        sealed = dict(ENTRY.iter_unpack(entries))
        now = {event["id"]: _hash(event) for event in _events(last).filter(pk__lte=row.last).values(*FIELDS)}
        problems += _differences(sealed, now)
        count += len(sealed)
        last = row.last
        known = known or digest == expected
    if not known:
        problems.append(f"no seal has the digest {expected[:64]}: seals were removed or written anew")
    return Verdict(count, digest if count else "", problems)


def _differences(sealed: dict[int, bytes], now: dict[int, bytes]) -> Iterator[str]:
    for pk in sorted(sealed.keys() | now.keys()):
        if pk not in now:
            yield f"event {pk} is gone"
        elif pk not in sealed:
            yield f"event {pk} was added after its time was sealed"
        elif sealed[pk] != now[pk]:
            yield f"event {pk} is not as it was written"


def _events(after: int) -> Any:
    return Event.objects.filter(pk__gt=after).order_by("pk")


def _hash(row: dict[str, Any]) -> bytes:
    values = [row[name] for name in FIELDS[:-1]] + [row["created_at"].timestamp()]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _chained(before: str, entries: bytes) -> str:
    return hashlib.sha256(bytes.fromhex(before) + entries).hexdigest()
