"""The gateway asks who may call, refuses in OpenAI's words, reports what keys use, and ends what nobody may read."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.asgi import Request, json_answer, listen, send_answer
from sandbox.client import Client
from sandbox.gateway import open_streams
from sandbox.gateway.reporting import Reporter
from tests.sandbox.gateway_support import stage
from tests.sandbox.ground import Ground, shared, until


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared(controllers=False) as running:
        yield running


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
