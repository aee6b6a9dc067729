"""Prompts, logs and the gateway's question: who may, what comes back, and what happens when others are away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from django.db import connection
from django.test import Client

from deployments.kube.errors import ClusterError, ErrorClass
from deployments.kube.observe import ContainerView
from deployments.models import Deployment, Membership, Team, User
from deployments.services import invoke, tokens
from portal.live import http
from portal.live.app import LiveApp
from portal.live.logs import LogReader
from portal.live.places import Places
from tests.deployments import factories as make
from tests.deployments.viewing import observe, pod
from tests.portal.asgi import Answer, call, cookies_of, with_csrf

pytestmark = pytest.mark.django_db(transaction=True)

CHUNKS = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"delta": {"content": "A slipway"}}]},
    {"choices": [{"delta": {"content": " is a ramp.\n<b>"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"completion_tokens": 7}},
]
WISH = {"messages": [{"role": "user", "content": "What is a slipway?"}], "max_tokens": 32, "temperature": 0}


@pytest.fixture(autouse=True)
def test_host(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]


@pytest.fixture
def people(transactional_db: None) -> dict[str, User]:
    search = make.make_team("search")
    return {
        "alice": make.make_user("alice", team=search),
        "bob": make.make_user("bob", team=make.make_team("labs")),
        "carol": make.make_user("carol", admin=True),
    }


@pytest.fixture
def chat(people: dict[str, User]) -> Deployment:
    make.make_flavor()
    row = make.make_deployment(Team.objects.get(slug="search"), people["alice"], approved=True)
    engine, weights = ContainerView(name="kserve-container"), ContainerView(name="storage-initializer", init=True)
    observe(row, pods=(pod("chat-1"), pod("chat-2", containers=(weights, engine))))
    return row


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


class Gateway:
    """A server that answers each request with fixed bytes and keeps what it was asked."""

    def __init__(self, status: str, body: bytes, *, pause: float = 0) -> None:
        self.status, self.body, self.pause = status, body, pause
        self.asked: list[bytes] = []

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        self.asked.append(head + await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {self.status}\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".encode())
        for part in self.body.splitlines(keepends=True):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(self.pause)
        writer.close()


def sse(chunks: list[Any]) -> bytes:
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


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


def answered(path: str, **options: Any) -> Answer:
    async def run() -> Answer:
        return await call(options.pop("app", None) or LiveApp(), path, **options).whole()

    return asyncio.run(run())


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


# Logs


class Written:
    """Logs as a test wrote them."""

    def __init__(self, *, error: ClusterError | None = None) -> None:
        self.error = error
        self.asked: list[tuple[Any, ...]] = []

    async def tail(self, namespace: str, pod: str, container: str, *, previous: bool, lines: int) -> str:
        self.asked.append((namespace, pod, container, previous, lines))
        if self.error:
            raise self.error
        return "one\ntwo <b>\n"

    async def follow(self, namespace: str, pod: str, container: str, *, lines: int) -> AsyncIterator[str]:
        self.asked.append((namespace, pod, container, lines))
        for number in range(3):
            yield f"line {number}"
        if self.error:
            raise self.error


def reading(source: Written) -> LiveApp:
    app = LiveApp()
    app.reader = LogReader(source)
    return app


def test_the_end_of_a_log_is_plain_text(chat: Deployment, people: dict[str, User]) -> None:
    source = Written()

    answer = answered(
        f"/live/logs/{chat.pk}/?pod=chat-2&container=storage-initializer&previous=1&tail=7",
        headers=cookies_of(browser(people["alice"])),
        app=reading(source),
    )

    assert (answer.status, answer.body) == (200, b"one\ntwo <b>\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert source.asked == [("search-x7k2p", "chat-2", "storage-initializer", True, 7)]


def test_a_download_has_a_name(chat: Deployment, people: dict[str, User]) -> None:
    headers = cookies_of(browser(people["carol"]))

    answer = answered(f"/live/logs/{chat.pk}/?download=1", headers=headers, app=reading(Written()))

    assert answer.headers["content-disposition"] == 'attachment; filename="chat-2-kserve-container.log"'


@pytest.mark.parametrize(
    ("who", "query"),
    [("bob", ""), ("alice", "?pod=of-another-team"), ("alice", "?pod=../../secrets"), ("alice", "?container=sidecar")],
)
def test_only_logs_of_ones_own_pods(chat: Deployment, people: dict[str, User], who: str, query: str) -> None:
    source = Written()

    for tail in ("", "follow/"):
        url = f"/live/logs/{chat.pk}/{tail}{query}"
        assert answered(url, headers=cookies_of(browser(people[who])), app=reading(source)).status == 404
    assert source.asked == []


@pytest.mark.parametrize(("status", "answered_with"), [(404, 404), (403, 502), (0, 503)])
def test_a_cluster_that_does_not_answer_is_said_in_words(
    chat: Deployment, people: dict[str, User], status: int, answered_with: int
) -> None:
    error = ClusterError(ErrorClass.RETRY, "x", "secret inner words", status=status)

    answer = answered(
        f"/live/logs/{chat.pk}/", headers=cookies_of(browser(people["alice"])), app=reading(Written(error=error))
    )

    assert answer.status == answered_with
    assert b"secret" not in answer.body


def test_a_log_is_followed_to_its_end(chat: Deployment, people: dict[str, User]) -> None:
    async def run() -> list[tuple[str, Any]]:
        stream = call(reading(Written()), f"/live/logs/{chat.pk}/follow/?pod=chat-1", headers=headers)
        assert (await stream.start())[0] == 200
        found = []
        while (event := await stream.event())[0]:
            found.append(event)
        await stream.task
        return found

    headers = cookies_of(browser(people["alice"]))
    assert asyncio.run(run()) == [("lines", "line 0\nline 1\nline 2"), ("end", "— the log ended —")]


class Endless(Written):
    """A log that is never finished."""

    async def follow(self, namespace: str, pod: str, container: str, *, lines: int) -> AsyncIterator[str]:
        for number in range(10**9):
            yield f"line {number}"
            await asyncio.sleep(0.02)


def in_thread(change: Any) -> Any:
    def run() -> None:
        try:
            change()
        finally:
            connection.close()

    return asyncio.to_thread(run)


@pytest.mark.parametrize("what", ["logs", "prompt"])
@pytest.mark.parametrize("ending", ["removed", "logout"])
def test_a_stream_ends_with_the_right_to_it(
    chat: Deployment, people: dict[str, User], settings: Any, what: str, ending: str
) -> None:
    async def run() -> list[tuple[str, Any]]:
        app = reading(Endless())
        async with Gateway("200 OK", sse(CHUNKS[1:2] * 2000), pause=0.02) as url:
            settings.GATEWAY_URL = url
            if what == "logs":
                stream = call(app, f"/live/logs/{chat.pk}/follow/", headers=headers)
            else:
                stream = call(app, f"/live/prompt/{chat.pk}/", method="POST", headers=headers, body=orjson.dumps(WISH))
            assert (await stream.start())[0] == 200
            await stream.event()
            await app.hub.recheck()
            assert len(app.hub.watches) == 1
            assert not any(watch.over.is_set() for watch in app.hub.watches)
            await in_thread(end)
            await app.hub.recheck()
            found = []
            while (event := await stream.event())[0]:
                found.append(event)
            await asyncio.wait_for(stream.task, 5)
            await app.hub.stop()
        assert not app.hub.watches
        return found

    def end() -> None:
        if ending == "removed":
            Membership.objects.filter(user=people["alice"]).delete()
        else:
            client.logout()

    client = browser(people["alice"])
    headers = with_csrf(client)
    name, said = asyncio.run(run())[-1]
    assert name == ("end" if what == "logs" else "error")
    assert "may not see this deployment any more" in str(said)


def test_programs_read_logs_with_a_token_below_api_alone(chat: Deployment, people: dict[str, User]) -> None:
    _, text = tokens.create(principal=make.principal(people["alice"]), name=make.a_name(), scopes=["read"])
    _, foreign = tokens.create(principal=make.principal(people["bob"]), name=make.a_name(), scopes=["read"])
    app, url = reading(Written()), f"/api/v1/deployments/{chat.pk}/logs/"

    answer = answered(url, headers={"authorization": f"Bearer {text}"}, app=app)

    assert answer.json()["lines"] == ["one", "two <b>"]
    assert answered(url, headers={"authorization": f"Bearer {foreign}"}, app=app).status == 404
    assert answered(url, headers={"authorization": "Bearer slp_wrong"}, app=app).status == 401
    assert answered(f"/live/logs/{chat.pk}/", headers={"authorization": f"Bearer {text}"}, app=app).status == 401


def problem_of(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """The problem document (RFC 9457) that an answer below /api/ must be."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer.body
    found = answer.json()
    assert found["type"] == f"urn:slipway:problem:{code}"
    assert (found["status"], found["code"]) == (status, code)
    assert found["title"]
    assert found["detail"]
    assert found["instance"].startswith("/api/v1/deployments/")
    assert len(found["request_id"]) == 32
    assert answer.headers["x-request-id"] == found["request_id"]
    return dict(found)


@pytest.mark.parametrize(
    ("who", "query", "status", "code"),
    [
        ("bob", "", 404, "not_found"),
        ("alice", "?pod=../../x", 404, "no_such_pod"),
        ("alice", "?container=%00", 404, "no_such_container"),
        ("alice", "?tail=-5", 422, "invalid"),
        ("alice", "?tail=99999999999999", 422, "invalid"),
        ("alice", "?tail=0", 422, "invalid"),
        ("alice", "?tail=", 422, "invalid"),
        ("alice", "?tail=%D9%A3", 422, "invalid"),
        ("alice", "?tail=1&tail=2", 422, "invalid"),
        ("alice", "?previous=maybe", 422, "invalid"),
        ("alice", "?download=2", 422, "invalid"),
        ("alice", "?lines=5", 422, "unknown_parameter"),
    ],
)
def test_what_is_wrong_with_logs_below_api_is_a_problem(
    chat: Deployment, people: dict[str, User], who: str, query: str, status: int, code: str
) -> None:
    _, text = tokens.create(principal=make.principal(people[who]), name=make.a_name(), scopes=["read"])
    source = Written()
    url = f"/api/v1/deployments/{chat.pk}/logs/{query}"

    answer = answered(url, headers={"authorization": f"Bearer {text}"}, app=reading(source))

    found = problem_of(answer, status, code)
    name = query.partition("=")[0]
    assert [error["pointer"] for error in found.get("errors", [])] == ([name] if name else [])
    assert source.asked == []


def test_a_log_that_cannot_be_had_below_api_is_a_problem(chat: Deployment, people: dict[str, User]) -> None:
    _, text = tokens.create(principal=make.principal(people["alice"]), name=make.a_name(), scopes=["read"])
    headers, url = {"authorization": f"Bearer {text}"}, f"/api/v1/deployments/{chat.pk}/logs/"
    down = Written(error=ClusterError(ErrorClass.RETRY, "x", "secret inner words", status=0))
    broken, busy = reading(Written()), reading(Written())
    broken.reader = None  # type: ignore[assignment]
    busy.pages = Places(per_user=0)

    problem_of(answered(url, headers=headers, app=reading(down)), 503, "cluster_unreachable")
    problem_of(answered(url, headers={"authorization": "Bearer slp_no"}, app=reading(Written())), 401, "invalid_token")
    problem_of(answered(url, app=reading(Written())), 401, "not_authenticated")
    problem_of(answered(url, headers=headers, app=broken), 500, "internal")
    problem_of(answered(url, headers=headers, app=busy), 429, "too_many_streams")
    refused = answered(url, method="DELETE", headers=headers, app=reading(Written()))
    problem_of(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET"


def test_what_is_wrong_with_a_stream_names_its_place(chat: Deployment, people: dict[str, User]) -> None:
    headers = with_csrf(browser(people["alice"]))

    def field(path: str, wish: Any = None) -> tuple[int, str]:
        how = {"method": "POST", "body": orjson.dumps(wish)} if wish is not None else {}
        answer = answered(path, headers=headers, app=reading(Written()), **how)
        return answer.status, answer.json()["field"]

    prompt, logs = f"/live/prompt/{chat.pk}/", f"/live/logs/{chat.pk}/"
    assert field(prompt, {**WISH, "max_tokens": 10**9}) == (422, "max_tokens")
    assert field(prompt, {**WISH, "max_tokens": 1.5}) == (422, "max_tokens")
    assert field(prompt, {**WISH, "temperature": -1}) == (422, "temperature")
    assert field(prompt, {**WISH, "top_k": 4}) == (422, "top_k")
    assert field(prompt, {"messages": [{"role": ["user"], "content": "x"}]}) == (422, "messages")
    assert field(f"{prompt}?temperature=0", WISH) == (422, "temperature")
    assert field(f"{logs}?tail=-5") == (422, "tail")
    assert field(f"{logs}follow/?tail=5") == (422, "tail")


def test_an_address_in_other_digits_leads_nowhere(chat: Deployment) -> None:
    assert not LiveApp.serves("/api/v1/deployments/\u0663/logs/")


def test_a_token_without_the_scope_reads_nothing(chat: Deployment, people: dict[str, User]) -> None:
    _, text = tokens.create(principal=make.principal(people["alice"]), name=make.a_name(), scopes=["invoke"])

    url = f"/api/v1/deployments/{chat.pk}/logs/"
    assert answered(url, headers={"authorization": f"Bearer {text}"}, app=reading(Written())).status == 404
