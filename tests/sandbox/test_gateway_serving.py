"""The gateway on a lite cluster, in front of real HTTP servers on loopback addresses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

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
from sandbox.gateway import open_streams
from sandbox.gateway.authorization import Authorizer
from sandbox.gateway.cluster import Cluster
from sandbox.gateway.proxy import Gateway
from sandbox.gateway.reporting import Reporter
from sandbox.lite.testing import running_cluster
from tests.sandbox.ground import Ground, create, ensure_namespace, maybe, shared, until

TEAM = "team"


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared(controllers=False) as running:
        yield running


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
    port = _free_port()
    for number, engine in enumerate(made):
        engine.listener = await listen(engine, f"127.77.0.{number + 1}", port)
    await _objects(client, made, port, ready=ready)
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


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.77.0.1", 0))
        return int(sock.getsockname()[1])


async def _objects(client: Client, engines: list[Engine], port: int, *, ready: bool) -> None:
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


def test_a_request_reaches_an_engine_without_prefix_and_without_the_callers_key(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        headers = {"Authorization": "Bearer secret", "X-Request-Id": "abc-1", "X-Mine": "1", "Connection": "close"}
        answer = await on.http.post("/team/chat/v1/a%2Fb?x=1&y=%20", content=b"hello", headers=headers)

        assert answer.status_code == 201
        assert answer.json() == {"engine": "e0", "size": 5, "query": "x=1&y=%20"}
        assert (answer.headers["x-request-id"], answer.headers["x-engine"]) == ("abc-1", "e0")
        seen = on.engines[0].seen[0]
        assert (seen["path"], seen["body"]) == ("/v1/a%2Fb", b"hello")
        assert seen["headers"]["x-mine"] == "1"
        assert seen["headers"]["x-request-id"] == "abc-1"
        assert "authorization" not in seen["headers"]

    scene(ground, act, engines=1)


def test_requests_without_an_id_or_with_an_odd_one_get_one(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        one = await on.http.get("/team/chat/")
        two = await on.http.get("/team/chat/", headers={"X-Request-Id": "a b\tc"})
        ids = [one.headers["x-request-id"], two.headers["x-request-id"]]
        assert len(set(ids)) == 2
        assert all(len(item) == 32 for item in ids)

    scene(ground, act)


def test_without_a_route_the_answer_is_404_in_json(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        answer = await on.http.get("/team/other/v1/models")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "no_route"
        assert answer.headers["x-request-id"]
        assert (await on.http.get("/team/chat/%2e%2e/other/v1/models")).status_code == 400

    scene(ground, act)


def test_with_no_ready_pod_the_answer_is_503_until_one_is(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        answer = await on.http.get("/team/chat/v1/models")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"]["message"] == "no endpoint is ready"
        await be_ready(on.client, "e1", "127.77.0.2")

        async def served() -> bool:
            return (await on.http.get("/team/chat/v1/models")).status_code == 201

        await until(served, "an answer")
        assert on.engines[0].seen == []

    scene(ground, act, ready=False)


def test_pieces_of_a_stream_arrive_as_they_are_made(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        async with on.http.stream("POST", "/team/chat/v1/stream", json={}) as answer:
            pieces = answer.aiter_raw()
            assert await asyncio.wait_for(anext(pieces), 5) == b"data: 1\n\n"
            on.engines[0].go_on.set()  # only now does the engine say more
            assert b"".join([piece async for piece in pieces]) == b"data: [DONE]\n\n"

    scene(ground, act, engines=1)


def test_a_caller_who_leaves_ends_the_work_of_the_engine(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        async with on.http.stream("POST", "/team/chat/v1/stream", json={}) as answer:
            await anext(answer.aiter_raw())
        await asyncio.wait_for(on.engines[0].aborted.wait(), 5)
        counted = 'slipway_gateway_requests_total{code="499",name="chat",namespace="team"} 1.0'
        assert counted in on.app.metrics.text().decode()

    scene(ground, act, engines=1)


def test_where_callers_come_in_nothing_names_teams_or_models(ground: Ground) -> None:
    """Numbers by team and model have a listener of their own; without a key nothing here lists what is served."""

    async def portal(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()
        await send_answer(send, json_answer({"message": "Send a key."}, 401))

    async def whole(client: Client) -> None:
        authority = await listen(portal, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{authority.address[1]}/live/authorize/"
        async with stage(client, engines=1, auth=url) as on:
            assert (await on.http.get("/team/chat/v1/models")).status_code == 401  # counted, under its name
            private = await listen(on.app.metrics, "127.0.0.1", 0)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{private.address[1]}", trust_env=False
            ) as prometheus:
                scraped = await prometheus.get("/metrics")
                assert 'requests_total{code="401",name="chat",namespace="team"} 1.0' in scraped.text
                assert scraped.headers["content-type"].startswith("text/plain; version=0.0.4")
                assert (await prometheus.get("/team/chat/v1/models")).status_code == 404
            private.close()

            for method in "GET", "HEAD", "POST":
                for path in "/metrics", "/metrics/", "/%6detrics", "//metrics", "/METRICS", "/v1/models", "/", "/team":
                    answer = await on.http.request(method, path)
                    told = answer.text + str(answer.headers)
                    assert answer.status_code == 404, (method, path)
                    assert not {word for word in ("chat", "team") if word in told}, (method, path)
            for path in "/healthz", "/team/chat/v1/models", "/team/chat/metrics":
                told = (await on.http.get(path)).text
                assert not {word for word in ("chat", "team") if word in told}, path
        authority.close()

    ground.play(whole)


def test_an_engine_that_dies_in_the_middle_is_seen_as_a_broken_answer(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        async def read_while_it_dies() -> None:
            async with on.http.stream("POST", "/team/chat/v1/stream", json={}) as answer:
                async for _ in answer.aiter_raw():
                    assert on.engines[0].listener is not None
                    on.engines[0].listener.close()

        with pytest.raises(httpx.RemoteProtocolError):
            await read_while_it_dies()

    scene(ground, act, engines=1)


def test_a_pod_that_takes_no_connection_is_passed_over(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        assert on.engines[0].listener is not None
        on.engines[0].listener.close()
        answers = [await on.http.get("/team/chat/v1/models") for _ in range(8)]
        assert {item.status_code for item in answers} == {201}
        on.engines[1].listener.close()  # type: ignore[union-attr]
        last = await on.http.get("/team/chat/v1/models")
        assert (last.status_code, last.json()["error"]["code"]) == (502, "upstream_failed")

    scene(ground, act)


def test_requests_go_to_the_pod_with_fewest_in_flight(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        async with on.http.stream("POST", "/team/chat/v1/stream", json={}) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            busy = next(engine for engine in on.engines if engine.seen)
            answers = [(await on.http.get("/team/chat/v1/models")).json()["engine"] for _ in range(6)]
            assert busy.name not in answers

    scene(ground, act)


def test_callers_are_asked_for_and_refused_in_openais_words(ground: Ground) -> None:
    questions: list[dict[str, Any]] = []

    async def portal(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        questions.append(json.loads(await request.body()))
        status = {"Bearer good": 200, "Bearer other-team": 403}.get(request.headers.get("authorization", ""), 401)
        await send_answer(send, json_answer({"subject": "alice"}, status))

    async def whole(client: Client) -> None:
        authority = await listen(portal, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{authority.address[1]}/live/authorize/"
        async with stage(client, engines=1, auth=url) as on:

            async def get(key: str | None) -> httpx.Response:
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                return await on.http.get("/team/chat/v1/models", headers=headers)

            assert (await get("good")).status_code == 201
            assert questions == [{"namespace": "team", "name": "chat", "path": "/team/chat/v1/models", "method": "GET"}]
            refused = await get(None)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
            assert (await get("other-team")).status_code == 403
            assert (await on.http.get("/healthz")).status_code == 200
            authority.close()
            assert (await get("good")).status_code == 201
            unknown = await get("newcomer")
            assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "5")
            assert len(on.engines[0].seen) == 2

    ground.play(whole)


def test_what_a_key_uses_is_reported_and_its_limit_is_told_in_openais_words(ground: Ground, tmp_path: Path) -> None:
    """Two requests, one of them a stream that did not ask for usage; the third is over the limit."""
    asked, reports = [], []

    async def portal(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = json.loads(await request.body())
        if request.path == "/live/usage/":
            reports.extend(body["reports"])
            await send_answer(send, json_answer({"kept": 1}))
            return
        asked.append(body)
        over = {"code": "rate_limit_exceeded", "limit": "requests", "message": "This key may use 2."}
        terms = {"key": 5, "deployment": 7, "cache_seconds": 0.0, "stale_seconds": 0.0}
        answer = json_answer(terms) if len(asked) < 3 else json_answer(over, 429, {"retry-after": "31"})
        await send_answer(send, answer)

    async def whole(client: Client) -> None:
        authority = await listen(portal, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{authority.address[1]}/live"
        (tmp_path / "token").write_text("t")
        reporter = Reporter(f"{url}/usage/", tmp_path / "token")
        async with stage(client, engines=1, auth=f"{url}/authorize/", reporter=reporter) as on:

            async def post(wish: Any) -> httpx.Response:
                headers = {"Authorization": "Bearer slk_x", "Accept-Encoding": "gzip"}
                return await on.http.post("/team/chat/v1/chat/completions", json=wish, headers=headers)

            wish = {"model": "chat", "messages": [{"role": "user", "content": "é"}]}
            plain, stream, over = await post(wish), await post({**wish, "stream": True}), await post(wish)

            assert plain.json()["usage"]["completion_tokens"] == 7
            assert stream.text == 'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
            assert (over.status_code, over.headers["retry-after"]) == (429, "31")
            error = over.json()["error"]
            assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
            first, second = (json.loads(item["body"]) for item in on.engines[0].seen)
            assert (first, second["stream_options"]) == (wish, {"include_usage": True})
            assert {item["headers"]["accept-encoding"] for item in on.engines[0].seen} == {"identity"}
            await reporter.flush()
        authority.close()

    ground.play(whole)
    assert reports == [{"key": 5, "deployment": 7, "requests": 2, "prompt_tokens": 22, "completion_tokens": 14}]


def test_gateway_and_route_get_their_statuses(ground: Ground) -> None:
    async def act(on: Stage) -> None:
        api = "/apis/gateway.networking.k8s.io/v1"

        async def told() -> bool:
            route = await on.client.get(f"{api}/namespaces/{TEAM}/httproutes/chat-slipway")
            gateway = await on.client.get(f"{api}/namespaces/kserve/gateways/kserve-ingress-gateway")
            cls = await on.client.get(f"{api}/gatewayclasses/slipway-sandbox")
            parents = route.get("status", {}).get("parents") or [{}]
            listeners = gateway.get("status", {}).get("listeners") or [{}]
            return (
                all(item["status"] == "True" for item in parents[0].get("conditions", [{"status": ""}]))
                and listeners[0].get("attachedRoutes") == 1
                and any(c["type"] == "Accepted" and c["status"] == "True" for c in cls["status"]["conditions"])
            )

        await until(told, "accepted, programmed and resolved")
        await on.client.delete(f"/api/v1/namespaces/{TEAM}/services/chat-predictor")

        async def unresolved() -> bool:
            route = await on.client.get(f"{api}/namespaces/{TEAM}/httproutes/chat-slipway")
            return any(c["reason"] == "BackendNotFound" for c in route["status"]["parents"][0]["conditions"])

        await until(unresolved, "BackendNotFound")
        await create(on.client, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat-predictor"},
                                 "spec": {"ports": [{"port": 80}]}}, namespace=TEAM)  # fmt: skip

    scene(ground, act, engines=1)


def test_the_process_serves_on_while_the_api_server_is_away(tmp_path: Path) -> None:
    port, api_port = _free_port(), _free_port()
    address = f"http://127.0.0.1:{port}"

    async def set_up(kubeconfig: Path, engine: Engine) -> None:
        engine.listener = await listen(engine, "127.77.0.1", 0)
        client = Client.from_kubeconfig(kubeconfig)
        await _objects(client, [engine], engine.listener.address[1], ready=True)
        await client.close()

    async def answers() -> bool:
        async with httpx.AsyncClient(trust_env=False) as http:
            with contextlib.suppress(httpx.HTTPError):
                return (await http.get(f"{address}/team/chat/v1/models")).status_code == 201
        return False

    async def is_gone() -> bool:
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(f"{address}/team/chat/v1/models")).status_code == 404

    async def whole() -> None:
        engine = Engine("e0")
        with running_cluster(tmp_path, port=api_port, controllers=False, accounts=("gateway",)) as cluster:
            await set_up(cluster.kubeconfig, engine)
            words = ["gateway", "--kubeconfig", str(cluster.kubeconfig_of("gateway")), "--port", str(port)]
            process = subprocess.Popen([sys.executable, "-m", "sandbox", *words])
            try:
                await until(answers, "an answer")
            except BaseException:
                process.kill()
                process.wait()
                raise
        try:
            assert await answers()  # the API server is gone
            with running_cluster(tmp_path, port=api_port, controllers=False, accounts=("gateway",)) as cluster:
                client = Client.from_kubeconfig(cluster.kubeconfig)
                path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{TEAM}/httproutes/chat-slipway"
                assert await maybe(client, path) is not None
                await client.delete(path)
                await client.close()
                await until(is_gone, "the gateway following again")
        finally:
            process.terminate()
            process.wait(10)
            assert engine.listener is not None
            engine.listener.close()

    asyncio.run(whole())


def test_an_answer_under_way_ends_with_the_right_to_it(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call asks for all of them; who keeps the right reads on."""
    monkeypatch.setattr(open_streams, "EVERY", 0.05)
    asked: list[list[dict[str, str]]] = []
    revoked: set[str] = set()

    async def portal(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = json.loads(await request.body())
        if request.path == "/live/authorize-open/":
            asked.append(body["open"])
            may = [row["authorization"] not in revoked for row in body["open"]]
            await send_answer(send, json_answer({"may": may}))
            return
        await send_answer(send, json_answer({"cache_seconds": 4.0}))

    async def whole(client: Client) -> None:
        authority = await listen(portal, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{authority.address[1]}/live/authorize/"
        async with stage(client, engines=1, auth=url) as on, contextlib.AsyncExitStack() as held:

            async def begin(bearer: str) -> AsyncIterator[bytes]:
                headers = {"Authorization": bearer}
                wish = on.http.stream("POST", "/team/chat/v1/stream", json={}, headers=headers)
                pieces = (await held.enter_async_context(wish)).aiter_raw()
                assert await asyncio.wait_for(anext(pieces), 5) == b"data: 1\n\n"
                return pieces

            stays, goes = await begin("Bearer stays"), await begin("Bearer goes")

            async def both_asked() -> bool:
                return bool(asked) and len(asked[-1]) == 2

            await until(both_asked, "one question about both")
            revoked.add("Bearer goes")
            with pytest.raises(httpx.RemoteProtocolError):  # cut: it must not look whole
                await asyncio.wait_for(anext(goes), 5)
            on.engines[0].go_on.set()
            assert b"".join([piece async for piece in stays]) == b"data: [DONE]\n\n"
        authority.close()

    ground.play(whole)


def test_answers_go_on_while_nobody_can_be_asked(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_streams, "EVERY", 0.05)
    asked = 0

    async def portal(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        request = Request(scope, receive)
        await request.body()
        if request.path != "/live/authorize/":
            asked += 1
            await send_answer(send, json_answer({}, 503))
            return
        await send_answer(send, json_answer({"cache_seconds": 4.0}))

    async def whole(client: Client) -> None:
        authority = await listen(portal, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{authority.address[1]}/live/authorize/"
        async with (
            stage(client, engines=1, auth=url) as on,
            on.http.stream("POST", "/team/chat/v1/stream", json={}) as answer,
        ):
            pieces = answer.aiter_raw()
            await asyncio.wait_for(anext(pieces), 5)

            async def often_asked() -> bool:
                return asked > 2

            await until(often_asked, "questions")
            on.engines[0].go_on.set()
            assert b"".join([piece async for piece in pieces]) == b"data: [DONE]\n\n"
        authority.close()

    ground.play(whole)
