"""HTTP in front of the language model: OpenAI chat and text completions, streamed or whole, and readiness."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import orjson

from sandbox.asgi import (
    Answer,
    BodyTooLarge,
    Disconnected,
    Receive,
    Request,
    Scope,
    Send,
    end_stream,
    json_answer,
    send_answer,
    send_chunk,
    start_stream,
    while_connected,
)
from sandbox.model.llm import BadQuestion, Busy, LanguageModel, Unavailable

log = logging.getLogger(__name__)

KINDS = {"/v1/chat/completions": "chat", "/v1/completions": "text"}


class ModelServer:
    """The ASGI application."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        kind = KINDS.get(request.path)
        if request.method == "GET" and request.path in ("/health", "/readyz"):
            state = {"status": "ok", "loaded": self.model.ready, "waiting": self.model.waiting}
            await send_answer(send, json_answer(state))
        elif request.method == "POST" and kind is not None:
            await self._complete(kind, request, send)
        else:
            await send_answer(send, _error(404, "Not Found"))

    async def _complete(self, kind: str, request: Request, send: Send) -> None:
        try:
            body = orjson.loads(await request.body())
        except Disconnected:
            return
        except (orjson.JSONDecodeError, BodyTooLarge) as error:
            await send_answer(send, _error(400, f"unreadable request: {type(error).__name__}"))
            return
        wanted = "messages" if kind == "chat" else "prompt"
        if not isinstance(body, dict) or not body.get(wanted):
            await send_answer(send, _error(400, f"{wanted} is missing"))
            return
        chunks = self.model.stream(kind, body)
        try:
            first = await anext(chunks)
        except Busy:
            await send_answer(send, _error(503, "The sandbox's language model is busy; try again in a few seconds."))
            return
        except BadQuestion as error:
            await send_answer(send, _error(400, str(error)))
            return
        except (Unavailable, StopAsyncIteration) as error:
            await send_answer(send, _error(503, f"The sandbox's language model cannot answer: {error}"))
            return
        streams = bool(body.get("stream"))
        work = _send_events(first, chunks, send) if streams else _send_whole(kind, first, chunks, send)
        try:
            await while_connected(request, work)
        except Disconnected:
            return
        except (BadQuestion, Unavailable) as error:
            log.warning("an answer broke off: %s", error)  # uvicorn ends the connection, so the caller sees it too
        finally:
            await chunks.aclose()


async def _send_events(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]], send: Send) -> None:
    await start_stream(send, "text/event-stream; charset=utf-8")
    await send_chunk(send, b"data: " + orjson.dumps(first) + b"\n\n")
    async for chunk in rest:
        await send_chunk(send, b"data: " + orjson.dumps(chunk) + b"\n\n")
    await send_chunk(send, b"data: [DONE]\n\n")
    await end_stream(send)


async def _send_whole(kind: str, first: dict[str, Any], rest: AsyncIterator[dict[str, Any]], send: Send) -> None:
    await send_answer(send, json_answer(await _whole(kind, first, rest)))


async def _whole(kind: str, first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    """Join chunks into one completion."""
    text, finish = "", None
    usage: dict[str, Any] = {}
    chunk = first
    more = True
    while more:
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices", []):
            text += (choice["delta"].get("content") if kind == "chat" else choice.get("text")) or ""
            finish = choice.get("finish_reason") or finish
        try:
            chunk = await anext(rest)
        except StopAsyncIteration:
            more = False
    choice = {"index": 0, "finish_reason": finish}
    choice |= {"message": {"role": "assistant", "content": text}} if kind == "chat" else {"text": text}
    return {
        "id": first.get("id"),
        "object": first["object"].removesuffix(".chunk"),
        "choices": [choice],
        "usage": usage,
    }


def _error(status: int, message: str) -> Answer:
    return json_answer({"error": {"message": message, "type": "sandbox_model", "code": status}}, status)
