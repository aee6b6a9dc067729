"""What tests of `portal.live` call, and what stands behind it: a gateway that answers, logs that somebody wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from django.db import connection
from django.test import Client

from deployments.kube.errors import ClusterError
from deployments.models import User
from portal.live.app import LiveApp
from portal.live.logs import LogReader
from tests.portal.asgi import Answer, call

CHUNKS = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"delta": {"content": "A slipway"}}]},
    {"choices": [{"delta": {"content": " is a ramp.\n<b>"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"completion_tokens": 7}},
]
WISH = {"messages": [{"role": "user", "content": "What is a slipway?"}], "max_tokens": 32, "temperature": 0}


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


class Gateway:
    """A server that answers each request with fixed bytes and keeps what it was asked."""

    def __init__(self, status: str, body: bytes, *, pause: float = 0) -> None:
        self.status, self.body, self.pause = status, body, pause
        self.asked: list[bytes] = []

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        self.asked.append(head + await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {self.status}\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".encode())
        for part in self.body.splitlines(keepends=True):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(self.pause)
        writer.close()


def sse(chunks: list[Any]) -> bytes:
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def answered(path: str, **options: Any) -> Answer:
    async def run() -> Answer:
        return await call(options.pop("app", None) or LiveApp(), path, **options).whole()

    return asyncio.run(run())


class Written:
    """Logs as a test wrote them."""

    def __init__(self, *, error: ClusterError | None = None) -> None:
        self.error = error
        self.asked: list[tuple[Any, ...]] = []

    async def tail(self, namespace: str, pod: str, container: str, *, previous: bool, lines: int) -> str:
        self.asked.append((namespace, pod, container, previous, lines))
        if self.error:
            raise self.error
        return "one\ntwo <b>\n"

    async def follow(self, namespace: str, pod: str, container: str, *, lines: int) -> AsyncIterator[str]:
        self.asked.append((namespace, pod, container, lines))
        for number in range(3):
            yield f"line {number}"
        if self.error:
            raise self.error


class Endless(Written):
    """A log that is never finished."""

    async def follow(self, namespace: str, pod: str, container: str, *, lines: int) -> AsyncIterator[str]:
        for number in range(10**9):
            yield f"line {number}"
            await asyncio.sleep(0.02)


def reading(source: Written) -> LiveApp:
    app = LiveApp()
    app.reader = LogReader(source)
    return app


def in_thread(change: Any) -> Any:
    def run() -> None:
        try:
            change()
        finally:
            connection.close()

    return asyncio.to_thread(run)
