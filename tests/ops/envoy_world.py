"""`live`, the meter and a model's server in one loop beside the test, for an Envoy between them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import uvicorn

from deployments.models import KeyUsage
from portal.live.app import LiveApp
from portal.live.usage import Tally
from portal.meter.server import EVERY, server_of
from tests.ops.engine import Engine

CHAT = "/search-x7k2p/chat/v1/chat/completions"


class World:
    """All of it; `url` is Envoy's, once it runs."""

    url = ""

    def __init__(self) -> None:
        self.engine = Engine()
        self.app = LiveApp()
        self.tally = Tally(every=EVERY)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._sockets = {name: _bound() for name in ("live", "engine")}
        self._servers = [self._served("live", self.app), self._served("engine", self.engine)]
        self.ports = {name: sock.getsockname()[1] for name, sock in self._sockets.items()}
        self._meter = self.do(self._metering(0))
        self.client = httpx.Client(timeout=20, trust_env=False)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the loop of the servers."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def counted(self) -> list[tuple[int, int, int, int]]:
        """By key: requests, tokens of prompts and answers; all that was seen is written first."""
        for tally in (self.app.tally, self.tally):
            self.do(tally.flush())
        return sorted(KeyUsage.objects.values_list("key", "requests", "prompt_tokens", "completion_tokens"))

    def counts(self, *rows: tuple[int, int, int, int]) -> None:
        """Wait until this is counted: Envoy tells the meter of a caller who left when the caller is gone."""
        deadline = time.monotonic() + 10
        while (found := self.counted()) != sorted(rows):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    def ask(self, text: str = "", *, path: str = CHAT, **wish: Any) -> httpx.Response:
        """A caller's question, and the whole answer."""
        headers = {**({"authorization": f"Bearer {text}"} if text else {}), **wish.pop("headers", {})}
        return self.client.post(self.url + path, json={"model": "chat", **wish}, headers=headers)

    @contextmanager
    def streamed(self, text: str, *, model: str) -> Iterator[Iterator[bytes]]:
        """A caller's stream, piece by piece."""
        self.engine.release.clear()
        wish = {"model": model, "stream": True, "prompt": "x" * 400}
        headers = {"authorization": f"Bearer {text}"}
        with self.client.stream("POST", self.url + CHAT, json=wish, headers=headers) as answer:
            yield answer.iter_raw()

    def release(self) -> None:
        """Let an engine go on that waits."""
        self._loop.call_soon_threadsafe(self.engine.release.set)

    def meter_stops(self) -> None:
        """Nobody answers Envoy's messages any more."""
        self.do(self._meter.stop(None))

    def meter_starts(self) -> None:
        """At the same port again."""
        self._meter = self.do(self._metering(self.ports["meter"]))

    def close(self) -> None:
        self.client.close()
        self.do(self._meter.stop(None))
        for server in self._servers:
            server.should_exit = True
        time.sleep(0.2)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _served(self, name: str, app: Any) -> uvicorn.Server:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        asyncio.run_coroutine_threadsafe(server._serve([self._sockets[name]]), self._loop)
        return server

    async def _metering(self, port: int) -> grpc.aio.Server:
        server = server_of(self.tally)
        self.ports["meter"] = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server


def _bound() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made
