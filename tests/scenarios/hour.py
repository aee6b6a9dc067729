"""An hour in which nobody wants anything, without the waiting: every sweep and every list of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import orjson
from django.conf import settings
from django.db.models import F

from deployments import tasks
from deployments.kube.kinds import Kind
from deployments.kube.reflector import RELIST_SECONDS
from deployments.models import Deployment, Team
from deployments.reconciler import passes, teams
from deployments.services.convergence import RESYNC
from deployments.watcher.run import Watcher
from portal.lib.hints import RECONCILE, RECONCILE_TEAM
from tests.deployments.converging.driven import Driven, Office
from tests.scenarios.forgetting import EVERYTHING
from tests.scenarios.stage import Counted, Stage

SWEEP: timedelta = settings.CELERY_BEAT_SCHEDULE["sweep"]["schedule"]
HOUR = RESYNC * 1.2  # rows are looked at once an hour, give or take a fifth
# Time passes in steps of so many sweeps: one that finds nobody due is like another, and rows come due minutes apart.
STRIDE = 8
SWEEPS = round(HOUR / SWEEP / STRIDE)
LISTS = round(HOUR.total_seconds() / RELIST_SECONDS)
READS = frozenset({"get", "list", "watch"})
ACCOUNT = "system:serviceaccount:slipway-system:"
PATIENCE = 60.0


class Listing(Counted):
    """The watcher's door; counts the full lists of each kind that is followed beside all requests."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.lists: Counter[str] = Counter(dict.fromkeys(EVERYTHING, 0))

    def pages(self, kind: Kind, **more: Any) -> Iterator[bytes]:
        if kind.plural in self.lists:  # storage classes are looked at now and then, and followed by nobody
            self.lists[kind.plural] += 1
        return super().pages(kind, **more)


class Hasty(Driven):
    """A watcher that lists everything anew as soon as it can, and not every five minutes."""

    def __init__(self, door: Listing) -> None:
        self.watcher = Watcher(door, Office(), relist_seconds=0.25)  # type: ignore[arg-type]
        self.watcher.begin()


@contextmanager
def watching_an_hour(door: Listing) -> Iterator[None]:
    """List everything as often as a watcher does in an hour, beside what the block does."""
    driven = Hasty(door)
    try:
        yield
        driven.until(lambda: driven.watcher.synced and min(door.lists.values()) >= LISTS, seconds=3 * PATIENCE)
    finally:
        driven.watcher.end()


def sweep_an_hour(stage: Stage) -> Counter[tuple[str, int]]:
    """Sweep as often as in an hour; returns how often each row was looked at."""
    passed: Counter[tuple[str, int]] = Counter()
    work = {RECONCILE: passes.reconcile, RECONCILE_TEAM: teams.reconcile_team}

    def send(task: str, *, args: list[int], **_: object) -> None:
        stage.worker._identity = None  # of the cluster, remembered for three seconds: rows come minutes apart
        passed[task, args[0]] += work[task](args[0], stage.worker) is not False

    stage.patch.setattr(tasks, "current_app", SimpleNamespace(send_task=send))
    for _ in range(SWEEPS):
        for model in (Team, Deployment):
            model._default_manager.update(next_reconcile_at=F("next_reconcile_at") - SWEEP * STRIDE)
        tasks.sweep()
    return passed


def mark(stage: Stage) -> str:
    """Have the API server's log show a moment; returns what to look for."""
    word = uuid4().hex
    stage.worker._raw("GET", "/version", params={"marker": word}, timeout=None)
    return word


def asked_between(log: Path, begin: str, end: str) -> Iterator[tuple[str, str, str]]:
    """Account, verb and path of each request of Slipway's accounts between two marks of the API server's log."""
    deadline = time.monotonic() + PATIENCE
    while end not in (text := log.read_text()):
        assert time.monotonic() < deadline, "the API server's log does not show the end"
        time.sleep(0.1)
    lines = text[text.index(begin) : text.index(end)].splitlines()[1:-1]
    for event in map(orjson.loads, lines):
        name = event["user"]["username"]
        if name.startswith(ACCOUNT):
            yield name.removeprefix(ACCOUNT), event["verb"], event["requestURI"]
