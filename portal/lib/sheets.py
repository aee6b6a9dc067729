"""Long exports: lines of CSV or JSON, made while they are sent, whatever the number of rows."""

from __future__ import annotations

import csv
import io
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from tempfile import SpooledTemporaryFile
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections, connection
from django.http import HttpRequest, StreamingHttpResponse

# Bytes of a spooled export in memory, and of one piece of its answer.
IN_MEMORY, PIECE = 1 << 20, 1 << 16
# So often, in seconds, it is asked anew whether somebody may have the rest of an export.
ASKED_EVERY = 5.0
CUT_SHORT = "This export ends here: who asked for it may not see more of it any longer."
# What a spreadsheet takes for the beginning of a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula: text that looks like one begins with an apostrophe."""
    text = value if isinstance(value, str | int | float) or value is None else orjson.dumps(value).decode()
    return f"'{text}" if isinstance(text, str) and _begins_as_formula(text) else text


def _begins_as_formula(text: str) -> bool:
    if text.startswith(FORMULA):
        return True
    # A spreadsheet leaves out blanks and what nobody sees in front, and reads full-width signs as others.
    for char in text:
        if unicodedata.category(char) not in {"Zs", "Cf", "Cc", "Zl", "Zp"}:
            return unicodedata.normalize("NFKC", char).startswith(FORMULA)
    return False


def csv_chunks(header: Sequence[str], chunks: Iterable[Iterable[Sequence[Any]]]) -> Iterator[bytes]:
    """CSV for chunks of rows; each chunk becomes one piece of the answer."""
    yield _csv([header])
    for chunk in chunks:
        yield _csv([[cell(value) for value in row] for row in chunk])


def json_chunks(chunks: Iterable[Iterable[Any]]) -> Iterator[bytes]:
    """One JSON document a line."""
    option = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    for chunk in chunks:
        yield b"".join(orjson.dumps(row, option=option) for row in chunk)


def spooled(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, all made now and kept in a temporary file: what a slow reader reads holds no connection.

    Memory stays at a mebibyte, however many there are.
    """
    file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - who reads it to its end closes it
    for piece in pieces:
        file.write(piece)
    file.seek(0)
    return _read(file)


def while_allowed(pieces: Iterator[bytes], allowed: Callable[[], bool], last: bytes) -> Iterator[bytes]:
    """The pieces for as long as `allowed` says so, asked every few seconds; `last` in the place of all that follow."""
    asked = time.monotonic()
    for piece in pieces:
        if time.monotonic() - asked >= ASKED_EVERY:
            if not allowed():
                yield last
                return
            asked = time.monotonic()
        yield piece


def _read(file: SpooledTemporaryFile[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece


def download(request: HttpRequest, pieces: Iterator[bytes], *, filename: str, kind: str) -> StreamingHttpResponse:
    """The answer that sends the pieces as they are made.

    Between two of them it gives its database connection back: whoever reads slowly keeps none from the others.
    """
    released = _released(pieces)
    content = _asynchronous(released) if isinstance(request, ASGIRequest) else released
    answer = StreamingHttpResponse(content, content_type=kind)
    answer["Content-Disposition"] = f'attachment; filename="{filename}"'
    answer["Cache-Control"] = "no-store"
    return answer


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _released(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if not connection.in_atomic_block:
            close_old_connections()
        yield piece


async def _asynchronous(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    # Django would collect all pieces of a plain iterator before it sends the first.
    take = sync_to_async(lambda: next(pieces, None), thread_sensitive=True)
    while (piece := await take()) is not None:
        yield piece
