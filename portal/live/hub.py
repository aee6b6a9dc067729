"""One LISTEN connection per process: the database says what changed, open pages are told at once.

A notification is only a hint, so nothing here is stored: after a lost connection every page fetches its parts again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from django.db import connections

from deployments.models import Cluster
from deployments.services.telling import CHANNEL, PEOPLE
from portal.live.callers import Caller
from portal.live.database import in_database
from portal.live.http import event
from portal.live.permission import NOTHING, Reach, ended, hearers, lost, reaches

logger = logging.getLogger(__name__)

COALESCE_SECONDS = 0.1
# A stream ends at most five seconds after its caller's right to it; a change that is announced ends it at once.
RECHECK_SECONDS = 4.0
CLUSTER_SECONDS = 5.0
RECONNECT_SECONDS = 1.0
RECENT = 5000
# A page is made a little after it was read, perhaps by another machine with another clock.
MARGIN_SECONDS = 5.0
PREFIX = "deployment:"


class Stream:
    """One open page. What is waiting for it is a set, so a slow page costs no more than a quick one."""

    def __init__(self, caller: Caller, *, lost: bool = False, reach: Reach = NOTHING) -> None:
        self.caller = caller
        # What its person might see when it was last looked at.
        self.reach = reach
        self._lost = lost
        self._changed: set[str] = set()
        self._cluster: dict[str, Any] | None = None
        self._hello = True
        self._ended = False
        self._wake = asyncio.Event()
        self._wake.set()

    def offer(self, names: Iterable[str]) -> None:
        """Something that this page may see has changed."""
        self._changed.update(names)
        self._wake.set()

    def offer_cluster(self, freshness: dict[str, Any]) -> None:
        """How fresh the cluster is."""
        self._cluster = freshness
        self._wake.set()

    def hello(self) -> None:
        """Hints may have been lost: fetch everything again."""
        self._hello = self._lost = True
        self._wake.set()

    def end(self) -> None:
        """The session is over."""
        self._ended = True
        self._wake.set()

    async def events(self) -> AsyncIterator[bytes]:
        """What to send, until the session ends."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._ended:
                yield event("bye", {})
                return
            if self._hello:
                lost, self._hello, self._lost = self._lost, False, False
                yield event("hello", {"now": now_ms(), "lost": lost})
            if self._changed:
                names, self._changed = sorted(self._changed), set()
                yield event("changed", names)
            if self._cluster is not None:
                freshness, self._cluster = self._cluster, None
                yield event("cluster", {**freshness, "now": now_ms()})


class Watch:
    """One open stream about one deployment: a log that is followed, or a prompt. `over` when its caller must go."""

    def __init__(self, caller: Caller, deployment: int) -> None:
        self.caller = caller
        self.deployment = deployment
        self.over = asyncio.Event()


class Hub:
    """The open streams of this process and the tasks that feed them; started by the first stream."""

    def __init__(self) -> None:
        self.streams: set[Stream] = set()
        self.watches: set[Watch] = set()
        self._pending: set[int] = set()
        # What was heard lately, so that a page hears what changed between its making and its stream.
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._listening_since: float | None = None
        self._wake = asyncio.Event()
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.listening = asyncio.Event()

    def open(self, caller: Caller, *, made_at: float = 0.0, reach: Reach = NOTHING) -> tuple[Stream, set[int]]:
        """Add a stream of a page that was made at `made_at` (seconds since 1970) for somebody with this reach.

        Returns it with the deployments that may have changed since, not yet filtered by permission.
        """
        self._start()
        since = made_at - MARGIN_SECONDS
        forgotten = len(self._recent) == RECENT and self._recent[0][0] > since
        lost = self._listening_since is None or self._listening_since > since or forgotten
        stream = Stream(caller, lost=lost, reach=reach)
        self.streams.add(stream)
        return stream, set() if lost else {pk for at, pk in self._recent if at >= since}

    def close(self, stream: Stream) -> None:
        """Forget a stream."""
        self.streams.discard(stream)

    @contextmanager
    def watching(self, caller: Caller, deployment: int) -> Iterator[Watch]:
        """Keep a stream about one deployment among those whose session and permission are looked at again."""
        self._start()
        watch = Watch(caller, deployment)
        self.watches.add(watch)
        try:
            yield watch
        finally:
            self.watches.discard(watch)

    def _start(self) -> None:
        if not self._tasks:
            loops = (self._listen(), self._deliver(), self._recheck(), self._tell_cluster())
            self._tasks = [asyncio.ensure_future(loop) for loop in loops]

    async def stop(self) -> None:
        """End the tasks; open pages connect again elsewhere."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def heard(self, payload: str) -> None:
        """Take one notification."""
        if payload == PEOPLE:
            self._look.set()
            return
        number = payload.removeprefix(PREFIX)
        if payload.startswith(PREFIX) and number.isascii() and number.isdigit():
            self._pending.add(int(number))
            self._recent.append((time.time(), int(number)))
            self._wake.set()

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(**_connection_values(), autocommit=True) as connection:
                    await connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(CHANNEL)))
                    self._listening_since = time.time()
                    self.listening.set()
                    for stream in self.streams:
                        stream.hello()
                    async for notification in connection.notifies():
                        self.heard(notification.payload)
            except psycopg.Error as error:
                logger.warning("listening for changes stopped: %s", error)
            finally:
                self._listening_since = None
                self.listening.clear()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _deliver(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            ids, self._pending = self._pending, set()
            try:
                heard = await in_database(hearers, ids, {stream.caller.user_id for stream in self.streams})
            except Exception as error:  # noqa: BLE001 - whatever the database's trouble, pages fetch for themselves
                logger.warning("changes not delivered: %s", error)
                for stream in self.streams:
                    stream.hello()
            else:
                for stream in self.streams:
                    if seen := heard.get(stream.caller.user_id, set()):
                        stream.offer(f"{PREFIX}{pk}" for pk in seen)
            # The first change goes out at once; what follows within this time goes out together.
            await asyncio.sleep(COALESCE_SECONDS)

    async def _recheck(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), RECHECK_SECONDS)
            self._look.clear()
            await self.recheck()

    async def recheck(self) -> None:
        """End the streams of sessions that are over, and those about what their caller may not see any more.

        A page of somebody who may see more or less than before fetches all of its parts again.
        """
        callers = {stream.caller for stream in self.streams} | {watch.caller for watch in self.watches}
        if not callers:
            return
        try:
            claims = {(each.caller, each.deployment) for each in self.watches}
            gone, barred, reach = await in_database(_standing, callers, claims)
        except Exception as error:  # noqa: BLE001 - asked again in seconds; deliveries check for themselves
            logger.warning("sessions of open pages not checked: %s", error)
            return
        for stream in self.streams:
            now = reach.get(stream.caller.user_id, NOTHING)
            if stream.caller in gone:
                stream.end()
            elif stream.caller in callers and stream.reach != now:
                stream.reach = now
                stream.hello()
        for watch in self.watches:
            if watch.caller in gone or (watch.caller, watch.deployment) in barred:
                watch.over.set()

    async def _tell_cluster(self) -> None:
        while True:
            if self.streams:
                try:
                    freshness = await in_database(_freshness)
                except Exception as error:  # noqa: BLE001 - pages count the age of what they have by themselves
                    logger.debug("freshness of the cluster not read: %s", error)
                else:
                    for stream in self.streams:
                        stream.offer_cluster(freshness)
            await asyncio.sleep(CLUSTER_SECONDS)


def now_ms() -> int:
    """This machine's clock, for pages whose own is wrong."""
    return int(time.time() * 1000)


def _standing(
    callers: set[Caller], claims: set[tuple[Caller, int]]
) -> tuple[set[Caller], set[tuple[Caller, int]], dict[int, Reach]]:
    return ended(callers), lost(claims), reaches(caller.user_id for caller in callers)


def _freshness() -> dict[str, Any]:
    row = Cluster.objects.order_by("pk").values("seen_at", "trouble").first()
    seen = row["seen_at"] if row else None
    return {"seen": int(seen.timestamp() * 1000) if seen else 0, "trouble": bool(row and row["trouble"])}


def _connection_values() -> dict[str, Any]:
    """Where Django's own connections go, without its pool: this one stays open and is ours alone."""
    values = connections["default"].settings_dict
    named = {
        "dbname": values["NAME"],
        "user": values["USER"],
        "password": values["PASSWORD"],
        "host": values["HOST"],
        "port": values["PORT"],
    }
    return {key: value for key, value in named.items() if value} | {
        "connect_timeout": 5,
        "application_name": "slipway-live",
    }
