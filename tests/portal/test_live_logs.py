"""Logs: who reads them, on pages and by programs, what comes back, and what ends a stream."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from deployments.kube.errors import ClusterError, ErrorClass
from deployments.models import Deployment, Membership, User
from deployments.services import tokens
from portal.live.app import LiveApp
from portal.live.places import Places
from tests.deployments import factories as make
from tests.portal.asgi import Answer, call, cookies_of, with_csrf
from tests.portal.live import CHUNKS, WISH, Endless, Gateway, Written, answered, browser, in_thread, reading, sse

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("test_host")]


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
