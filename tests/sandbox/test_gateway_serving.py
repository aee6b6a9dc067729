"""The gateway on a lite cluster, in front of real HTTP servers on loopback addresses."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.asgi import Request, json_answer, listen, send_answer
from sandbox.client import Client
from sandbox.lite.testing import running_cluster
from tests.sandbox.gateway_support import TEAM, Engine, Stage, be_ready, free_port, make_objects, scene, stage
from tests.sandbox.ground import Ground, create, maybe, shared, until


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared(controllers=False) as running:
        yield running


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
    port, api_port = free_port(), free_port()
    address = f"http://127.0.0.1:{port}"

    async def set_up(kubeconfig: Path, engine: Engine) -> None:
        engine.listener = await listen(engine, "127.77.0.1", 0)
        client = Client.from_kubeconfig(kubeconfig)
        await make_objects(client, [engine], engine.listener.address[1], ready=True)
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
