"""The OpenAI bodies that vLLM reads and writes."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from sandbox.asgi import Answer, json_answer
from sandbox.engine import tokens

NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "n", "seed")


class Refused(Exception):
    """The request is answered with an error body."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param


@dataclass(frozen=True)
class Wish:
    """A valid completion request. `prompt_tokens` are estimated for text."""

    chat: bool
    body: dict[str, Any]
    model: str
    prompt: str | list[int]
    prompt_tokens: int
    max_tokens: int
    stream: bool
    include_usage: bool
    fixed_length: bool
    transfer: dict[str, Any] | None = None  # between an engine that prefills and one that decodes


def read_wish(body: Any, *, chat: bool, names: tuple[str, ...], context: int) -> Wish:
    """Check a body as vLLM does; raises Refused."""
    if not isinstance(body, dict):
        raise _missing("body", "Input should be a valid dictionary", body)
    wanted = "messages" if chat else "prompt"
    if not body.get(wanted):
        raise _missing(wanted, "Field required", body)
    model = body.get("model") or names[0]
    if model not in names:
        raise Refused(404, f"The model `{model}` does not exist.", "NotFoundError", "model")
    _check_numbers(body)
    if (body.get("n") or 1) != 1:
        raise Refused(
            400, "This sandbox engine makes one choice for each request: n must be 1.", "BadRequestError", "n"
        )
    prompt = _prompt(body, chat=chat)
    prompt_tokens = tokens.count(prompt)
    limit = body.get("max_completion_tokens") if chat else None
    limit = body.get("max_tokens") if limit is None else limit
    if limit is None and not chat:
        limit = 16
    _check_length(prompt_tokens, limit, context)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _missing("stream_options", "Input should be a valid dictionary", options)
    return Wish(
        chat=chat,
        body=body,
        model=model,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        max_tokens=int(limit) if limit is not None else context - prompt_tokens,
        stream=bool(body.get("stream")),
        include_usage=bool(options.get("include_usage")),
        fixed_length=bool(body.get("ignore_eos")) or bool(body.get("min_tokens")),
        transfer=body["kv_transfer_params"] if isinstance(body.get("kv_transfer_params"), dict) else None,
    )


def _check_numbers(body: dict[str, Any]) -> None:
    for name in NUMBERS:
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise _missing(name, "Input should be a valid number", value)


def _prompt(body: dict[str, Any], *, chat: bool) -> str | list[int]:
    if chat:
        messages = body["messages"]
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise _missing("messages", "Input should be a valid list", messages)
        return tokens.chat_prompt(messages)
    prompt = body["prompt"]
    if isinstance(prompt, list):
        if all(isinstance(item, int) for item in prompt):
            return prompt
        if len(prompt) == 1 and isinstance(prompt[0], str):
            return prompt[0]
        raise Refused(400, "This sandbox engine takes one prompt for each request.", "BadRequestError", "prompt")
    return str(prompt)


def _check_length(prompt_tokens: int, limit: Any, context: int) -> None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise Refused(400, f"max_tokens must be at least 1, got {limit}.", "BadRequestError", "max_tokens")
    asked = limit if limit is not None else 1
    if prompt_tokens + asked > context:
        raise Refused(
            400,
            f"This model's maximum context length is {context} tokens. However, you requested {limit or 0} output "
            f"tokens and your prompt contains at least {prompt_tokens} input tokens, for a total of at least "
            f"{prompt_tokens + (limit or 0)} tokens. Please reduce the length of the input prompt or the number of "
            "requested output tokens.",
            "BadRequestError",
            "input_tokens",
        )


def _missing(name: str, text: str, value: Any) -> Refused:
    kind = "missing" if text == "Field required" else "type_error"
    detail = [{"type": kind, "loc": ("body", name), "msg": text, "input": value}]
    return Refused(400, f"{len(detail)} validation error:\n  {detail[0]}", "Bad Request")


def error_body(status: int, message: str, kind: str, param: str | None = None) -> Answer:
    """An OpenAI error response as vLLM writes it."""
    return json_answer({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)


class Writer:
    """Writes chunks and whole answers of one completion."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        prefix = "chatcmpl" if wish.chat else "cmpl"
        self.head: dict[str, Any] = {
            "id": f"{prefix}-{uuid.uuid4().hex[:16]}",
            "object": "chat.completion" if wish.chat else "text_completion",
            "created": int(time.time()),
            "model": wish.model,
        }

    def opening(self) -> dict[str, Any] | None:
        """The chunk that names the role; chat only."""
        return self._chunk({"role": "assistant", "content": ""}, None) if self.wish.chat else None

    def chunk(self, text: str, finish: str | None) -> dict[str, Any]:
        """Some text, and the reason when it was the last."""
        return self._chunk({"content": text} if self.wish.chat else text, finish)

    def usage_chunk(self, completion_tokens: int) -> dict[str, Any]:
        """The last chunk when usage was asked for."""
        return self._chunk_head() | {"choices": [], "usage": self.usage(completion_tokens)}

    def whole(
        self, text: str, finish: str, completion_tokens: int, transfer: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The body of a request that did not stream; `transfer` tells where the prompt's cache can be had."""
        choice: dict[str, Any] = {"index": 0}
        if self.wish.chat:
            choice["message"] = {
                "role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None,
                "function_call": None, "tool_calls": [], "reasoning": None,
            }  # fmt: skip
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": finish, "stop_reason": None, "token_ids": None}
        rest = {"service_tier": None, "system_fingerprint": None, "usage": self.usage(completion_tokens)}
        return self.head | {"choices": [choice]} | rest | {"prompt_logprobs": None, "kv_transfer_params": transfer}

    def usage(self, completion_tokens: int) -> dict[str, Any]:
        """Token counts."""
        prompt = self.wish.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": None,
        }

    def _chunk_head(self) -> dict[str, Any]:
        return self.head | ({"object": "chat.completion.chunk"} if self.wish.chat else {})

    def _chunk(self, content: Any, finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, ("delta" if self.wish.chat else "text"): content, "logprobs": None}
        return self._chunk_head() | {"choices": [choice | {"finish_reason": finish}]}
