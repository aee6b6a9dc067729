"""A prompt from the page to the deployment's endpoint and its answer back, measured on the way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from django.conf import settings

from deployments.models import Deployment
from deployments.services import invoke
from deployments.services.errors import DomainError
from portal.lib import outbound
from portal.live.callers import Caller
from portal.live.http import Refused, event

MOST_BODY = 256 * 1024
MOST_MESSAGES = 100
MOST_TOKENS = 4096
FIELDS = ("messages", "max_tokens", "temperature")
ROLES = frozenset({"system", "user", "assistant"})
# A queue of requests before ours is silence too.
IDLE_SECONDS = 120.0
# 4096 tokens at a crawl take minutes; an answer that takes longer is no answer.
TOTAL_SECONDS = 600.0
ERROR_SECONDS = 5.0
LONGEST_LINE = 1024 * 1024
MOST_ANSWER = 16 * 1024 * 1024
MOST_ERROR = 64 * 1024


@dataclass
class Meter:
    """Times of one answer, in seconds of a clock that never jumps."""

    began: float = field(default_factory=time.perf_counter)
    first: float | None = None
    last: float | None = None
    chunks: int = 0
    tokens: int | None = None
    finish_reason: str = ""

    def text(self) -> None:
        """Some text has come."""
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.chunks += 1

    def figures(self) -> dict[str, Any]:
        """TTFT and duration in ms, tokens per second after the first token (null when there was only one)."""
        now = time.perf_counter()
        tokens = self.tokens if self.tokens is not None else self.chunks
        span = (self.last or now) - (self.first or now)
        return {
            "ttft_ms": ((self.first or now) - self.began) * 1000,
            "total_ms": (now - self.began) * 1000,
            "tokens": tokens,
            "tokens_per_second": (tokens - 1) / span if span > 0 and tokens > 1 else None,
            "finish_reason": self.finish_reason,
        }


def wish_of(body: bytes) -> dict[str, Any]:
    """The request for the endpoint; Refused with 422 when the page sent something else."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(422, "invalid", "This is not JSON.") from None
    if not isinstance(data, dict):
        raise Refused(422, "not_an_object", "The body must be a JSON object.")
    for name in data:
        if name not in FIELDS:
            words = f"“{name[:60]}” is not known here. Known: {', '.join(FIELDS)}."
            raise Refused(422, "unknown_field", words, pointer=f"/{name[:60]}")
    messages = data.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MOST_MESSAGES:
        raise Refused(422, "invalid", f"Send 1 to {MOST_MESSAGES} messages.", pointer="/messages")
    clean = [_message(message, index) for index, message in enumerate(messages)]
    most, temperature = data.get("max_tokens", 256), data.get("temperature", 0.7)
    if isinstance(most, float):
        raise Refused(422, "invalid", "Most tokens must be a whole number.", pointer="/max_tokens")
    return {
        "messages": clean,
        "max_tokens": _number(most, 1, MOST_TOKENS, "Most tokens", "/max_tokens"),
        "temperature": _number(temperature, 0, 2, "Temperature", "/temperature"),
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def target_of(caller: Caller, pk: int) -> tuple[str, str, str]:
    """URL, model name and token for one deployment; Refused with 404 for strangers. Runs in a database thread."""
    row = Deployment.objects.callable_by(caller.principal).select_related("team").filter(pk=pk).first()
    if row is None:
        raise Refused(404, "not_found", "There is no such deployment.")
    try:
        token = invoke.token_for(principal=caller.principal, deployment=row)
    except DomainError as error:
        raise Refused(error.status, error.code, error.message) from None
    url = f"{settings.GATEWAY_URL.rstrip('/')}/{row.team.namespace}/{row.name}/v1/chat/completions"
    return url, row.name, token


async def answer(
    url: str, model: str, token: str, wish: dict[str, Any], *, transport: outbound.StreamTransport | None = None
) -> AsyncIterator[bytes]:
    """Events for the page: delta (text), then done (figures) or error (words)."""
    meter = Meter()
    try:
        async with outbound.stream(
            "POST",
            url,
            operator_origin=settings.GATEWAY_URL,
            headers={"authorization": f"Bearer {token}"},
            json={"model": model, **wish},
            idle_seconds=IDLE_SECONDS,
            seconds=TOTAL_SECONDS,
            transport=transport,
        ) as response:
            if response.status_code != 200:
                yield event("error", {"message": await _why_not(response)})
                return
            async for chunk in _chunks(response):
                if problem := _problem(chunk):
                    yield event("error", {"message": problem})
                    return
                if text := _take(chunk, meter):
                    yield event("delta", {"text": text})
    except outbound.OutboundError as error:
        yield event("error", {"message": _words(error)})
        return
    yield event("done", meter.figures())


async def _chunks(response: outbound.Stream) -> AsyncIterator[dict[str, Any]]:
    async for line in outbound.lines(response, longest=LONGEST_LINE, most=MOST_ANSWER, seconds=TOTAL_SECONDS):
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:"):
            continue
        if data == "[DONE]":
            return
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            continue
        if isinstance(chunk, dict):
            yield chunk


def _take(chunk: dict[str, Any], meter: Meter) -> str:
    """Note what a chunk says, and return its text."""
    usage = chunk.get("usage")
    if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
        meter.tokens = usage["completion_tokens"]
    choices = chunk.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if isinstance(choice.get("finish_reason"), str):
        meter.finish_reason = choice["finish_reason"][:40]
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else None
    if not isinstance(text, str) or not text:
        return ""
    meter.text()
    return text


def _problem(chunk: dict[str, Any]) -> str:
    error = chunk.get("error")
    if error is None:
        return ""
    return str(error.get("message") if isinstance(error, dict) else error)[:500] or "The engine reported an error."


async def _why_not(response: outbound.Stream) -> str:
    body = await outbound.beginning(response, most=MOST_ERROR, seconds=ERROR_SECONDS)
    try:
        said = _problem(orjson.loads(body))
    except (orjson.JSONDecodeError, AttributeError):
        said = ""
    words = {
        401: "The gateway did not accept the token.",
        403: "The gateway does not let you call this deployment.",
        404: "The gateway does not know this endpoint yet.",
        503: "No replica can answer just now.",
    }
    return said or words.get(response.status_code, f"The endpoint answered {response.status_code}.")


def _words(error: outbound.OutboundError) -> str:
    if error.code == "timeout":
        return "The endpoint did not answer in time."
    if error.code in {"too_large", "bad_answer"}:
        return "The endpoint answered with something that cannot be read."
    return "The gateway cannot be reached just now."


def _message(message: Any, index: int) -> dict[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    # A role may be anything, also what cannot be looked up in a set.
    if not isinstance(role, str) or role not in ROLES or not isinstance(content, str):
        words = "Each message needs a role (system, user or assistant) and text."
        raise Refused(422, "invalid", words, pointer=f"/messages/{index}")
    return {"role": role, "content": content}


def _number(value: Any, least: float, most: float, name: str, pointer: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Refused(422, "invalid", f"{name} must be a number from {least} to {most:,}.", pointer=pointer)
    return value
