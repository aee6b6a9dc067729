"""A watcher whose loop is turned by the test."""

from __future__ import annotations

import time
from collections.abc import Callable

from deployments.kube.cluster import Cluster as Door
from deployments.models import Cluster
from deployments.watcher.run import Watcher


class Office:
    """A lock that is never lost."""

    def check(self) -> None:
        return None


class Driven:
    """A watcher whose loop is turned by the test."""

    def __init__(self, door: Door) -> None:
        self.watcher = Watcher(door, Office())  # type: ignore[arg-type]
        self.watcher.begin()

    def until(self, done: Callable[[], object], seconds: float = 20) -> None:
        """Turn the loop until `done`; fails after `seconds`."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, "it did not come to pass"
            self.watcher.step()

    def until_ready(self) -> None:
        """Turn until everything was read once, and the cluster's row says which cluster that is.

        The two come in either order. Without the second, workers have nothing to hold the answering cluster against,
        and do not ask which one it is.
        """
        self.until(lambda: self.watcher.synced and Cluster.objects.exclude(uid="").exists())

    def settle(self) -> None:
        """Turn until ready, and a little more."""
        self.until_ready()
        self.turn()

    def turn(self, seconds: float = 1.5) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.watcher.step()
