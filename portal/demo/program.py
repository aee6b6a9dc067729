"""What the supervisor needs to know of one program, and how it asks whether the program is ready."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

Ready = Callable[[], Awaitable[bool]]
PATIENCE = 2.0


@dataclass(frozen=True)
class Program:
    """One child process. `once` ends by itself with status 0 before those that come after it start."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    once: bool = False
    ready: Ready | None = None  # without one it is ready when it has lived for a moment
    ready_seconds: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 5.0
    stdout: Path | None = None  # a file of its own in place of the log
    before: Callable[[], None] | None = None
    finish: Callable[[], None] | None = None  # called when it is ready (or, with `once`, done) for the first time


def listens(port: int, host: str = "127.0.0.1") -> Ready:
    """Ready when the port takes connections."""
    return replies(port, b"", b"", host=host)


def replies(port: int, request: bytes, expected: bytes, *, host: str = "127.0.0.1") -> Ready:
    """Ready when the server answers `request` with `expected` somewhere in its first reply."""

    async def check() -> bool:
        reply = await _exchange(host, port, request)
        return reply is not None and expected in reply

    return check


def answers(url: str, *, anything: bool = False) -> Ready:
    """Ready when GET `url` answers 2xx, or with `anything` whatever is no server error; trusts any certificate."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    tls = _trust_anyone() if parts.scheme == "https" else None
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()

    async def check() -> bool:
        reply = await _exchange(host, port, request, tls)
        status = (reply or b"").split(b" ", 2)[1:2]
        if not status or not status[0].isdigit():
            return False
        return 200 <= int(status[0]) < (500 if anything else 300)

    return check


async def _exchange(host: str, port: int, request: bytes, tls: ssl.SSLContext | None = None) -> bytes | None:
    """Send `request` and return the first piece of the reply; None when nobody answers in time."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                if not request:
                    return b""
                writer.write(request)
                return await reader.read(4096)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None


def _trust_anyone() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
