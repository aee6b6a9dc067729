"""Small ASGI servers without a ticking main loop, so that many idle listeners in one process cost nothing.

`uvicorn.Server` wakes ten times a second for each instance; a node has a listener for every pod. Here
uvicorn's HTTP protocol is used directly on asyncio servers.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_LIMIT = 16 * 1024 * 1024  # bytes
KEEP_ALIVE = 30  # seconds


class BodyTooLarge(Exception):
    """The request body is larger than BODY_LIMIT."""


class Disconnected(Exception):
    """The caller went away before the answer was complete."""


@dataclass(frozen=True)
class Answer:
    """A complete HTTP response."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Encode `value` as a JSON response."""
    return Answer(status, orjson.dumps(value), headers=tuple((headers or {}).items()))


def text_answer(text: str, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> Answer:
    """Make a text response."""
    return Answer(status, text.encode(), content_type)


@dataclass
class Request:
    """One HTTP request as a handler wants to see it."""

    scope: Scope
    receive: Receive
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in self.scope["headers"]}

    @property
    def method(self) -> str:
        """Upper-case HTTP method."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """Decoded path without the query."""
        return str(self.scope["path"])

    @property
    def parts(self) -> list[str]:
        """Path segments, each decoded on its own, so that an encoded slash stays inside its segment."""
        raw = self.scope.get("raw_path") or self.path.encode()
        return [unquote(part) for part in raw.split(b"?")[0].decode("latin-1").strip("/").split("/")]

    @property
    def query(self) -> dict[str, str]:
        """Query parameters; of repeated ones the last counts."""
        parsed = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        return {key: values[-1] for key, values in parsed.items()}

    async def body(self) -> bytes:
        """Read the whole body; raises BodyTooLarge or Disconnected."""
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > BODY_LIMIT:
                raise BodyTooLarge
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)

    async def disconnected(self) -> None:
        """Return when the caller has gone away."""
        while (await self.receive())["type"] != "http.disconnect":
            continue


async def while_connected(request: Request, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, whose request body has been read; cancel it and raise Disconnected when the caller goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.disconnected())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Disconnected
        task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def send_answer(send: Send, answer: Answer, *, head: bool = False) -> None:
    """Send a complete response; with `head` only its headers."""
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *((key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in answer.headers),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


async def start_stream(send: Send, content_type: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Begin a chunked response of status 200."""
    start = {"type": "http.response.start", "status": 200}
    await send(start | {"headers": [(b"content-type", content_type.encode()), *headers]})


async def send_chunk(send: Send, chunk: bytes) -> None:
    """Send one piece of a response begun with `start_stream`."""
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def end_stream(send: Send) -> None:
    """Finish a response begun with `start_stream`."""
    await send({"type": "http.response.body", "body": b""})


class Listener:
    """One listening address."""

    def __init__(self, server: asyncio.Server, state: ServerState) -> None:
        self._server = server
        self._state = state

    @property
    def address(self) -> tuple[str, int]:
        """Host and port really bound."""
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    def close(self) -> None:
        """Stop listening and drop every connection at once, as a killed process does."""
        self._server.close()
        for connection in list(self._state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()
        for task in list(self._state.tasks):
            task.cancel()


async def listen(
    app: App, host: str, port: int, *, server_header: str = "uvicorn", tls: ssl.SSLContext | None = None
) -> Listener:
    """Serve `app` on host and port (0 = any free one); OSError when the address cannot be bound."""
    config = Config(
        app,
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
    )
    config.load()
    state = ServerState()
    state.default_headers = [(b"server", server_header.encode())]
    loop = asyncio.get_running_loop()

    def protocol() -> HttpToolsProtocol:
        return HttpToolsProtocol(config=config, server_state=state, app_state={}, _loop=loop)

    server = await loop.create_server(protocol, host, port, backlog=512, ssl=tls)
    return Listener(server, state)
