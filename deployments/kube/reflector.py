"""List and watch of one kind, for as long as it takes: every break ends in a new list, every list is complete."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
import orjson

from deployments.kube.cluster import WATCH_SECONDS, Cluster, WatchStream
from deployments.kube.errors import ClusterError, ErrorClass, answer_error, transport_error
from deployments.kube.kinds import Kind
from deployments.kube.slim import Bookmark, Head, Page

logger = logging.getLogger(__name__)

S = TypeVar("S")
V = TypeVar("V")
Key = tuple[str, str]

RELIST_SECONDS = 300.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 15.0
# Nothing a person or time will quickly change: a missing CRD, a missing role.
SLOW_PAUSE = 30.0


@dataclass(frozen=True)
class Listed(Generic[V]):
    """Everything there is, as of one moment: what is not in it is gone. `begun` is when it was asked for."""

    source: str
    items: Mapping[Key, V]
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Changed(Generic[V]):
    """One object as it is now; None: it is gone."""

    source: str
    key: Key
    item: V | None


@dataclass(frozen=True)
class Broken:
    """The reflector cannot see; it goes on trying."""

    source: str
    error: ClusterError


Signal = Listed[Any] | Changed[Any] | Broken


class Reflector(Generic[S, V]):
    """Follows one kind in a thread of its own and emits signals; keeps nothing itself.

    `struct` is what objects are decoded to, `view` makes of it what is handed on (None: of no interest).
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        struct: type[S],
        view: Callable[[S], V | None],
        emit: Callable[[Signal], None],
        *,
        selector: str = "",
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        self.kind = kind
        self._cluster = cluster
        self._view = view
        self._emit = emit
        self._selector = selector
        self._relist_seconds = relist_seconds
        self._page: Any = msgspec.json.Decoder(Page[struct])  # type: ignore[valid-type]
        self._item = msgspec.json.Decoder(struct)
        self._head = msgspec.json.Decoder(Head)
        self._bookmark = msgspec.json.Decoder(Bookmark)
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._stream: WatchStream | None = None
        self._thread = threading.Thread(target=self.run, name=f"watch-{kind.plural}", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End the stream; the thread ends with it."""
        self._stop.set()
        self._hurry.set()
        if self._stream is not None:
            self._stream.abort()

    def hurry(self) -> None:
        """Try again now, if it waits after a break: the server is known to answer again."""
        self._hurry.set()

    def join(self, timeout: float = 1.0) -> None:
        """Wait for the thread; one that waits for a silent server is left to end with the process."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def run(self) -> None:
        """Follow until stopped; no answer of the server ends it."""
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            self._hurry.clear()
            began, most = time.monotonic(), LONGEST_PAUSE
            try:
                self._follow(self._list())
                pause = FIRST_PAUSE
                continue
            except ClusterError as error:
                pause = self._after(error, pause, time.monotonic() - began)
                # Also a server that has just started refuses, for a moment, what it will allow.
                most = SLOW_PAUSE if error.kind is ErrorClass.WAIT else LONGEST_PAUSE
            except Exception:
                logger.exception("watching %s", self.kind.plural)
            hurried = self._hurry.wait(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
            pause = FIRST_PAUSE if hurried else min(pause * 2, most)

    def _after(self, error: ClusterError, pause: float, lasted: float) -> float:
        """Tell of the break, and say how long to wait."""
        if self._stop.is_set():
            return 0.0
        if lasted > LONGEST_PAUSE:
            pause = FIRST_PAUSE  # it had worked for a while
        if error.kind is ErrorClass.EXPIRED or error.code == "silent":
            logger.info("watching %s: %s, listing again", self.kind.plural, error.code)
            return pause
        self._emit(Broken(self.kind.kind, error))
        return pause

    def _list(self) -> str:
        """Emit a complete list; returns the version to watch from."""
        items: dict[Key, V] = {}
        version, begun = "", datetime.now(UTC)
        for raw in self._cluster.pages(self.kind, selector=self._selector):
            try:
                page = self._page.decode(raw)
            except msgspec.MsgspecError as error:
                message = f"The list of {self.kind.plural} cannot be read."
                raise transport_error("bad_answer", message, mutating=False) from error
            version = page.metadata.resource_version
            for struct in page.items:
                view = self._view(struct)
                if view is not None:
                    items[struct.metadata.namespace, struct.metadata.name] = view
        self._emit(Listed(self.kind.kind, items, begun))
        return version

    def _follow(self, version: str) -> None:
        """Watch until the next complete list is due, one stream after the other."""
        relist_at = time.monotonic() + self._relist_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        while not self._stop.is_set():
            left = relist_at - time.monotonic()
            if left <= 0:
                return
            began = time.monotonic()
            stream = self._cluster.watch(
                self.kind, version, selector=self._selector, seconds=max(1, min(WATCH_SECONDS, round(left)))
            )
            self._stream = stream
            for line in stream:
                version = self._handle(line) or version
                if self._stop.is_set():
                    return
            if time.monotonic() - began < FIRST_PAUSE:
                # A server that ends every stream at once must not be hammered.
                self._stop.wait(1.0)

    def _handle(self, line: bytes) -> str | None:
        """Emit one event; returns the version it carries."""
        try:
            head = self._head.decode(line)
            if head.type == "BOOKMARK":
                return self._bookmark.decode(head.object).metadata.resource_version
            if head.type in {"ADDED", "MODIFIED", "DELETED"}:
                struct: Any = self._item.decode(head.object)
                view = None if head.type == "DELETED" else self._view(struct)
                key = (struct.metadata.namespace, struct.metadata.name)
                self._emit(Changed(self.kind.kind, key, view))
                return str(struct.metadata.resource_version)
        except msgspec.MsgspecError as error:
            raise transport_error("bad_answer", "A line of the watch cannot be read.", mutating=False) from error
        raise _error_event(head)


def _error_event(head: Head) -> ClusterError:
    """What an ERROR line says; anything that is not a Status with a number counts as a broken stream."""
    try:
        body = orjson.loads(bytes(head.object))
    except orjson.JSONDecodeError:
        body = None
    code = body.get("code") if isinstance(body, dict) else None
    if isinstance(body, dict) and isinstance(code, int) and code >= 400:
        return answer_error(code, body, mutating=False, retry_after=None)
    return transport_error("bad_answer", f"The watch sent {head.type[:40]!r}.", mutating=False)
