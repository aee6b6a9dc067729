"""Speaking ASGI to an application in this process: whole answers, and streams that can be read and hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings
from django.test import Client


@dataclass
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


class Call:
    """One request that is going on."""

    def __init__(self, app: Any, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        target, _, query = path.partition("?")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": target,
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
        }
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._to_app.put_nowait({"type": "http.request", "body": body})
        self._rest = ""
        self.task = asyncio.ensure_future(app(self._scope, self._to_app.get, self._from_app.put))

    async def start(self) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        message = await self._next()
        assert message["type"] == "http.response.start"
        headers = {name.decode(): value.decode() for name, value in message["headers"]}
        return message["status"], headers

    async def whole(self) -> Answer:
        """The answer, to its end."""
        status, headers = await self.start()
        body = b""
        while True:
            message = await self._next()
            body += message.get("body", b"")
            if not message.get("more_body"):
                await self.task
                return Answer(status, headers, body)

    async def event(self, *, within: float = 5.0) -> tuple[str, Any]:
        """The next server-sent event; ("", None) at the end of the stream."""
        while True:
            block, found, rest = self._rest.partition("\n\n")
            if found:
                self._rest = rest
                lines = dict(line.split(": ", 1) for line in block.split("\n") if line.startswith(("event", "data")))
                if "event" in lines:
                    return lines["event"], orjson.loads(lines["data"])
                continue
            message = await asyncio.wait_for(self._from_app.get(), within)
            self._rest += message.get("body", b"").decode()
            if not message.get("more_body"):
                return "", None

    async def until(self, name: str, *, within: float = 5.0) -> Any:
        """The data of the next event of this name; others are passed over."""
        while True:
            found, data = await self.event(within=within)
            if found == name:
                return data
            assert found, f"the stream ended before {name}"

    async def hang_up(self) -> None:
        """Close the connection from this side and wait until the application has noticed."""
        await self._to_app.put({"type": "http.disconnect"})
        await asyncio.wait_for(self.task, 5)

    async def _next(self) -> dict[str, Any]:
        waiting = asyncio.ensure_future(self._from_app.get())
        done, _ = await asyncio.wait({waiting, self.task}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done and self._from_app.empty():
            self.task.result()  # raises what the application raised
        return await asyncio.wait_for(waiting, 5)


def call(
    app: Any, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Call:
    """Begin a request."""
    return Call(app, method, path, {"host": "testserver", **(headers or {})}, body)


def cookies_of(client: Client) -> dict[str, str]:
    """The headers of a browser in which somebody has signed in."""
    pairs = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    return {"cookie": pairs}


def with_csrf(client: Client) -> dict[str, str]:
    """The headers of a script on one of our pages."""
    token = "a" * 32
    client.cookies[settings.CSRF_COOKIE_NAME] = token
    return {**cookies_of(client), "x-csrftoken": token, "content-type": "application/json"}
