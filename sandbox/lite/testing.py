"""A lite cluster inside a test process, on a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any

from sandbox.lite.cluster import Cluster
from sandbox.lite.faults import Fault, Faults
from sandbox.lite.part import listen
from sandbox.lite.run import Settings, serve

START_SECONDS = 30.0

__all__ = ["Fault", "RunningCluster", "running_cluster"]


@dataclass
class RunningCluster:
    """Where a running cluster is, and handles on it. Set `faults.before_hook` to make trouble."""

    url: str
    folder: Path
    faults: Faults
    _cluster: Cluster
    _loop: asyncio.AbstractEventLoop = field(repr=False)
    _stop: Callable[[], None] = field(repr=False)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.kubeconfig_of("admin")

    @property
    def token(self) -> str:
        """The administrator's bearer token."""
        return self._cluster.tokens.admin()

    def kubeconfig_of(self, account: str) -> Path:
        """The kubeconfig of an account asked for at start."""
        return self.folder / f"{account}.kubeconfig"

    def compact(self) -> None:
        """Forget the change log: every watch from before now gets 410."""
        self._call(lambda: self._cluster.storage.compact(keep=0))

    def drop_watches(self) -> None:
        """End every open watch, as a restarting server would."""

        def drop() -> None:
            for kind in self._cluster.storage.kinds():
                self._cluster.hub.close(kind)

        self._call(drop)

    def _call(self, work: Any) -> None:
        """Run `work` on the server's own loop, which alone may touch its state."""
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(run)
        if not done.wait(10):
            raise TimeoutError("the server's loop is stuck")


@contextmanager
def running_cluster(
    folder: Path | None = None,
    *,
    port: int = 0,
    tls: bool = False,
    accounts: Sequence[str] = (),
    manifests: Sequence[Path] = (),
    controllers: bool = True,
    bare: bool = False,
    prometheus_url: str = "",
    scaling_speed: float = 1.0,
) -> Iterator[RunningCluster]:
    """Run a cluster on a free port of 127.0.0.1 until the block ends.

    A `bare` one answers as kube-apiserver does where nothing else runs: without webhooks and the objects that
    controllers make. With `folder` its data stays there, so that a second run continues where the first ended. kubectl
    sends its token over TLS alone. Raises what the server raised when it does not start within 30 s.
    """
    with ExitStack() as stack:
        data = folder or Path(stack.enter_context(TemporaryDirectory(prefix="slipway-lite-")))
        settings = Settings(
            data=data,
            accounts=tuple(accounts),
            manifests=tuple(manifests),
            controllers=controllers,
            bare=bare,
            prometheus_url=prometheus_url,
            scaling_speed=scaling_speed,
            tls=tls,
            signals=False,
        )
        yield stack.enter_context(_on_a_thread(settings, listen(port)))


@contextmanager
def _on_a_thread(settings: Settings, sock: socket.socket) -> Iterator[RunningCluster]:
    ready: Queue[RunningCluster | BaseException] = Queue()

    def started(url: str, cluster: Cluster, stop: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        ready.put(RunningCluster(url, settings.data, settings.faults, cluster, loop, stop))

    def work() -> None:
        try:
            asyncio.run(serve(settings, [sock]))
        except BaseException as error:  # noqa: BLE001  (handed to the test's thread)
            ready.put(error)

    settings.on_ready = started
    thread = threading.Thread(target=work, name="lite-cluster", daemon=True)
    thread.start()
    running = ready.get(timeout=START_SECONDS)
    if isinstance(running, BaseException):
        raise running
    try:
        yield running
    finally:
        settings.faults.clear()
        running._loop.call_soon_threadsafe(running._stop)
        thread.join(10)
