"""Container logs: the newest lines of the running container and of the one before it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

MOST_BYTES = 512 * 1024  # kept for each container, like a log file rotated by size
MESSAGE_BYTES, MESSAGE_LINES = 2048, 80  # of the termination message taken from a log


@dataclass(frozen=True)
class Line:
    """One line and when it was written, seconds since the epoch."""

    at: float
    text: str


class LogFile:
    """The output of one run of a container."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque()
        self._size = 0
        self._dropped = 0
        self._grown = asyncio.Event()
        self.closed = False

    def write(self, text: str) -> None:
        """Append lines."""
        now = time.time()
        for part in text.split("\n"):
            self._lines.append(Line(now, part))
            self._size += len(part) + 1
        while self._size > MOST_BYTES and len(self._lines) > 1:
            self._size -= len(self._lines.popleft().text) + 1
            self._dropped += 1
        self._wake()

    def close(self) -> None:
        """The container ended; followers come to an end."""
        self.closed = True
        self._wake()

    def lines(self) -> list[Line]:
        """Everything kept."""
        return list(self._lines)

    def tail(self) -> str:
        """The end of the log as a termination message."""
        text = "\n".join(line.text for line in list(self._lines)[-MESSAGE_LINES:])
        return text.encode()[-MESSAGE_BYTES:].decode(errors="ignore")

    async def follow(self, start: int | None = None) -> AsyncIterator[Line]:
        """Yield lines from number `start` (counted from the first ever written; None = now) until closed."""
        position = self.end if start is None else start
        while True:
            grown = self._grown
            fresh = list(self._lines)[max(0, position - self._dropped) :]
            position = self.end
            for line in fresh:
                yield line
            if position < self.end:
                continue
            if self.closed:
                return
            await grown.wait()

    @property
    def end(self) -> int:
        """The number of the next line."""
        return self._dropped + len(self._lines)

    def _wake(self) -> None:
        # Followers of one log share the event: each looks again and waits on the next one.
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


class ContainerLogs:
    """The current and the previous log of one container."""

    def __init__(self) -> None:
        self.current: LogFile | None = None
        self.previous: LogFile | None = None

    def start(self) -> LogFile:
        """Begin the log of a new run."""
        if self.current is not None:
            self.current.close()
            self.previous = self.current
        self.current = LogFile()
        return self.current


@dataclass(frozen=True)
class LogQuery:
    """Which part of a log is wanted."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: float | None = None  # seconds since the epoch
    limit_bytes: int | None = None

    def select(self, lines: Iterable[Line]) -> list[Line]:
        """Apply `since` and `tail_lines`."""
        chosen = [line for line in lines if self.since is None or line.at >= self.since]
        if self.tail_lines is not None:
            chosen = chosen[-self.tail_lines :] if self.tail_lines else []
        return chosen

    def render(self, line: Line) -> bytes:
        """One line as sent."""
        stamp = rfc3339_nano(line.at) + " " if self.timestamps else ""
        return f"{stamp}{line.text}\n".encode()


def rfc3339_nano(at: float) -> str:
    """A time as the kubelet writes it in logs."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
