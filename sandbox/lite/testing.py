"""A lite cluster inside a test process, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
) -> Iterator[RunningCluster]:
    """Run a cluster on a free port of 127.0.0.1 until the block ends.

    With `folder` its data stays there, so that a second run continues where the first ended. Raises what the
    server raised when it does not start within 30 s.
    """
    if folder is None:
        with (
            TemporaryDirectory(prefix="slipway-lite-") as temporary,
            running_cluster(
                Path(temporary),
                port=port,
                tls=tls,
                accounts=accounts,
                manifests=manifests,
                controllers=controllers,
            ) as cluster,
        ):
            yield cluster
        return
    faults = Faults()
    ready: Queue[RunningCluster | BaseException] = Queue()
    sock = listen(port)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        settings = Settings(
            data=folder,
            accounts=tuple(accounts),
            manifests=tuple(manifests),
            controllers=controllers,
            tls=tls,
            faults=faults,
            signals=False,
            on_ready=lambda url, cluster, stop: ready.put(RunningCluster(url, folder, faults, cluster, loop, stop)),
        )
        await serve(settings, [sock])

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001  (handed to the test's thread)
            ready.put(error)

    thread = threading.Thread(target=target, name="lite-cluster", daemon=True)
    thread.start()
    started = ready.get(timeout=START_SECONDS)
    if isinstance(started, BaseException):
        raise started
    try:
        yield started
    finally:
        faults.clear()
        started._loop.call_soon_threadsafe(started._stop)
        thread.join(10)
