"""The watcher's main loop: many threads read the cluster, this one thread keeps the world and writes the rows."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from deployments.kube.cluster import Cluster as Door
from deployments.kube.reflector import RELIST_SECONDS, Broken, Changed, Listed, Reflector
from deployments.models import Cluster
from deployments.reconciler.endings import UNREACHABLE
from deployments.services import telling
from deployments.watcher import heart, nodes, statuses
from deployments.watcher.drift import Drift
from deployments.watcher.election import DeposedError, Office, elected
from deployments.watcher.heart import Beat, Heart
from deployments.watcher.lastwords import Heard, LastWords
from deployments.watcher.seen import followed, install_selector
from deployments.watcher.statuses import Statuses
from deployments.watcher.world import World

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.1
TICK_SECONDS = 1.0
MOVING_SECONDS = 10.0
# How often is read how far downloads have come.
PROGRESS_SECONDS = 5.0
OFFICE_SECONDS = 5.0
AFTER_DATABASE_SECONDS = 1.0
GRACE_SECONDS = 1.0
DRAIN = 2000

Signal = Listed[object] | Changed[object] | Broken | Beat | Heard


def watch_forever(door: Door, stop: threading.Event) -> None:
    """Watch until `stop`: through restarts of the API server and of the database."""
    while not stop.is_set():
        try:
            with elected(stop) as office:
                if office is not None:
                    logger.info("watching")
                    Watcher(door, office).run(stop)
        except (DatabaseError, InterfaceError, DeposedError) as error:
            logger.warning("the database is away: %s", str(error).strip())
            stop.wait(AFTER_DATABASE_SECONDS)
        finally:
            connection.close()


@dataclass
class Watcher:
    """One term of office."""

    door: Door
    office: Office
    relist_seconds: float = RELIST_SECONDS
    world: World = field(default_factory=World)
    broken: dict[str, str] = field(default_factory=dict)
    silent: bool = False

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` or until the database is lost."""
        self.begin()
        try:
            while not stop.is_set():
                self.step()
        finally:
            self.end()

    def begin(self) -> None:
        """Start to read the cluster."""
        self._signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self._row: Cluster = heart.main_cluster()
        self.world.install = settings.SLIPWAY_INSTALL_ID
        self._statuses, self._drift = Statuses(), Drift()
        self._words = LastWords(self.door, self._signals.put)
        self._kinds = followed()
        self._essential = {item.kind.kind for item in self._kinds if item.essential}
        self._due = dict.fromkeys(("flush", "tick", "moving", "progress", "office", "all"), 0.0)
        self._threads: list[Reflector[object, object] | Heart] = [
            Heart(self.door, self._signals.put),
            *self._reflectors(),
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop reading."""
        self._words.stop()
        for thread in self._threads:
            thread.stop()
        until = time.monotonic() + GRACE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _reflectors(self) -> Iterable[Reflector[object, object]]:
        selector = install_selector(settings.SLIPWAY_INSTALL_ID)
        for item in self._kinds:
            yield Reflector(
                self.door,
                item.kind,
                item.struct,
                item.view,
                self._signals.put,
                selector=selector if item.ours else "",
                relist_seconds=self.relist_seconds,
            )

    def step(self) -> None:
        """Take in what came, then do what is due: the first change is written at once, later ones every 100 ms."""
        for signal in self._next():
            self._take(signal)
        if (
            self.listed_at is not None
            and (self.world.dirty or self._turn("tick", TICK_SECONDS))
            and self._turn("flush", FLUSH_SECONDS)
        ):
            self._flush()
        if self.listed_at is not None and self._turn("progress", PROGRESS_SECONDS):
            for container in self.world.fetching():
                self._words.ask(container)
        if self._turn("office", OFFICE_SECONDS):
            self.office.check()
        if self.listed_at is not None and self._turn("moving", MOVING_SECONDS):
            statuses.refresh_moving()
            self.world.forget_old_events(timezone.now())
        if self.synced and self._turn("all", self.relist_seconds):
            self._drift.check_all(self.world)

    @property
    def synced(self) -> bool:
        """True while everything essential was listed and is followed."""
        return self._essential <= self.world.synced

    @property
    def listed_at(self) -> datetime | None:
        """When the oldest of the last full lists was made; None before everything essential was listed once."""
        lists = [self.world.listed.get(kind) for kind in self._essential]
        found = [at for at in lists if at is not None]
        return min(found) if found and len(found) == len(lists) else None

    @property
    def blind(self) -> str:
        """What cannot be seen, though the server may answer."""
        found = sorted(kind for kind in self.broken if kind in self._essential)
        if found:
            return f"{', '.join(found)} cannot be read: {self.broken[found[0]]}"
        return "" if self.synced else "The cluster is being read for the first time."

    def _next(self) -> list[Signal]:
        wait = FLUSH_SECONDS if self.world.dirty else TICK_SECONDS
        try:
            signals = [self._signals.get(timeout=wait)]
        except queue.Empty:
            return []
        while len(signals) < DRAIN:
            try:
                signals.append(self._signals.get_nowait())
            except queue.Empty:
                break
        return signals

    def _take(self, signal: Signal) -> None:
        match signal:
            case Listed():
                self.broken.pop(signal.source, None)
                self.world.take(signal)
                logger.debug("%s: %d listed", signal.source, len(signal.items))
            case Changed():
                self.world.take(signal)
            case Broken():
                if signal.source not in self.broken:
                    logger.warning("watching %s: %s", signal.source, signal.error)
                self.broken[signal.source] = signal.error.message
                self.world.lose(signal.source)
            case Beat():
                self._beat(signal)
            case Heard():
                self._words.done(signal.crash)
                if signal.text is not None:
                    self.world.hear(signal.crash, signal.text)

    def _beat(self, beat: Beat) -> None:
        before, returned = self._row.trouble, self.silent and not beat.trouble
        self.silent = bool(beat.trouble)
        if returned:
            for thread in self._threads:
                if isinstance(thread, Reflector):
                    thread.hurry()
        trouble = heart.record(self._row, beat, blind=self.blind)
        if trouble != before:
            telling.notify(["cluster"])
        # The worker needs not wait until everything is seen again.
        if returned or (before and not trouble):
            woken = statuses.wake_unreachable(UNREACHABLE)
            logger.info("the cluster is back, %d deployments go on", woken)

    def _flush(self) -> None:
        for crash in self.world.crashes(self.world.dirty):
            self._words.ask(crash)
        self._statuses.flush(self.world, complete=self.synced, listed_at=self.listed_at)
        self._drift.check(self.world)
        if self.world.nodes_changed:
            self.world.nodes_changed = False
            nodes.write_nodes(self._row, self.world)
        if self.world.claims_changed:
            self.world.claims_changed = False
            places = heart.team_namespaces()
            heart.write_claims(self._row, self.world.claims_in(places), self.world.claims_in(places, ours=True))

    def _turn(self, name: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._due[name]:
            return False
        self._due[name] = now + seconds
        return True
