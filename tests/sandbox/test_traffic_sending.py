"""Requests really sent: to a gateway and an API server that note what comes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson

from sandbox.asgi import Answer, Receive, Request, Scope, Send, json_answer, listen, send_answer
from sandbox.client import Client
from sandbox.traffic.app import Traffic

SERVICE: dict[str, Any] = {
    "metadata": {"namespace": "team-a", "name": "chat", "uid": "u", "resourceVersion": "5"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}


class World:
    """One service that is ready, and a gateway in front of it."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.enough = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await send_answer(send, await self._answer(request))

    async def _answer(self, request: Request) -> Answer:
        if request.method == "POST":
            self.asked.append((request.path, request.headers, orjson.loads(await request.body())))
            if len(self.asked) >= 5:
                self.enough.set()
            return json_answer({}, self.status)
        if request.query.get("watch"):
            await asyncio.Event().wait()
        said = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceServiceList"}
        return json_answer({**said, "metadata": {"resourceVersion": "5"}, "items": [SERVICE]})


async def send_some(world: World, tmp_path: Path, keys: str = "{}") -> Traffic:
    (tmp_path / "plan").write_text('{"team-a/*": 200}')
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "keys").write_text(keys)
    listener = await listen(world, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.address[1]}"
    traffic = Traffic(Client.to(url), url, plan=tmp_path / "plan", token=tmp_path / "token", keys=tmp_path / "keys")
    sending = asyncio.create_task(traffic.run())
    await asyncio.wait_for(world.enough.wait(), 10)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    listener.close()
    return traffic


def test_requests_carry_the_key_and_say_what_they_are(tmp_path: Path) -> None:
    async def check() -> None:
        world = World()
        await send_some(world, tmp_path)
        path, headers, body = world.asked[0]
        assert path == "/team-a/chat/v1/chat/completions"
        assert headers["authorization"] == "Bearer secret"
        assert headers["x-slipway-traffic"] == "1"
        assert body["model"] == "chat"
        assert body["messages"][-1]["role"] == "user"
        assert body["max_tokens"] >= 16
        assert "ignore_eos" not in body  # answers may end by themselves, as those of people do

    asyncio.run(check())


def test_a_namespace_with_a_key_of_its_own_is_asked_with_it(tmp_path: Path) -> None:
    async def check() -> None:
        world = World()
        await send_some(world, tmp_path, '{"team-a": "slk_a", "team-b": "slk_b"}')
        assert world.asked[0][1]["authorization"] == "Bearer slk_a"

    asyncio.run(check())


def test_refusals_are_counted_and_end_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        world = World(status=503)
        traffic = await send_some(world, tmp_path)
        assert traffic.sent["team-a/chat 503"] >= 4

    asyncio.run(check())
