"""One request on its way through the gateway."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from metering.tokens import MOST_READ, Meter, asking_for_usage
from sandbox.asgi import Answer, Receive, Scope, Send, json_answer, send_answer

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "requests",
}


class CallerGone(Exception):
    """The caller closed the connection before its answer was complete."""


class RightLost(Exception):
    """The caller lost the right to the answer that is under way."""


@dataclass
class Exchange:
    """One request on its way; `started` once part of the answer was sent."""

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    headers: dict[str, str]
    began: float
    namespace: str = ""
    name: str = ""
    status: int = 0
    started: bool = False
    body_touched: bool = False
    body: bytes | None = None  # where it was read before it is passed on
    begun: bytes = b""  # of a body too large for that
    sent_bytes: int = 0
    hide_usage: bool = False  # the caller did not ask for the usage that the engine was asked for
    meter: Meter | None = None  # of a caller with a key

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> Exchange:
        """A request that has just come in; an id that it brings and that can be written into a log is kept."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        return cls(scope, receive, send, request_id, headers, time.perf_counter())

    @property
    def has_body(self) -> bool:
        """True where a body was announced."""
        return "content-length" in self.headers or "transfer-encoding" in self.headers

    @property
    def raw_path(self) -> str:
        """The path as it came, undecoded and without the query."""
        raw: bytes = self.scope.get("raw_path") or str(self.scope["path"]).encode()
        return raw.split(b"?")[0].decode("latin-1")

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer of the gateway's own."""
        self.started, self.status = True, answer.status
        extra = (*answer.headers, ("x-request-id", self.request_id))
        whole = Answer(answer.status, answer.body, answer.content_type, extra)
        await send_answer(self.send, whole, head=self.scope["method"] == "HEAD")

    async def refuse(self, status: int, code: str, message: str, kind: str = "", **headers: str) -> None:
        """Send an error as OpenAI spells them."""
        kind = kind or _KINDS.get(status, "server_error")
        error = {"message": message, "type": kind, "param": None, "code": code}
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.answer(json_answer({"error": error}, status, spelled))


async def read_body(exchange: Exchange) -> None:
    """Read the body, so that a stream can be made to tell its usage; a large one is passed on as it comes."""
    if not exchange.has_body:
        return
    body = b""
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        body += message.get("body", b"")
        if len(body) > MOST_READ and message.get("more_body"):
            exchange.begun, exchange.body_touched = body, True
            return
        if not message.get("more_body"):
            break
    asking = asking_for_usage(exchange.raw_path, body)
    exchange.hide_usage = asking is not None
    exchange.body, exchange.sent_bytes = asking or body, len(body)


async def rest_of_body(exchange: Exchange, sent: asyncio.Event) -> AsyncIterator[bytes]:
    """The body as it comes; `sent` is set at its end."""
    exchange.body_touched = True
    if exchange.begun:
        exchange.sent_bytes = len(exchange.begun)
        yield exchange.begun
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        if message.get("body"):
            exchange.sent_bytes += len(message["body"])
            yield message["body"]
        if not message.get("more_body"):
            sent.set()
            return
