"""What controllers stand on: informers that see their own writes, a keyed work queue, and the loop.

A controller never acts on an event, only on a *key*: whatever happened, it looks at what is wanted and what is,
and does the difference. So a lost, doubled or late event costs nothing, and a restart needs no memory.

`Informer.remember` puts the answer of a write into the store at once. Without it a controller that creates a
pod would wake up again before the watch shows that pod, and create another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

import httpx

from sandbox.client import ApiError, Client, Obj, Reflector
from sandbox.lite.controllers.events import Recorder
from sandbox.lite.controllers.meta import Key, key_of, uid_of
from sandbox.lite.controllers.resources import Resource

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
Handler = Callable[[str, Obj, "Obj | None"], None]
FIRST_RETRY, LONGEST_RETRY = 0.05, 30.0
TOMBSTONES = 4096


class TryAgain(Exception):
    """The work is not finished for a reason already told elsewhere; look again after a growing delay."""


class Informer:
    """One collection, kept by a Reflector, with indexes and handlers `(kind, object, previous)`."""

    def __init__(self, client: Client, resource: Resource, **params: Any) -> None:
        self.resource = resource
        self.store: dict[Key, Obj] = {}
        self._handlers: list[Handler] = []
        self._indexes: dict[str, tuple[Callable[[Obj], list[str]], dict[str, set[Key]]]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._reflector = Reflector(client, resource.collection, on_change=self._changed, **params)

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        await self._reflector.run()

    async def synced(self) -> None:
        """Wait for the first list."""
        await self._reflector.synced.wait()

    def on_change(self, handler: Handler) -> None:
        """Call `handler` for every later change; objects already there are not repeated."""
        self._handlers.append(handler)

    def index(self, name: str, keys: Callable[[Obj], list[str]]) -> None:
        """Keep objects findable by `keys(object)`; asking again for a known name changes nothing."""
        if name not in self._indexes:
            self._indexes[name] = (keys, {})
            for obj in self.store.values():
                self._enter(name, obj)

    def by(self, name: str, key: str) -> list[Obj]:
        """Return the objects an index files under `key`."""
        return [self.store[found] for found in self._indexes[name][1].get(key, ()) if found in self.store]

    def get(self, namespace: str, name: str) -> Obj | None:
        """Return one object, or None."""
        return self.store.get((namespace, name))

    def remember(self, obj: Obj) -> None:
        """Take the answer of a write into the store before the watch brings it."""
        if uid_of(obj) not in self._gone:
            self._put("MODIFIED", obj)

    def _changed(self, kind: str, obj: Obj) -> None:
        if kind == "DELETED":
            self._remove(obj)
        else:
            self._put(kind, obj)

    def _put(self, kind: str, obj: Obj) -> None:
        self._name(obj)
        key = key_of(obj)
        old = self.store.get(key)
        if old is not None and uid_of(old) == uid_of(obj) and _version(obj) < _version(old):
            return  # the watch is behind what a write has already told us
        if old is not None:
            self._leave(old)
        self.store[key] = obj
        for name in self._indexes:
            self._enter(name, obj)
        self._tell(kind, obj, old)

    def _name(self, obj: Obj) -> None:
        """Lists leave out what their items are called; owners and events need it."""
        obj.setdefault("apiVersion", self.resource.api_version)
        obj.setdefault("kind", self.resource.kind)

    def _remove(self, obj: Obj) -> None:
        self._name(obj)
        key, uid = key_of(obj), uid_of(obj)
        self._gone[uid] = None
        while len(self._gone) > TOMBSTONES:
            self._gone.popitem(last=False)
        old = self.store.get(key)
        if old is not None and uid_of(old) == uid:
            self._leave(old)
            del self.store[key]
        self._tell("DELETED", obj, old)

    def _tell(self, kind: str, obj: Obj, old: Obj | None) -> None:
        for handler in self._handlers:
            handler(kind, obj, old)

    def _enter(self, name: str, obj: Obj) -> None:
        keys, table = self._indexes[name]
        for key in keys(obj):
            table.setdefault(key, set()).add(key_of(obj))

    def _leave(self, obj: Obj) -> None:
        for keys, table in self._indexes.values():
            for key in keys(obj):
                members = table.get(key)
                if members is not None:
                    members.discard(key_of(obj))
                    if not members:
                        del table[key]


def _version(obj: Obj) -> int:
    return int(obj["metadata"]["resourceVersion"])


class WorkQueue(Generic[K]):
    """Keys waiting for work: each at most once, none given to two workers at a time."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K) -> None:
        """Ask for work on `key` now, or right after the work that is being done on it."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for work later; of several such wishes the earliest counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(seconds, 0.0)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def retry(self, key: K) -> float:
        """Ask again with doubling delay; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = float(min(FIRST_RETRY * 2 ** min(failures, 20), LONGEST_RETRY))
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """Start the delays of `key` from the beginning."""
        self._failures.pop(key, None)

    async def take(self) -> K:
        """Wait for a key and reserve it; `done` gives it back."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """Give a key back; it is queued again when it was asked for meanwhile."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)


class Controller(Generic[K]):
    """Runs `reconcile(key)`; what it returns, if not None, is the number of seconds to the next look."""

    def __init__(self, name: str, reconcile: Callable[[K], Awaitable[float | None]], workers: int = 4) -> None:
        self.name = name
        self.queue: WorkQueue[K] = WorkQueue()
        self._reconcile = reconcile
        self._workers = workers

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            try:
                await self._once(key)
            finally:
                self.queue.done(key)

    async def _once(self, key: K) -> None:
        try:
            again = await self._reconcile(key)
        except TryAgain as reason:
            delay = self.queue.retry(key)
            log.debug("%s %s: %s; again in %.2f s", self.name, key, reason, delay)
        except ApiError as error:
            delay = self.queue.retry(key)
            # Conflict and not found mean only that the store is behind: the next look sees it.
            level = logging.DEBUG if error.status in (404, 409) else logging.INFO
            log.log(level, "%s %s: %s; again in %.2f s", self.name, key, error, delay)
        except httpx.HTTPError as error:
            delay = self.queue.retry(key)
            log.info("%s %s: %s; again in %.2f s", self.name, key, error or type(error).__name__, delay)
        except Exception:
            # A bug, or an object nobody foresaw, must not stop the work on all others.
            log.exception("%s %s failed", self.name, key)
            self.queue.retry(key)
        else:
            self.queue.forget(key)
            if again is not None:
                self.queue.add_after(key, again)


class Manager:
    """What the controllers of one process share: client, informers by resource, and the event recorder."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.recorder = Recorder(client)
        self._informers: dict[Resource, Informer] = {}
        self._loops: list[Callable[[], Awaitable[None]]] = []

    def informer(self, resource: Resource) -> Informer:
        """Return the one informer of a kind."""
        if resource not in self._informers:
            self._informers[resource] = Informer(self.client, resource)
        return self._informers[resource]

    def has_informer(self, resource: Resource) -> bool:
        """Tell whether somebody asked for this kind's informer before."""
        return resource in self._informers

    def controller(
        self, name: str, reconcile: Callable[[Any], Awaitable[float | None]], workers: int = 4
    ) -> Controller[Any]:
        """Make a controller and run it once every informer has its first list."""
        made: Controller[Any] = Controller(name, reconcile, workers)
        self._loops.append(made.run)
        return made

    def background(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine function beside the controllers, from the same moment on."""
        self._loops.append(loop)

    def start(self) -> list[asyncio.Task[None]]:
        """Start everything registered; cancel the tasks to stop."""
        tasks = [asyncio.create_task(informer.run()) for informer in self._informers.values()]
        return [*tasks, *(asyncio.create_task(self._when_synced(loop)) for loop in self._loops)]

    async def _when_synced(self, loop: Callable[[], Awaitable[None]]) -> None:
        for informer in list(self._informers.values()):
            await informer.synced()
        await loop()
