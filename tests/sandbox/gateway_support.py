"""A gateway on a lite cluster, and the engines behind one route of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from sandbox.asgi import (
    Disconnected,
    Listener,
    Request,
    end_stream,
    json_answer,
    listen,
    send_answer,
    send_chunk,
    start_stream,
    while_connected,
)
from sandbox.client import Client
from sandbox.gateway.authorization import Authorizer
from sandbox.gateway.cluster import Cluster
from sandbox.gateway.proxy import Gateway
from sandbox.gateway.reporting import Reporter
from tests.sandbox.ground import Ground, create, ensure_namespace

TEAM = "team"


class Engine:
    """An upstream that says what it got, streams, or stalls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[dict[str, Any]] = []
        self.aborted = asyncio.Event()
        self.go_on = asyncio.Event()
        self.listener: Listener | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await request.body()
        self.seen.append({"path": scope["raw_path"].decode(), "headers": request.headers, "body": body})
        if request.path == "/v1/stream":
            try:
                await while_connected(request, self._stream(send))
            except Disconnected:
                self.aborted.set()
        elif request.path == "/v1/chat/completions":
            await self._complete(json.loads(body), send)
        else:
            text = {"engine": self.name, "size": len(body), "query": scope["query_string"].decode()}
            await send_answer(send, json_answer(text, 201, {"x-engine": self.name}))

    async def _complete(self, wish: dict[str, Any], send: Any) -> None:
        usage = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}
        if not wish.get("stream"):
            await send_answer(send, json_answer(usage))
            return
        await start_stream(send, "text/event-stream")
        await send_chunk(send, b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
        if wish.get("stream_options", {}).get("include_usage"):
            await send_chunk(send, b"data: " + json.dumps(usage).encode() + b"\n\n")
        await send_chunk(send, b"data: [DONE]\n\n")
        await end_stream(send)

    async def _stream(self, send: Any) -> None:
        await start_stream(send, "text/event-stream")
        await send_chunk(send, b"data: 1\n\n")
        await self.go_on.wait()
        await send_chunk(send, b"data: [DONE]\n\n")
        await end_stream(send)


class Stage:
    """A gateway, its cluster, and the engines behind one route."""

    def __init__(
        self, client: Client, http: httpx.AsyncClient, engines: list[Engine], cluster: Cluster, app: Gateway
    ) -> None:
        self.client, self.http, self.engines, self.cluster, self.app = client, http, engines, cluster, app


@contextlib.asynccontextmanager
async def stage(
    client: Client,
    *,
    engines: int = 2,
    ready: bool = True,
    auth: str | None = None,
    reporter: Reporter | None = None,
) -> AsyncIterator[Stage]:
    """Bring up engines, the objects that lead to them, and the gateway."""
    made = [Engine(f"e{number}") for number in range(engines)]
    port = free_port()
    for number, engine in enumerate(made):
        engine.listener = await listen(engine, f"127.77.0.{number + 1}", port)
    await make_objects(client, made, port, ready=ready)
    cluster = Cluster(client)
    following = asyncio.create_task(cluster.run())
    app = Gateway(cluster, Authorizer(auth) if auth else None, reporter=reporter)
    door = await listen(app, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{door.address[1]}"
    async with httpx.AsyncClient(base_url=address, timeout=10, trust_env=False) as http:
        await cluster.synced()
        try:
            yield Stage(client, http, made, cluster, app)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            door.close()
            await app.close()
            for engine in made:
                if engine.listener is not None:
                    engine.listener.close()
            await client.delete(f"/api/v1/namespaces/{TEAM}/pods", {"gracePeriodSeconds": 0})
            await client.delete(f"/api/v1/namespaces/{TEAM}/services/chat-predictor")
            await client.delete(f"/apis/gateway.networking.k8s.io/v1/namespaces/{TEAM}/httproutes/chat-slipway")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.77.0.1", 0))
        return int(sock.getsockname()[1])


async def make_objects(client: Client, engines: list[Engine], port: int, *, ready: bool) -> None:
    await ensure_namespace(client, TEAM)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "chat-predictor", "labels": {"serving.kserve.io/inferenceservice": "chat"}},
        "spec": {"selector": {"app": "chat"}, "ports": [{"name": "http1", "port": 80, "targetPort": "http1"}]},
    }
    rewrite = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "chat-slipway"},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/team/chat"}}],
                    "filters": [rewrite],
                    "backendRefs": [{"name": "chat-predictor", "port": 80}],
                }
            ],
        },
    }
    await create(client, service, route, namespace=TEAM)
    for number, engine in enumerate(engines):
        ports = [{"name": "http1", "containerPort": port}]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": engine.name, "labels": {"app": "chat"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": ports}]},
        }
        await create(client, pod, namespace=TEAM)
        await be_ready(client, engine.name, f"127.77.0.{number + 1}", ready=ready)


async def be_ready(client: Client, name: str, address: str, *, ready: bool = True) -> None:
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "Running", "podIP": address, "conditions": [condition]}
    await client.patch_status(f"/api/v1/namespaces/{TEAM}/pods/{name}", {"status": status})


def scene(ground: Ground, act: Callable[[Stage], Awaitable[None]], **options: Any) -> None:
    async def whole(client: Client) -> None:
        async with stage(client, **options) as on:
            await act(on)

    ground.play(whole)
