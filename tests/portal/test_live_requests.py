"""Prompts and the gateway's question: who may, what comes back, and what happens when others are away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest

from deployments.models import Deployment, User
from deployments.services import invoke, tokens
from portal.live import http
from portal.live.app import LiveApp
from portal.live.places import Places
from tests.deployments import factories as make
from tests.portal.asgi import Answer, call, cookies_of, with_csrf
from tests.portal.live import CHUNKS, WISH, Gateway, answered, browser, sse

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("test_host")]


def prompted(user: User, pk: int, gateway: Gateway | None, settings: Any, wish: Any = WISH) -> list[tuple[str, Any]]:
    """Every event of one prompt."""

    async def run() -> list[tuple[str, Any]]:
        if gateway is None:
            settings.GATEWAY_URL = "http://127.0.0.1:9"
            return await events()
        async with gateway as url:
            settings.GATEWAY_URL = url
            return await events()

    async def events() -> list[tuple[str, Any]]:
        stream = call(LiveApp(), f"/live/prompt/{pk}/", method="POST", headers=headers, body=orjson.dumps(wish))
        assert (await stream.start())[0] == 200
        found = []
        while (event := await stream.event())[0]:
            found.append(event)
        await stream.task
        return found

    headers = with_csrf(browser(user))
    return asyncio.run(run())


def test_an_answer_streams_in_with_what_was_measured(chat: Deployment, people: dict[str, User], settings: Any) -> None:
    gateway = Gateway("200 OK", sse(CHUNKS), pause=0.01)

    found = prompted(people["alice"], chat.pk, gateway, settings)

    assert [event for event in found if event[0] == "delta"] == [
        ("delta", {"text": "A slipway"}),
        ("delta", {"text": " is a ramp.\n<b>"}),
    ]
    name, figures = found[-1]
    assert (name, figures["tokens"], figures["finish_reason"]) == ("done", 7, "stop")
    assert 0 < figures["ttft_ms"] < figures["total_ms"]
    assert figures["tokens_per_second"] > 0


def test_the_gateway_is_asked_with_a_short_token_in_the_persons_name(
    chat: Deployment, people: dict[str, User], settings: Any
) -> None:
    gateway = Gateway("200 OK", sse(CHUNKS))

    prompted(people["alice"], chat.pk, gateway, settings)

    head, _, body = gateway.asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /search-x7k2p/chat/v1/chat/completions ")
    header = next(line for line in head.decode().split("\r\n") if line.lower().startswith("authorization"))
    admission = invoke.admit(header.partition(": ")[2], "search-x7k2p", "chat")
    assert isinstance(admission, invoke.Admission)
    assert admission.subject == "user:alice"
    sent = json.loads(body)
    assert (sent["model"], sent["stream"], sent["max_tokens"]) == ("chat", True, 32)
    assert b"sessionid" not in head


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        ("503 Busy", b"", "No replica can answer just now."),
        ("404 Not Found", b"<html>", "The gateway does not know this endpoint yet."),
        ("400 Bad", orjson.dumps({"error": {"message": "too long"}}), "too long"),
        ("200 OK", sse([{"error": {"message": "engine died"}}]), "engine died"),
    ],
)
def test_what_went_wrong_is_said_in_words(
    chat: Deployment, people: dict[str, User], settings: Any, status: str, body: bytes, said: str
) -> None:
    found = prompted(people["alice"], chat.pk, Gateway(status, body), settings)

    assert found == [("error", {"message": said})]


def test_a_gateway_that_is_away_is_said_so(chat: Deployment, people: dict[str, User], settings: Any) -> None:
    found = prompted(people["alice"], chat.pk, None, settings)

    assert found == [("error", {"message": "The gateway cannot be reached just now."})]


def test_garbage_between_chunks_is_passed_over(chat: Deployment, people: dict[str, User], settings: Any) -> None:
    body = b"data: {broken\n\n: comment\n\ndata: [1]\n\n" + sse(CHUNKS)

    found = prompted(people["alice"], chat.pk, Gateway("200 OK", body), settings)

    assert [name for name, _ in found] == ["delta", "delta", "done"]


def test_a_stranger_prompts_nothing(chat: Deployment, people: dict[str, User]) -> None:
    headers = with_csrf(browser(people["bob"]))

    assert answered(f"/live/prompt/{chat.pk}/", method="POST", headers=headers, body=orjson.dumps(WISH)).status == 404


def test_another_site_cannot_prompt_in_our_name(chat: Deployment, people: dict[str, User]) -> None:
    headers = cookies_of(browser(people["alice"]))
    foreign = with_csrf(browser(people["alice"])) | {"origin": "https://evil.example"}

    for each in (headers, foreign):
        answer = answered(f"/live/prompt/{chat.pk}/", method="POST", headers=each, body=orjson.dumps(WISH))
        assert (answer.status, answer.json()["code"]) == (403, "csrf")


@pytest.mark.parametrize(
    "wish",
    [
        [],
        {"messages": []},
        {"messages": [{"role": "root", "content": "x"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {**WISH, "max_tokens": 10**9},
        {**WISH, "max_tokens": "12"},
        {**WISH, "temperature": -1},
        {**WISH, "temperature": True},
        {"messages": [{"role": "user", "content": "x"}] * 101},
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(chat: Deployment, people: dict[str, User], wish: Any) -> None:
    headers = with_csrf(browser(people["alice"]))

    answer = answered(f"/live/prompt/{chat.pk}/", method="POST", headers=headers, body=orjson.dumps(wish))

    assert answer.status == 422


def test_huge_prompts_are_not_read(chat: Deployment, people: dict[str, User]) -> None:
    headers = with_csrf(browser(people["alice"]))

    assert answered(f"/live/prompt/{chat.pk}/", method="POST", headers=headers, body=b"x" * 300_000).status == 413


# The gateway's question


def asked(header: str, **question: Any) -> Answer:
    headers = {"authorization": header} if header else {}
    return answered("/live/authorize/", method="POST", headers=headers, body=orjson.dumps(question))


def test_the_gateway_hears_who_may_call(chat: Deployment, people: dict[str, User]) -> None:
    token = invoke.token_for(principal=make.principal(people["alice"]), deployment=chat)

    answer = asked(f"Bearer {token}", namespace="search-x7k2p", name="chat", path="/v1/models", method="GET")

    assert (answer.status, answer.json()["subject"]) == (200, "user:alice")


def test_the_gateway_hears_who_may_not(chat: Deployment, people: dict[str, User]) -> None:
    _, text = tokens.create(principal=make.principal(people["bob"]), name=make.a_name(), scopes=["invoke"])

    stranger = asked(f"Bearer {text}", namespace="search-x7k2p", name="chat")
    nobody = asked("", namespace="search-x7k2p", name="chat")

    assert stranger.status == 403
    assert nobody.status == 401
    assert nobody.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"namespace": 1, "name": "x"}', b'"x"'])
def test_a_question_that_makes_no_sense_is_refused(db: None, body: bytes) -> None:
    assert answered("/live/authorize/", method="POST", body=body).status == 400


def test_a_question_that_dribbles_in_is_given_up(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[list[Any], float]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.05)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        began = asyncio.get_running_loop().time()
        scope = {"type": "http", "method": "POST", "path": "/live/authorize/", "headers": []}
        await asyncio.wait_for(LiveApp()(scope, receive, send), 10)
        return sent, asyncio.get_running_loop().time() - began

    assert http.BODY_SECONDS <= 5
    monkeypatch.setitem(http.body_of.__kwdefaults__, "seconds", 0.3)
    sent, took = asyncio.run(run())
    assert (sent[0]["status"], took < 3) == (408, True)


def test_questions_at_a_time_are_counted(db: None) -> None:
    app = LiveApp()
    app.questions = Places(per_user=0, per_process=0)

    assert answered("/live/authorize/a/b/v1/models", app=app).status == 503


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_envoy_asks_with_the_callers_own_path(chat: Deployment, people: dict[str, User], method: str) -> None:
    token = invoke.token_for(principal=make.principal(people["alice"]), deployment=chat)
    headers = {"authorization": f"Bearer {token}", "host": "models.example.com"}

    answer = answered("/live/authorize/search-x7k2p/chat/v1/models?a=1", method=method, headers=headers)
    by_header = answered("/live/authorize/", headers={**headers, "x-original-uri": "/search-x7k2p/chat/v1/models?a=1"})

    assert (answer.status, answer.headers["x-slipway-subject"]) == (200, "user:alice")
    assert by_header.status == 200


def test_envoy_hands_the_caller_an_error_as_openai_writes_it(chat: Deployment, people: dict[str, User]) -> None:
    _, text = tokens.create(principal=make.principal(people["bob"]), name=make.a_name(), scopes=["invoke"])
    path = "/live/authorize/search-x7k2p/chat/v1/chat/completions"

    nobody = answered(path, method="POST")
    stranger = answered(path, method="POST", headers={"authorization": f"Bearer {text}"})

    assert (nobody.status, nobody.json()["error"]["type"]) == (401, "authentication_error")
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    assert (stranger.status, stranger.json()["error"]["code"]) == (403, "not_allowed")


@pytest.mark.parametrize(
    "path",
    [
        "/search-x7k2p/chat/../../labs-abcde/other/v1/models",
        "/search-x7k2p/chat/%2e%2e/other/v1/models",
        "/search-x7k2p/chat/..%2fother/v1",
        "/search-x7k2p/chat//v1/models",
        "//search-x7k2p/chat/v1/models",
        "/search-x7k2p%2fchat/v1",
        "/search-x7k2p",
        "/",
    ],
)
def test_a_path_that_could_lead_elsewhere_is_not_admitted(chat: Deployment, people: dict[str, User], path: str) -> None:
    token = invoke.token_for(principal=make.principal(people["alice"]), deployment=chat)
    headers = {"authorization": f"Bearer {token}"}

    assert answered(f"/live/authorize{path}", headers=headers).status == 403
    assert answered("/live/authorize/", headers={**headers, "x-original-uri": path}).status == 403
