"""Status rows: what was seen of each deployment, written in batches, with the states that follow from it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from deployments.kube.moments import remembered
from deployments.kube.observe import Observed
from deployments.models import Deployment, Status, Wanted
from deployments.services import states, telling
from deployments.watcher.world import Place, World, slimmed
from portal.lib.hints import RECONCILE, hint

logger = logging.getLogger(__name__)

BATCH = 500
NEW_SECONDS = 2.0
ALL_SECONDS = 30.0
# A place nobody knows is asked about for this long: its deployment may not be committed yet.
PATIENCE = 30.0
# States that also change by time alone.
MOVING = (
    Deployment.State.APPLYING,
    Deployment.State.DOWNLOADING,
    Deployment.State.STARTING,
    Deployment.State.STALLED,
    Deployment.State.DEGRADED,
    Deployment.State.STOPPING,
    Deployment.State.DELETING,
)


class Registry:
    """Which deployment stands at which place."""

    def __init__(self) -> None:
        self.pks: dict[Place, int] = {}
        self.places: dict[int, Place] = {}
        self._newest = 0
        self._all_at = self._new_at = 0.0

    def refresh(self) -> list[int]:
        """Read what is new every two seconds and everything every half minute; returns the new ones."""
        now = time.monotonic()
        alive = Deployment.objects.alive().values_list("pk", "team__namespace", "name")
        if now - self._all_at >= ALL_SECONDS or not self._all_at:
            self._all_at = self._new_at = now
            found = list(alive)
            known = set(self.places)
            self.pks, self.places = {}, {}
        elif now - self._new_at >= NEW_SECONDS:
            self._new_at = now
            found = list(alive.filter(pk__gt=self._newest))
            known = set()
        else:
            return []
        for pk, namespace, name in found:
            self.pks[namespace, name] = pk
            self.places[pk] = (namespace, name)
            self._newest = max(self._newest, pk)
        return [pk for pk, _, _ in found if pk not in known]


class Statuses:
    """Writes what changed and nothing else."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._written: dict[int, Observed] = {}
        self._unknown: dict[Place, float] = {}

    def flush(self, world: World, *, complete: bool, listed_at: datetime | None) -> list[int]:
        """Store every dirty place; returns the deployments whose status changed.

        What was stored while part of the cluster could not be read is stored again once it can.
        """
        new = self.registry.refresh()
        dirty = {*world.dirty, *self._unknown}
        world.dirty.clear()
        pks = {pk for place in dirty if (pk := self._known(place)) is not None} | set(new)
        if complete:
            pks |= {pk for pk, seen in self._written.items() if not seen.complete and pk in self.registry.places}
        changed: list[int] = []
        ordered = sorted(pks)
        for start in range(0, len(ordered), BATCH):
            changed += self._write(world, ordered[start : start + BATCH], complete=complete, listed_at=listed_at)
        return changed

    def _known(self, place: Place) -> int | None:
        pk = self.registry.pks.get(place)
        now = time.monotonic()
        if pk is not None:
            self._unknown.pop(place, None)
        elif now - self._unknown.setdefault(place, now) > PATIENCE:
            del self._unknown[place]
        return pk

    def _write(self, world: World, pks: list[int], *, complete: bool, listed_at: datetime | None) -> list[int]:
        rows: list[Status] = []
        seen: dict[int, Observed] = {}
        now = timezone.now()
        before = self._before(pks)
        for pk in pks:
            observed = slimmed(world.observed(self.registry.places[pk], str(pk), complete=complete))
            observed = remembered(observed, before.get(pk))
            if self._written.get(pk) != observed:
                seen[pk] = observed
                rows.append(_row(pk, observed, now, listed_at))
        if not rows:
            return []
        with transaction.atomic():
            Status.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["deployment"],
                update_fields=["observed", "observed_at", "live_pods", "listed_at"],
            )
            states.refresh_many(seen)
            telling.notify(f"deployment:{pk}" for pk in seen)
            _wake_waiting(seen)
        self._written.update(seen)
        return list(seen)

    def _before(self, pks: list[int]) -> dict[int, Observed]:
        """What was last written of each; a term of office begins with what the one before it has left."""
        unread = [pk for pk in pks if pk not in self._written]
        rows = Status.objects.filter(deployment__in=unread).only("deployment_id", "observed") if unread else ()
        left = {row.deployment_id: seen for row in rows if (seen := states.observed_in(row)) is not None}
        return left | {pk: self._written[pk] for pk in pks if pk in self._written}


def refresh_moving() -> None:
    """Recompute states that change by time alone."""
    # A revision that comes up beside one that serves is running, and may be late.
    coming = Q(state=Deployment.State.RUNNING) & ~Q(detail__text="")
    moving = Deployment.objects.alive().filter(Q(state__in=MOVING) | coming).order_by("pk")
    states.refresh_many(moving.values_list("pk", flat=True)[:BATCH])


def wake_unreachable(codes: Iterable[str]) -> int:
    """The cluster is back: whoever waited for it is due now."""
    rows = Deployment.objects.filter(outcome__phase="retrying", outcome__code__in=list(codes))
    return _make_due(rows.values_list("pk", flat=True))


def _wake_waiting(seen: Iterable[int]) -> None:
    """Passes that wait for pods or objects to go are worth another look whenever something moved there."""
    waits = Q(outcome__code="waiting") | (~Q(wanted=Wanted.RUNNING) & ~Q(outcome__phase="gone"))
    rows = Deployment.objects.filter(waits, pk__in=list(seen), next_reconcile_at__gt=Now())
    _make_due(rows.values_list("pk", flat=True))


def _make_due(pks: Iterable[int]) -> int:
    found = list(pks)
    if found:
        Deployment.objects.filter(pk__in=found).update(next_reconcile_at=Now())
        for pk in found:
            hint(RECONCILE, pk)
    return len(found)


def _row(pk: int, observed: Observed, now: datetime, listed_at: datetime | None) -> Status:
    return Status(
        deployment_id=pk,
        observed=states.write_observed(observed),
        observed_at=now,
        live_pods=sum(1 for pod in observed.pods if pod.holds_gpus),
        listed_at=listed_at if observed.complete else None,
    )
