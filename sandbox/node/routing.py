"""What llm-d puts around engines: the endpoint picker of a pool, and the sidecar that splits prefill from decode.

The picker's choice itself is made by the sandbox's gateway, as the two speak Envoy's gRPC, which is not played: here
the picker is up, answers its probes and can be taken down. The sidecar is whole: a request that names a prefiller has
its prompt computed there first, then its words made by the engine beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import httpx
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
    listen,
    send_answer,
    send_chunk,
    start_stream,
    text_answer,
    while_connected,
)

PREFILLER = "x-prefiller-host-port"
GENERATING = ("/v1/chat/completions", "/v1/completions")
PATIENCE = httpx.Timeout(10.0, read=None)
_NOT_PASSED = {"host", "content-length", "transfer-encoding", "connection", PREFILLER}
_PASSED_BACK = ("x-request-id", "content-type")


def flag(words: Sequence[str], name: str, default: str) -> str:
    """Return the value of `--name=value` or `--name value`."""
    for index, word in enumerate(words):
        if word == f"--{name}" and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return default


class EndpointPicker:
    """The picker's process: its gRPC, health and metrics ports take connections."""

    out_of_memory = False

    def __init__(self, words: Sequence[str], ip: str, http: httpx.AsyncClient, write: Callable[[str], None]) -> None:
        self.words, self.ip, self.write = words, ip, write
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Listen until SIGTERM; returns the exit status."""
        pool = f"{flag(self.words, 'pool-namespace', 'default')}/{flag(self.words, 'pool-name', '')}"
        ports = [int(flag(self.words, name, default)) for name, default in
                 (("grpc-port", "9002"), ("grpc-health-port", "9003"), ("metrics-port", "9090"))]  # fmt: skip
        servers: list[asyncio.Server] = []
        try:
            for port in ports:
                servers.append(await asyncio.start_server(_hang_up, self.ip, port))
            self.write(f'{{"level":"info","msg":"ext-proc server starting","port":{ports[0]},"pool":"{pool}"}}')
            await self._stop.wait()
        except OSError as error:
            self.write(f'{{"level":"error","msg":"{error}"}}')
            return 1
        finally:
            for server in servers:
                server.close()
        return 0

    def terminate(self) -> None:
        """SIGTERM."""
        self._stop.set()


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class RoutingSidecar:
    """The routing sidecar's process, an HTTP server in front of the engine of its pod."""

    out_of_memory = False

    def __init__(self, words: Sequence[str], ip: str, http: httpx.AsyncClient, write: Callable[[str], None]) -> None:
        self.ip, self.http, self.write = ip, http, write
        self.port = int(flag(words, "port", "8000"))
        self.engine = f"http://{ip}:{flag(words, 'vllm-port', '8001')}"
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serve until SIGTERM; returns the exit status."""
        try:
            listener = await listen(self, self.ip, self.port)
        except OSError as error:
            self.write(f"failed to listen: {error}")
            return 1
        self.write(f'"msg"="starting HTTP server" "addr"=":{self.port}" "decoder"="{self.engine}"')
        try:
            await self._stop.wait()
        finally:
            listener.close()
        return 0

    def terminate(self) -> None:
        """SIGTERM."""
        self._stop.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            body = await request.body()
            prefiller = request.headers.get(PREFILLER)
            if prefiller and request.path in GENERATING and request.method == "POST":
                body = await self._prefilled(request, body, prefiller)
            await while_connected(request, self._decode(request, body, send))
        except Disconnected:
            return
        except BodyTooLarge:
            await send_answer(send, text_answer("the request body is too large", 413))
        except httpx.HTTPError as error:
            self.write(f'"msg"="waiting for vLLM to be ready" "err"="{error or type(error).__name__}"')
            await send_answer(send, text_answer("the engine of this pod does not answer", 502))

    async def _prefilled(self, request: Request, body: bytes, prefiller: str) -> bytes:
        """Have the prompt computed elsewhere; returns the body for the engine here, unchanged where that failed."""
        try:
            wish: dict[str, Any] = orjson.loads(body)
            first = {key: value for key, value in wish.items() if key not in ("stream", "stream_options")}
        except (orjson.JSONDecodeError, AttributeError):
            return body  # the engine refuses it in its own words
        first |= {"stream": False, "max_tokens": 1, "kv_transfer_params": {
            "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None,
            "remote_block_ids": None, "remote_host": None, "remote_port": None}}  # fmt: skip
        if "max_completion_tokens" in first:
            first["max_completion_tokens"] = 1
        try:
            answer = await self.http.post(
                f"http://{prefiller}{request.path}",
                content=orjson.dumps(first),
                headers={**_passed(request), "content-type": "application/json"},
                timeout=PATIENCE,
            )
            handed = answer.json().get("kv_transfer_params") if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError) as error:
            self.write(f'"msg"="prefill request failed" "to"="{prefiller}" "err"="{error or type(error).__name__}"')
            return body
        if not isinstance(handed, dict):
            self.write(f'"msg"="prefill request failed" "to"="{prefiller}" "code"={answer.status_code}')
            return body
        return orjson.dumps(wish | {"kv_transfer_params": handed})

    async def _decode(self, request: Request, body: bytes, send: Send) -> None:
        query = request.scope["query_string"].decode("latin-1")
        path = request.scope["raw_path"].partition(b"?")[0].decode("latin-1")
        url = f"{self.engine}{path}{'?' + query if query else ''}"
        outgoing = self.http.build_request(
            request.method, url, content=body or None, headers=_passed(request), timeout=PATIENCE
        )
        answer = await self.http.send(outgoing, stream=True)
        try:
            kind = answer.headers.get("content-type", "application/octet-stream")
            if not kind.startswith("text/event-stream"):
                extra = tuple((name, answer.headers[name]) for name in _PASSED_BACK[:1] if name in answer.headers)
                await send_answer(send, Answer(answer.status_code, await answer.aread(), kind, extra))
                return
            await start_stream(send, kind)
            async for chunk in answer.aiter_raw():
                await send_chunk(send, chunk)
            await end_stream(send)
        finally:
            await answer.aclose()


def _passed(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name not in _NOT_PASSED}
