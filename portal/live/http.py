"""The little HTTP that the streams need, on bare ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import orjson

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SAFE_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (b"referrer-policy", b"same-origin"),
    # Proxies must hand lines on as they come.
    (b"x-accel-buffering", b"no"),
)
KEEP_ALIVE_SECONDS = 15.0
BODY_SECONDS = 5.0
MOST_PARAMETERS = 20


class Refused(Exception):
    """An answer other than the one asked for: a status, a code for programs and a sentence for people.

    `pointer` names what is wrong of the request, where one thing is: `/max_tokens` in the body, `?tail` in the address.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        pointer: str = "",
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.pointer = pointer
        self.headers = tuple(headers)

    @property
    def field(self) -> str:
        """The bare name of what is wrong; empty where it is no single thing."""
        return self.pointer.lstrip("?/").partition("/")[0]


class Gone(Exception):
    """The person on the other side has closed the page."""


def query_of(scope: Scope, *names: str) -> dict[str, str]:
    """The query string, in which only these names may stand, each once; Refused with 422 otherwise."""
    try:
        pairs = parse_qsl(
            scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_PARAMETERS
        )
    except ValueError:
        raise Refused(422, "invalid", f"At most {MOST_PARAMETERS} parameters.") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            known = f"Known here: {', '.join(names)}." if names else "None are known here."
            raise Refused(
                422, "unknown_parameter", f"“{name[:60]}” is not a parameter. {known}", pointer=f"?{name[:60]}"
            )
        if name in query:
            raise Refused(422, "invalid", f"“{name}” is given twice.", pointer=f"?{name}")
        query[name] = value
    return query


def header_of(scope: Scope, name: bytes) -> str:
    """One header as text; empty when it is not there."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def body_of(receive: Receive, *, most: int, seconds: float = BODY_SECONDS) -> bytes:
    """The whole body; Refused with 413 when it is larger than `most` bytes, with 408 when it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await _whole_body(receive, most)
    except TimeoutError:
        raise Refused(408, "too_slow", f"The request did not arrive within {seconds:g} s.") from None


async def _whole_body(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise Refused(413, "too_large", f"At most {most // 1024} KiB can be sent.")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def send_json(send: Send, status: int, data: Any, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """One JSON answer."""
    await send_bytes(send, status, orjson.dumps(data), b"application/json", extra)


async def send_bytes(
    send: Send, status: int, data: bytes, content_type: bytes, extra: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """One whole answer."""
    headers = [(b"content-type", content_type), (b"content-length", str(len(data)).encode()), *SAFE_HEADERS, *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def event(name: str, data: Any) -> bytes:
    """One server-sent event; JSON holds no line break, so nothing can end it early."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


async def send_stream(
    receive: Receive,
    send: Send,
    parts: AsyncIterator[bytes],
    *,
    over: asyncio.Event | None = None,
    last: bytes = b"",
) -> None:
    """Server-sent events until they end or the page is closed; a comment now and then keeps proxies awake.

    Once `over` is set nothing more of `parts` is sent: `last` is the end.
    """
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), *SAFE_HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with until_gone(receive) as gone:
        upcoming = asyncio.ensure_future(anext(parts, None))
        called_off = asyncio.ensure_future((over or asyncio.Event()).wait())
        try:
            while True:
                waited: set[asyncio.Future[Any]] = {upcoming, gone, called_off}
                await asyncio.wait(waited, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                if called_off.done():
                    await send({"type": "http.response.body", "body": last, "more_body": True})
                    break
                if not upcoming.done():
                    await send({"type": "http.response.body", "body": b": \n\n", "more_body": True})
                    continue
                part = upcoming.result()
                if part is None:
                    break
                await send({"type": "http.response.body", "body": part, "more_body": True})
                upcoming = asyncio.ensure_future(anext(parts, None))
        finally:
            upcoming.cancel()
            called_off.cancel()
            await asyncio.gather(upcoming, called_off, return_exceptions=True)
            close = getattr(parts, "aclose", None)
            if close is not None:
                await close()
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def until_gone(receive: Receive) -> AsyncIterator[asyncio.Future[None]]:
    """A future that is done when the other side has hung up."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(watch())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
