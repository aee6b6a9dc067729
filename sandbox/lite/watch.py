"""Watches: who listens to which kind, and how a change becomes bytes once for all of them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from sandbox.lite.errors import StatusError, expired
from sandbox.lite.resources import Resource
from sandbox.lite.selectors import Selection
from sandbox.lite.storage import Change, Storage

BOOKMARK_SECONDS = 45.0
QUEUE_LENGTH = 2000

Encoder = Callable[[dict[str, Any], bytes], bytes]


class Watcher:
    """One open watch: a queue of changes it has not sent yet."""

    def __init__(self) -> None:
        self.queue: deque[Change] = deque()
        self.wake = asyncio.Event()
        self.lost = False

    def push(self, change: Change) -> None:
        """Take a change; a watcher too slow to read is cut off and must list again."""
        if len(self.queue) >= QUEUE_LENGTH:
            self.lost = True
        else:
            self.queue.append(change)
        self.wake.set()


class Hub:
    """Hands each committed change to the watchers of its kind."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._watchers: dict[str, set[Watcher]] = {}
        self.closing = False
        storage.listen(self._publish)

    def count(self, kind: str) -> int:
        """Return how many watches of one kind are open."""
        return len(self._watchers.get(kind, ()))

    def close(self, kind: str | None = None) -> None:
        """End every open watch, or those of one kind."""
        self.closing = self.closing or kind is None
        for name, watchers in self._watchers.items():
            if kind in (None, name):
                for watcher in watchers:
                    watcher.lost = True
                    watcher.wake.set()

    def open(self, kind: str, since: int | None) -> Watcher:
        """Start a watch after resourceVersion `since`, or with all there is when it is None. 410 when too old."""
        watcher = Watcher()
        if since is None:
            for stored in self.storage.all(kind):
                watcher.queue.append(Change(stored.rv, "ADDED", kind, stored.obj, stored.body, None))
        elif since < self.storage.compacted:
            raise expired(f"too old resource version: {since} ({self.storage.compacted + 1})")
        else:
            watcher.queue.extend(self.storage.changes(kind, since))
        self._watchers.setdefault(kind, set()).add(watcher)
        return watcher

    def drop(self, kind: str, watcher: Watcher) -> None:
        """Forget a watch."""
        self._watchers.get(kind, set()).discard(watcher)

    def _publish(self, change: Change) -> None:
        for watcher in self._watchers.get(change.kind, ()):
            watcher.push(change)


class Stream:
    """The lines of one watch, as its client wants them."""

    def __init__(
        self,
        hub: Hub,
        resource: Resource,
        selection: Selection,
        *,
        since: int | None,
        form: str,
        encode: Encoder,
        bookmarks: bool,
        seconds: float,
        initial_end: bool = False,
    ) -> None:
        self.hub = hub
        self.resource = resource
        self.selection = selection
        self.form = form
        self.encode = encode
        self.bookmarks = bookmarks
        self.initial_end = initial_end
        self.sent = hub.storage.rv
        self.deadline = time.monotonic() + seconds
        self.watcher = hub.open(resource.storage_key, since)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield events until the time is up, the client is too slow, or the server stops."""
        watcher = self.watcher
        try:
            first = self._drain()
            if self.initial_end:
                first += self._bookmark({"k8s.io/initial-events-end": "true"})
            if first:
                yield first
            while not watcher.lost and not self.hub.closing:
                left = self.deadline - time.monotonic()
                if left <= 0:
                    break
                watcher.wake.clear()
                try:
                    await asyncio.wait_for(watcher.wake.wait(), min(left, BOOKMARK_SECONDS))
                except TimeoutError:
                    if self.bookmarks:
                        yield self._bookmark()
                    continue
                lines = self._drain()
                if lines:
                    yield lines
            if watcher.lost and not self.hub.closing and len(watcher.queue) >= QUEUE_LENGTH:
                yield self.error(expired("the watcher is too slow"))
        finally:
            self.hub.drop(self.resource.storage_key, watcher)

    def error(self, error: StatusError) -> bytes:
        """Encode an ERROR event."""
        return orjson.dumps({"type": "ERROR", "object": error.status()}) + b"\n"

    def _drain(self) -> bytes:
        parts = []
        queue = self.watcher.queue
        while queue:
            change = queue.popleft()
            type_ = self._type(change)
            if type_ is not None:
                parts.append(self._line(change, type_))
            self.sent = max(self.sent, change.rv)
        return b"".join(parts)

    def _type(self, change: Change) -> str | None:
        """Say how a change looks through the selection: an object may come into view or leave it."""
        selection = self.selection
        if selection.namespace and change.obj["metadata"].get("namespace") != selection.namespace:
            return None
        if selection.everything:
            return change.type
        now = change.type != "DELETED" and selection.matches(change.obj)
        before = change.previous is not None and selection.matches(change.previous)
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else None

    def _line(self, change: Change, type_: str) -> bytes:
        variant = (self.form, self.resource.version, type_)
        line = change.encoded.get(variant)
        if line is None:
            obj, body = change.obj, change.body
            if type_ == "DELETED" and change.type != "DELETED" and change.previous is not None:
                # It left the view: it is shown as it was there, under the version that took it away.
                version = change.obj["metadata"]["resourceVersion"]
                obj = change.previous | {"metadata": change.previous["metadata"] | {"resourceVersion": version}}
                body = orjson.dumps(obj)
            line = b'{"type":"' + type_.encode() + b'","object":' + self.encode(obj, body) + b"}\n"
            change.encoded[variant] = line
        return line

    def _bookmark(self, annotations: dict[str, str] | None = None) -> bytes:
        self.sent = self.hub.storage.rv if not self.watcher.queue else self.sent
        meta: dict[str, Any] = {"resourceVersion": str(self.sent), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        obj = {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": meta}
        return orjson.dumps({"type": "BOOKMARK", "object": obj}) + b"\n"
