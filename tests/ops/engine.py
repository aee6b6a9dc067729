"""A model's server as small as can be, which notes what it is sent and behaves as the request's `model` says."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import dataclass, field
from typing import Any

import orjson

from portal.live.http import Receive, Scope, Send

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
WORDS = ("A", " slipway", " is", " a", " ramp")


def event(document: Any) -> bytes:
    """One server-sent event of OpenAI's streams."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


PIECES = [event({"choices": [{"delta": {"content": word}}]}) for word in WORDS]
LAST = event({"choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"
WAITS = {"waits": 1, "dies": 3}  # after so many pieces
WHOLE = orjson.dumps({"choices": [{"message": {"content": "".join(WORDS)}}], "usage": USAGE})


@dataclass
class Asked:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def wish(self) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(self.body)
        return document


@dataclass
class Engine:
    """The ASGI application. Models: `refuses`, `packs` whatever it is asked, `slices` events.

    In the middle of a stream `waits` waits until it is released, and `dies` dies then.
    """

    asked: list[Asked] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        asked = Asked(scope["path"], headers, body)
        self.asked.append(asked)
        try:
            wish = asked.wish if scope["method"] == "POST" else {}
        except orjson.JSONDecodeError:
            wish = {"model": "refuses"}
        model = wish.get("model", "")
        if model == "refuses":
            await _answer(send, 400, b'{"error": {"message": "no"}}')
        elif wish.get("stream"):
            await self._stream(send, model, bool((wish.get("stream_options") or {}).get("include_usage")))
        elif model == "packs" or "gzip" in headers.get("accept-encoding", ""):
            await _answer(send, 200, gzip.compress(WHOLE), (b"content-encoding", b"gzip"))
        else:
            await _answer(send, 200, WHOLE)

    async def _stream(self, send: Send, model: str, usage: bool) -> None:
        start = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        parts = [*PIECES, *([LAST] if usage else []), DONE]
        if model == "slices":
            whole = b"".join(parts)
            parts = [whole[at : at + 9] for at in range(0, len(whole), 9)]
        for number, part in enumerate(parts):
            if number == WAITS.get(model):
                await self.release.wait()
                if model == "dies":
                    raise ConnectionResetError("the engine is gone")
            await send({"type": "http.response.body", "body": part, "more_body": True})
            if model == "slices":
                await asyncio.sleep(0.002)  # so that each slice travels alone
        await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
