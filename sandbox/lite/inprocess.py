"""Requests that never leave the process: how the controllers reach the API server they run beside.

Without it each of their writes would be encrypted, sent, received and decrypted by the same event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from sandbox.lite.server import ApiServer

BASE_URL = "http://in-process"


class InProcessTransport(httpx.AsyncBaseTransport):
    """Carries httpx requests to an ApiServer, streams included. Injected faults do not touch them."""

    def __init__(self, app: ApiServer) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Start the request and return as soon as its status and headers are known."""
        exchange = _Exchange(await request.aread())
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "in_process": True,
        }
        exchange.task = asyncio.create_task(exchange.run(self._app, scope))
        start = await exchange.messages.get()
        if start is None:
            raise httpx.RemoteProtocolError("the request ended without an answer", request=request)
        return httpx.Response(start["status"], headers=start["headers"], stream=_Stream(exchange), request=request)


class _Exchange:
    """Both ends of one request."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(64)
        self.closed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def run(self, app: ApiServer, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            if not self.closed.is_set():
                await self.messages.put(None)

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if not self.closed.is_set():
            await self.messages.put(message)


class _Stream(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._exchange.messages.get()
            if message is None:
                return
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def aclose(self) -> None:
        exchange = self._exchange
        exchange.closed.set()
        while not exchange.messages.empty():  # a sender may be waiting for room
            exchange.messages.get_nowait()
        if exchange.task is not None:
            await asyncio.wait({exchange.task}, timeout=1)
