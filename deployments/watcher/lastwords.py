"""Reads the logs of containers that died, once per death: the cause stands there and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from deployments.kube.cluster import Cluster
from deployments.kube.errors import ClusterError, ErrorClass
from deployments.watcher.world import Crash

logger = logging.getLogger(__name__)

LINES = 250
AT_ONCE = 2


@dataclass(frozen=True)
class Heard:
    """What a dead container wrote last; None: it could not be read now and is worth another try."""

    crash: Crash
    text: str | None


class LastWords:
    """A small pool of readers; a container asked for already is not asked for again."""

    def __init__(self, door: Cluster, emit: Callable[[Heard], None]) -> None:
        self._door = door
        self._emit = emit
        self._asked: set[Crash] = set()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="last-words")

    def ask(self, crash: Crash) -> None:
        """Have a container's log read."""
        if crash not in self._asked:
            self._asked.add(crash)
            self._pool.submit(self._read, crash)

    def done(self, crash: Crash) -> None:
        """Forget that it was asked for."""
        self._asked.discard(crash)

    def stop(self) -> None:
        """Drop what is not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, crash: Crash) -> None:
        try:
            text: str | None = self._door.log(
                crash.namespace, crash.pod, container=crash.container, previous=crash.previous, tail=LINES
            )
        except ClusterError as error:
            logger.info("log of %s/%s: %s", crash.namespace, crash.pod, error)
            # Refused or gone: the container's own termination message has to do.
            text = None if error.kind is ErrorClass.RETRY else ""
        self._emit(Heard(crash, text))
