"""The reconciler's own records: the lease with its fence, intents, the inventory, and how a pass ended.

The database's clock decides about leases. Every write here carries the lease's token: a worker that slept too long
changes nothing.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import Case, F, Q, QuerySet, When
from django.db.models.functions import Now
from django.utils import timezone

from deployments.kube.kinds import Ref
from deployments.models import AppliedObject, Deployment, Intent, Revision, Team

logger = logging.getLogger(__name__)

# Longer than two cluster calls at their timeout; renewed before each. A killed worker costs at most this long.
LEASE = timedelta(seconds=25)
KEEP_SECONDS = 5.0
RESYNC = timedelta(hours=1)
SLOW_RETRY = timedelta(minutes=10)
MOST_BACKOFF = timedelta(minutes=5)
POISON = 5


class LeaseLostError(Exception):
    """Another worker may hold the row now: stop, and write nothing more."""


@dataclass
class Lease:
    """The right to work on one deployment or one team until `lease_until`."""

    model: type[Deployment] | type[Team]
    pk: int
    token: UUID
    renewed: float = field(default_factory=time.monotonic)

    def fenced(self) -> Any:
        """The row, if this lease still holds it."""
        return self.model._default_manager.filter(pk=self.pk, lease_token=self.token, lease_until__gt=Now())

    def renew(self) -> None:
        """Extend the lease from now; LeaseLostError when it has run out."""
        if not self.fenced().update(lease_until=Now() + LEASE):
            raise LeaseLostError(f"{self.model.__name__} {self.pk}")
        self.renewed = time.monotonic()

    def keep(self) -> None:
        """Renew the lease if the next cluster call could outlast it; to be called before each read."""
        if time.monotonic() - self.renewed > KEEP_SECONDS:
            self.renew()

    def owner(self) -> dict[str, int]:
        """The column of intents and inventory rows that names the row under lease."""
        return {"deployment_id": self.pk} if self.model is Deployment else {"team_id": self.pk}


@dataclass(frozen=True)
class Outcome:
    """How a pass ended, in words for people; `phase` is a value of deployments.state.OutcomeKind."""

    phase: str
    code: str = ""
    message: str = ""
    remedy: str = ""
    field: str = ""
    revision: int | None = None
    since: str = ""

    def as_json(self) -> dict[str, Any]:
        """This outcome as the row stores it."""
        return {**asdict(self), "at": timezone.now().isoformat()}


@contextmanager
def lease(model: type[Deployment] | type[Team], pk: int) -> Iterator[Lease | None]:
    """Hold one due row. Yields None when it is not due or another worker has it; expires if we die."""
    token = uuid4()
    free = Q(lease_until=None) | Q(lease_until__lt=Now())
    due = model._default_manager.filter(free, pk=pk, next_reconcile_at__lte=Now())
    # Due again when the lease runs out, whatever becomes of us; a wish made meanwhile sets it back to now.
    if not due.update(lease_token=token, lease_until=Now() + LEASE, next_reconcile_at=Now() + LEASE):
        yield None
        return
    held = Lease(model, pk, token)
    try:
        yield held
    finally:
        model._default_manager.filter(pk=pk, lease_token=token).update(lease_until=None)


def database_now() -> datetime:
    """The database's clock: the one that stamps wishes and reservations, whatever this machine's says."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


def open_intents(held: Lease) -> list[Intent]:
    """Calls of earlier passes of which nobody knows how they ended."""
    return list(Intent.objects.filter(closed_at=None, **held.owner()).order_by("pk"))


def open_intent(held: Lease, *, verb: str, ref: Ref, digest: str = "") -> Intent:
    """Commit what is about to be asked of the cluster, and renew the lease for it."""
    with transaction.atomic():
        held.renew()
        return Intent.objects.create(
            verb=verb,
            api_version=ref.api_version,
            kind=ref.kind,
            namespace=ref.namespace,
            name=ref.name,
            digest=digest,
            lease_token=held.token,
            **held.owner(),
        )


def settled(held: Lease, intent: Intent, result: str, *, uid: str = "") -> None:
    """Close an intent whose end is known and that leaves nothing new in the inventory; `uid` of what it made."""
    with _fence(held):
        _close(intent, result=result, uid=uid)


def written(
    held: Lease,
    intent: Intent,
    *,
    ref: Ref,
    uid: str,
    digest: str,
    managed: str,
    owned: bool,
    revision: Revision | None,
    result: str = "done",
) -> AppliedObject:
    """Close the intent of a create or an apply with the uid it returned, and record the object in the inventory."""
    with _fence(held):
        _close(intent, uid=uid, result=result)
        row, _ = AppliedObject.objects.update_or_create(
            api_version=ref.api_version,
            kind=ref.kind,
            namespace=ref.namespace,
            name=ref.name,
            defaults={
                "uid": uid,
                "digest": digest,
                "managed": managed,
                "owned": owned,
                "revision": revision,
                "applied_at": timezone.now(),
                **held.owner(),
            },
        )
    return row


def stale(held: Lease, intent: Intent, ref: Ref) -> None:
    """Close the intent of an apply nobody knows the end of: the object is written again."""
    with _fence(held):
        _close(intent, result="unknown; applied again")
        _at(ref).update(digest="")


def gone(held: Lease, ref: Ref, *, intent: Intent | None = None, result: str = "gone") -> None:
    """Strike an object from the inventory: that one is not there any more."""
    with _fence(held):
        if intent is not None:
            _close(intent, result=result)
        _at(ref).filter(**held.owner()).delete()


def ended(held: Lease, ref: Ref, mark: str) -> None:
    """Record that an object has done its work: `mark` in place of the hash of its fields, which nobody asks for now."""
    with _fence(held):
        _at(ref).filter(**held.owner()).update(managed=mark, applied_at=Now())


def unrecorded(held: Lease, intent: Intent) -> None:
    """Leave a trace of a write that was made after the lease was lost, and have it looked into at once.

    Whoever took over may have closed this intent as never sent.
    """
    with transaction.atomic():
        Intent.objects.filter(pk=intent.pk).update(closed_at=None, result="made after the lease was lost")
        held.model._default_manager.filter(pk=held.pk).update(next_reconcile_at=Now())


def finish(held: Lease, *, outcome: Outcome, again: timedelta | None, failures: int, **columns: Any) -> bool:
    """Store how the pass ended and when the next is due; False when the lease was lost and nothing was stored.

    A wish recorded during the pass has set the row due: that stays, and so does the row of a wish withdrawn.
    """
    later = None if again is None else Now() + again
    if held.model is Deployment:
        columns = {"outcome": outcome.as_json(), **columns}
    changed = held.fenced().update(
        next_reconcile_at=Case(When(next_reconcile_at__lte=Now(), then=F("next_reconcile_at")), default=later),
        failures=failures,
        **columns,
    )
    if not changed:
        logger.warning("%s %s: the lease was lost, nothing stored", held.model.__name__, held.pk)
    return bool(changed)


def backoff(failures: int, *, most: timedelta = MOST_BACKOFF) -> timedelta:
    """Full jitter: anything up to 2 s · 2^failures, at most five minutes, never under half a second."""
    ceiling = min(most.total_seconds(), 2.0 * 2 ** min(failures, 10))
    return timedelta(seconds=random.uniform(0.5, max(0.5, ceiling)))  # noqa: S311 - jitter, no secret


def spread(period: timedelta) -> timedelta:
    """The period give or take a fifth, so that rows do not march in step."""
    return period * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, no secret


def asked_before(held: Lease, ref: Ref, *, but: Intent) -> bool:
    """True when an earlier intent of this deployment or team asked for that object."""
    return (
        Intent.objects.exclude(pk=but.pk)
        .filter(
            verb="create",
            api_version=ref.api_version,
            kind=ref.kind,
            namespace=ref.namespace,
            name=ref.name,
            **held.owner(),
        )
        .exists()
    )


def _at(ref: Ref) -> QuerySet[AppliedObject]:
    return AppliedObject.objects.filter(
        api_version=ref.api_version, kind=ref.kind, namespace=ref.namespace, name=ref.name
    )


@contextmanager
def _fence(held: Lease) -> Iterator[None]:
    """A transaction in which the lease cannot change hands."""
    with transaction.atomic():
        if not held.fenced().select_for_update(no_key=True).values_list("pk").first():
            raise LeaseLostError(f"{held.model.__name__} {held.pk}")
        yield


def _close(intent: Intent, *, result: str, uid: str = "") -> None:
    Intent.objects.filter(pk=intent.pk).update(closed_at=Now(), uid=uid, result=result[:300])
