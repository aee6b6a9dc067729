"""How many tokens an answer took, read from what passes by. Pure.

Engines say so at the end: in the answer itself, or in the last event of a stream that asked for it. A stream that did
not ask is made to (`asking_for_usage`), and the event that the caller never asked for is kept back. Where nothing is
said, because the caller left or the body cannot be read, the tokens are estimated: one for each piece of a stream, one
for each four bytes of a prompt or of an answer that is packed.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import orjson

BYTES_PER_TOKEN = 4
MOST_READ = 4 * 1024 * 1024  # bytes of a request that are read before it is passed on, to ask for usage
MOST_HELD = 4 * 1024 * 1024  # bytes of an answer, or of one event, that are looked at
STREAMING = ("/chat/completions", "/completions")
YES = {"true", "1", "1.0", "t", "y", "yes", "on"}
EVENT_STREAM = "text/event-stream"
_END = re.compile(rb"(\r?\n\r?\n)")


def may_stream(path: str) -> bool:
    """True where a request can ask for a stream, and the stream for usage; `path` is without its query."""
    return unquote(path).endswith(STREAMING)


def asking_for_usage(path: str, body: bytes) -> bytes | None:
    """The body of a request that streams, asking for usage at the end; None where it already does or cannot."""
    if not may_stream(path):
        return None
    try:
        wish: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(wish, dict) or not _means_yes(wish.get("stream")):
        return None
    options = wish.get("stream_options")
    if options is None:
        options = {}
    if not isinstance(options, dict) or options.get("include_usage"):
        return None
    return orjson.dumps({**wish, "stream_options": {**options, "include_usage": True}})


class Meter:
    """Reads one answer: give it each piece, and pass on what it gives back.

    One that came packed (`encoding`, as the header says) passes as it is.
    """

    def __init__(self, *, content_type: str = "", encoding: str = "", hide: bool = False) -> None:
        packed = encoding.strip().lower() not in ("", "identity")
        self._stream = content_type.strip().lower().startswith(EVENT_STREAM) and not packed
        self._hide = hide and self._stream
        self._held = b""
        self._lost = False  # too large to be looked at
        self._size = 0
        self._pieces = 0
        self._usage: tuple[int, int] | None = None

    def feed(self, piece: bytes) -> bytes:
        """Look at a piece of the answer; what is to be passed on now."""
        self._size += len(piece)
        if self._stream:
            return self._events(piece)
        if not self._lost:
            self._held += piece
            if len(self._held) > MOST_HELD:
                self._held, self._lost = b"", True
        return piece

    def end(self) -> bytes:
        """The answer is whole; what is still to be passed on."""
        held, self._held = self._held, b""
        if self._stream:
            if held:
                self._look(held)
            return held if self._hide else b""
        document = _parsed(held)
        if document is not None and not self._note(document):
            self._usage = (0, 0)  # a list of models, for one
        return b""

    def tokens(self, prompt_bytes: int) -> tuple[int, int]:
        """Tokens of the prompt and of the answer: as the engine said, else estimated."""
        if self._usage is not None:
            return self._usage
        made = self._pieces if self._stream else self._size // BYTES_PER_TOKEN
        return prompt_bytes // BYTES_PER_TOKEN, made

    def _events(self, piece: bytes) -> bytes:
        passed = []
        *ended, self._held = _END.split(self._held + piece)
        for event, end in zip(ended[::2], ended[1::2], strict=True):
            only_usage = self._look(event)
            if not (self._hide and only_usage):
                passed.append(event + end)
        if len(self._held) > MOST_HELD:
            passed.append(self._held)
            self._held = b""
        return b"".join(passed) if self._hide else piece

    def _look(self, event: bytes) -> bool:
        """Count one event; True when it carries usage and nothing else."""
        lines = event.split(b"\n")
        data = b"".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
        document = _parsed(data)
        if document is None:
            return False
        had = self._note(document)
        choices = document.get("choices")
        if had and choices == []:
            return True
        self._pieces += 1
        return False

    def _note(self, document: dict[str, Any] | None) -> bool:
        """Keep the usage that a document tells; True when it does."""
        if document is None:
            return False
        inner = document.get("response")
        usage = document.get("usage") or (inner.get("usage") if isinstance(inner, dict) else None)
        if not isinstance(usage, dict):
            return False
        self._usage = (
            _number(usage, "prompt_tokens", "input_tokens"),
            _number(usage, "completion_tokens", "output_tokens"),
        )
        return True


def _means_yes(value: Any) -> bool:
    """True where engines read it as true: they take more than JSON's own word, and a stream unseen is half counted."""
    return str(value).lower() in YES


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        document: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _number(usage: dict[str, Any], *names: str) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return 0
