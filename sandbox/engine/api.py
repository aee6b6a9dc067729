"""The HTTP server of one engine: vLLM's OpenAI routes, health, version and metrics."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
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
    text_answer,
    while_connected,
)
from sandbox.engine.builds import NEWEST_VERSION
from sandbox.engine.generation import Runner
from sandbox.engine.metrics import CONTENT_TYPE, Registry
from sandbox.engine.protocol import Refused, Wish, Writer, error_body, read_wish
from sandbox.engine.tokens import count

TRAFFIC_HEADER = "x-slipway-traffic"
UNMEASURED = re.compile("/metrics|/health|/load|/ping|/version|/server_info")
COMPLETIONS = {"/v1/chat/completions": True, "/v1/completions": False}
READS = {"/v1/models", "/health", "/ping", "/version", "/load", "/metrics"}


@dataclass(frozen=True)
class Transfer:
    """Where other engines fetch what this one has computed: an engine with a KV connector."""

    engine: str
    host: str
    port: int
    tensor_parallel: int

    def params(self, blocks: int) -> dict[str, Any]:
        """What a prefilled request answers, for the engine that goes on."""
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_engine_id": self.engine,
            "remote_block_ids": list(range(blocks)),
            "remote_host": self.host,
            "remote_port": self.port,
            "tp_size": self.tensor_parallel,
        }


@dataclass(frozen=True)
class Served:
    """What this server answers for."""

    names: tuple[str, ...]
    root: str
    context: int
    api_keys: tuple[str, ...]
    started: float
    transfer: Transfer | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)  # LoRA: folders by name
    version: str = NEWEST_VERSION

    @property
    def models(self) -> tuple[str, ...]:
        """Every name that a request may give as its model."""
        return (*self.names, *self.adapters)


class EngineApi:
    """The ASGI application of one engine."""

    def __init__(
        self,
        served: Served,
        runner: Runner,
        registry: Registry,
        refresh: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self.served = served
        self.runner = runner
        self.registry = registry
        self.refresh = refresh
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and count it."""
        request = Request(scope, receive)
        exchange = _Exchange(request, send)
        begun = time.monotonic()
        try:
            await self._route(request, exchange)
        except Disconnected:
            exchange.status = exchange.status or 500
        finally:
            self._observe(request, exchange, time.monotonic() - begun)

    async def _route(self, request: Request, exchange: _Exchange) -> None:
        path, method = request.path, request.method
        known = path in COMPLETIONS or path in READS or path == "/tokenize"
        if path.startswith("/v1") and not self._authorised(request):
            await exchange.answer(json_answer({"error": "Unauthorized"}, 401))
        elif not known:
            await exchange.answer(json_answer({"detail": "Not Found"}, 404))
        elif (method == "POST") != (path in COMPLETIONS or path == "/tokenize"):
            await exchange.answer(json_answer({"detail": "Method Not Allowed"}, 405))
        elif path in COMPLETIONS:
            await self._complete(request, exchange, chat=COMPLETIONS[path])
        elif path == "/tokenize":
            await exchange.answer(self._tokenize(await _json_body(request)))
        else:
            await exchange.answer(self._read(path))

    def _authorised(self, request: Request) -> bool:
        if not self.served.api_keys:
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and token in self.served.api_keys

    def _read(self, path: str) -> Answer:
        if path == "/v1/models":
            return json_answer({"object": "list", "data": [self._card(name) for name in self.served.models]})
        if path == "/metrics":
            self.refresh()
            return text_answer(self.registry.text(), content_type=CONTENT_TYPE)
        if path == "/version":
            return json_answer({"version": self.served.version})
        if path == "/load":
            return json_answer({"server_load": len(self.runner.simulator.running)})
        return text_answer("")

    def _card(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": int(self.served.started),
            "owned_by": "vllm",
            "root": self.served.adapters.get(name, self.served.root),
            "parent": self.served.names[0] if name in self.served.adapters else None,
            "max_model_len": self.served.context,
            "permission": [],
        }

    def _tokenize(self, body: Any) -> Answer:
        """Only the count is known here: there is no tokenizer behind a simulated model."""
        text = str(body.get("prompt", "")) if isinstance(body, dict) else ""
        return json_answer({"count": count(text), "max_model_len": self.served.context, "tokens": []})

    async def _complete(self, request: Request, exchange: _Exchange, *, chat: bool) -> None:
        arrival = self.runner.now()
        try:
            body = await _json_body(request)
            wish = read_wish(body, chat=chat, names=self.served.models, context=self.served.context)
            traffic = request.headers.get(TRAFFIC_HEADER) == "1" or self._prefills(wish)
            respond = self._stream if wish.stream else self._whole
            await while_connected(request, respond(wish, exchange, traffic=traffic, arrival=arrival))
        except Refused as refusal:
            failure = error_body(refusal.status, str(refusal), refusal.kind, refusal.param)
            if exchange.status is None:
                await exchange.answer(failure)
            else:
                await exchange.event(orjson.loads(failure.body))
                await exchange.end()

    def _prefills(self, wish: Wish) -> bool:
        """Whether only the prompt's cache is wanted: another engine makes the words."""
        return self.served.transfer is not None and bool((wish.transfer or {}).get("do_remote_decode"))

    def _words(self, wish: Wish, *, traffic: bool, arrival: float) -> AsyncIterator[tuple[str, int, str | None]]:
        brought = self.served.transfer is not None and bool((wish.transfer or {}).get("do_remote_prefill"))
        return self.runner.words(wish, traffic=traffic, arrival=arrival, transferred=brought)

    async def _whole(self, wish: Wish, exchange: _Exchange, *, traffic: bool, arrival: float) -> None:
        pieces: list[str] = []
        made, finish = 0, "stop"
        async for text, tokens, reason in self._words(wish, traffic=traffic, arrival=arrival):
            pieces.append(text)
            made += tokens
            finish = reason or finish
        handed = None
        if self.served.transfer is not None and self._prefills(wish):
            handed = self.served.transfer.params(-(-wish.prompt_tokens // self.runner.simulator.block_size))
        await exchange.answer(json_answer(Writer(wish).whole("".join(pieces), finish, made, handed)))

    async def _stream(self, wish: Wish, exchange: _Exchange, *, traffic: bool, arrival: float) -> None:
        writer = Writer(wish)
        made = 0
        async for text, tokens, reason in self._words(wish, traffic=traffic, arrival=arrival):
            if exchange.status is None:
                await exchange.start()
                opening = writer.opening()
                if opening is not None:
                    await exchange.event(opening)
            made += tokens
            if text or reason:
                await exchange.event(writer.chunk(text, reason))
        if wish.include_usage:
            await exchange.event(writer.usage_chunk(made))
        await exchange.end()

    def _observe(self, request: Request, exchange: _Exchange, seconds: float) -> None:
        """Log the access and count it as prometheus-fastapi-instrumentator does."""
        status = exchange.status or 500
        host, port = request.scope.get("client") or ("127.0.0.1", 0)
        path = request.path
        self.log(f'INFO:     {host}:{port} - "{request.method} {path} HTTP/1.1" {status} {PHRASES.get(status, "")}')
        if UNMEASURED.search(path):
            return
        handler = path if path in COMPLETIONS or path in READS or path == "/tokenize" else "none"
        registry, method = self.registry, request.method
        registry.value("http_requests_total", handler=handler, method=method, status=f"{status // 100}xx").inc()
        received = int(request.headers.get("content-length") or 0)
        registry["http_request_size_bytes"].child(handler=handler).observe(received)
        registry["http_response_size_bytes"].child(handler=handler).observe(exchange.sent)
        registry.histogram("http_request_duration_highr_seconds").observe(seconds)
        registry.histogram("http_request_duration_seconds", handler=handler, method=method).observe(seconds)


PHRASES = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
    413: "Request Entity Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


class _Exchange:
    """The response to one request, with what the metrics want to know of it."""

    def __init__(self, request: Request, send: Send) -> None:
        self.request = request
        self.send = send
        self.status: int | None = None
        self.sent = 0

    async def answer(self, answer: Answer) -> None:
        self.status = answer.status
        self.sent = len(answer.body)
        await send_answer(self.send, answer)

    async def start(self) -> None:
        self.status = 200
        await start_stream(self.send, "text/event-stream; charset=utf-8")

    async def event(self, value: Any) -> None:
        await send_chunk(self.send, b"data: " + orjson.dumps(value) + b"\n\n")

    async def end(self) -> None:
        await send_chunk(self.send, b"data: [DONE]\n\n")
        await end_stream(self.send)


async def _json_body(request: Request) -> Any:
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"JSON decode error: {error}", "Bad Request") from error
    except BodyTooLarge as error:
        raise Refused(413, "The request body is too large.", "Bad Request") from error
