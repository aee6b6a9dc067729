"""Keys at the gateway's question, and what gateways report of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest
import redis
from django.utils import timezone

from deployments.models import Deployment, EndpointKey, KeyUsage, Team, User
from deployments.services import endpoint_keys as keys
from deployments.services import invoke, rates, usage
from deployments.services.endpoint_keys import Limits
from deployments.services.rates import OwnCounters, RedisCounters
from portal.live.app import LiveApp
from portal.live.database import in_database
from sandbox.gateway.authorization import Authorizer
from tests.deployments import factories as make
from tests.portal.asgi import Answer, call

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "of-the-gateway"
CHAT = "/live/authorize/search-x7k2p/chat/v1/chat/completions"


class Clock:
    """A gateway's clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def installation(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.GATEWAY_TOKEN = TOKEN
    counting = OwnCounters()
    monkeypatch.setattr(usage, "counters", lambda: counting)


@pytest.fixture
def alice(transactional_db: None) -> User:
    return make.make_user("alice", team=make.make_team("search"), lead=True)


@pytest.fixture
def chat(alice: User) -> Deployment:
    return make.make_deployment(Team.objects.get(), alice, approved=True)


def key_of(chat: Deployment, alice: User, **limits: int) -> tuple[EndpointKey, str]:
    return keys.create(
        principal=make.principal(alice),
        team=chat.team,
        name=make.a_name(),
        every_deployment=True,
        limits=Limits(**limits),
    )


def played(*wishes: tuple[str, dict[str, Any]]) -> list[Answer]:
    """The answers of one process to these requests in turn, after which it ends."""

    async def run() -> list[Answer]:
        app = LiveApp()
        answers = [await call(app, path, **options).whole() for path, options in wishes]
        await app.tally.stop()
        return answers

    return asyncio.run(run())


def question(text: str) -> tuple[str, dict[str, Any]]:
    body = orjson.dumps({"namespace": "search-x7k2p", "name": "chat"})
    return "/live/authorize/", {"method": "POST", "headers": {"authorization": f"Bearer {text}"}, "body": body}


def report(document: Any, token: str = TOKEN) -> tuple[str, dict[str, Any]]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return "/live/usage/", {"method": "POST", "headers": headers, "body": body}


def used() -> list[tuple[int, int, int, int]]:
    return list(KeyUsage.objects.values_list("requests", "refused", "prompt_tokens", "completion_tokens"))


def test_the_gateway_hears_which_key_asks_and_how_long_that_counts(chat: Deployment, alice: User) -> None:
    key, text = key_of(chat, alice)
    narrow, limited = key_of(chat, alice, requests_per_minute=9)

    free, counted = played(question(text), question(limited))

    assert free.json() == {
        "subject": f"key:{key.prefix}",
        "deployment": chat.pk,
        "key": key.pk,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "cache_seconds": 4.0,
        "stale_seconds": 0.0,
    }
    assert (counted.json()["key"], counted.json()["requests_per_minute"]) == (narrow.pk, 9)
    assert counted.json()["cache_seconds"] == 0.0


def test_over_a_limit_the_gateway_hears_so_and_it_is_counted(chat: Deployment, alice: User) -> None:
    _, text = key_of(chat, alice, requests_per_minute=1)

    _, over = played(question(text), question(text))

    assert (over.status, over.json()["code"], over.json()["limit"]) == (429, "rate_limit_exceeded", "requests")
    assert 1 <= int(over.headers["retry-after"]) <= 61
    assert used() == [(0, 1, 0, 0)]  # what passes is the gateway's to report


def test_for_envoy_requests_are_counted_here_and_the_caller_gets_openais_words(chat: Deployment, alice: User) -> None:
    _, text = key_of(chat, alice, requests_per_minute=2)
    asked = (CHAT, {"method": "POST", "headers": {"authorization": f"Bearer {text}"}})

    answers = played(asked, asked, asked)

    assert [answer.status for answer in answers] == [200, 200, 429]
    error = answers[2].json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
    assert int(answers[2].headers["retry-after"]) >= 1
    assert used() == [(2, 1, 0, 0)]


def test_a_report_is_kept_and_its_tokens_are_waited_for(chat: Deployment, alice: User) -> None:
    key, text = key_of(chat, alice, tokens_per_minute=100)
    row = {"key": key.pk, "deployment": chat.pk, "requests": 1, "prompt_tokens": 60, "completion_tokens": 90}

    first, kept, over = played(question(text), report({"reports": [row]}), question(text))

    assert (first.status, kept.status, kept.json()) == (200, 200, {"kept": 1})
    assert (over.status, over.json()["limit"]) == (429, "tokens")
    assert used() == [(1, 1, 60, 90)]


@pytest.mark.parametrize("token", ["", "another", TOKEN + "x"])
def test_only_the_gateway_reports(chat: Deployment, token: str) -> None:
    (answer,) = played(report({"reports": []}, token))

    assert answer.status == 401


def test_without_a_token_set_nobody_reports(chat: Deployment, settings: Any) -> None:
    settings.GATEWAY_TOKEN = ""

    (answer,) = played(("/live/usage/", {"method": "POST", "headers": {"authorization": "Bearer "}, "body": b"{}"}))

    assert answer.status == 401


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        [],
        {"reports": 1},
        {"reports": [{}] * 1001},
        {"reports": [[]]},
        {"reports": [{"key": 0, "deployment": 1}]},
        {"reports": [{"key": 1, "deployment": 1, "requests": -1}]},
        {"reports": [{"key": 1, "deployment": 1, "prompt_tokens": 1.5}]},
        {"reports": [{"key": True, "deployment": 1}]},
        {"reports": [{"key": 2**63, "deployment": 1}]},
    ],
)
def test_a_report_that_makes_no_sense_is_refused_whole(chat: Deployment, document: Any) -> None:
    (answer,) = played(report(document))

    assert answer.status == 422
    assert used() == []


def test_reports_are_posted(chat: Deployment) -> None:
    (answer,) = played(("/live/usage/", {}))

    assert answer.status == 405


def test_a_revoked_key_is_refused_by_a_gateway_within_five_seconds(chat: Deployment, alice: User) -> None:
    """The sandbox's gateway and `live` with each other; the gateway's clock is the test's."""
    free, open_text = key_of(chat, alice)
    narrow, limited_text = key_of(chat, alice, requests_per_minute=100)
    clock = Clock()

    async def run() -> list[tuple[int, int]]:
        app = LiveApp()
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app))
        door = Authorizer("http://testserver/live/authorize/", http, clock=clock)
        seen = []

        async def ask() -> None:
            answers = [
                await door.decide("search-x7k2p", "chat", CHAT, "POST", f"Bearer {text}")
                for text in (open_text, limited_text)
            ]
            seen.append((answers[0].status, answers[1].status))

        await ask()
        for key in (free, narrow):
            await in_database(keys.revoke, principal=make.principal(alice), key_id=key.pk)
        for seconds in (0.0, 3.9, 0.2):
            clock.now += seconds
            await ask()
        await door.close()
        return seen

    # Each request of a key with limits is asked for, so that one ends at once.
    assert asyncio.run(run()) == [(200, 200), (200, 401), (200, 401), (401, 401)]


def test_limits_hold_for_several_gateways_together(
    chat: Deployment, alice: User, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gateways, each at a `live` of its own, in one Redis."""
    key, text = key_of(chat, alice, requests_per_minute=5)
    redis.Redis.from_url(redis_url).delete(*rates._names(key.pk))  # an earlier run had a key of this number
    made = [RedisCounters(redis_url) for _ in range(2)]
    turns = itertools.cycle(made)
    monkeypatch.setattr(usage, "counters", lambda: next(turns))

    async def run() -> list[int]:
        doors = [
            Authorizer("http://testserver/live/authorize/", httpx.AsyncClient(transport=httpx.ASGITransport(LiveApp())))
            for _ in range(2)
        ]
        asked = [
            doors[number % 2].decide("search-x7k2p", "chat", CHAT, "POST", f"Bearer {text}") for number in range(16)
        ]
        answers = await asyncio.gather(*asked)
        for door in doors:
            await door.close()
        return [answer.status for answer in answers]

    statuses = asyncio.run(run())

    assert (statuses.count(200), statuses.count(429)) == (5, 11)


def still(*callers: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    rows = [{"authorization": f"Bearer {text}", "namespace": "search-x7k2p", "name": name} for text, name in callers]
    return "/live/authorize-open/", {"method": "POST", "headers": {}, "body": orjson.dumps({"open": rows})}


def test_answers_under_way_are_asked_about_together_and_counted_for_nothing(chat: Deployment, alice: User) -> None:
    gone, revoked = key_of(chat, alice)
    _, limited = key_of(chat, alice, requests_per_minute=1)
    keys.revoke(principal=make.principal(alice), key_id=gone.pk)
    short = invoke.token_for(principal=make.principal(alice), deployment=chat, seconds=1)
    signed = [(short, "chat"), (short, "other")]
    with freeze_time_of(invoke, seconds=2):
        begin, under_way = played(question(short), still((limited, "chat"), (revoked, "chat"), *signed, (limited, "x")))
    assert begin.status == 401  # too late to begin an answer
    assert under_way.json() == {"may": [True, False, True, False, False]}
    assert played(question(limited))[0].status == 200  # its one request is not used up
    alice.is_active = False
    alice.save()
    assert played(still((short, "chat")))[0].json() == {"may": [False]}


@contextmanager
def freeze_time_of(module: Any, *, seconds: int) -> Iterator[None]:
    """The module's clock so many seconds ahead."""
    ahead = timezone.now() + timedelta(seconds=seconds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.timezone, "now", lambda: ahead)
        yield


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"open": {}}', b'{"open": [1]}', b'{"open": [{"namespace": "x"}]}'])
def test_a_question_about_open_answers_that_cannot_be_meant_is_refused(db: None, body: bytes) -> None:
    (answer,) = played(("/live/authorize-open/", {"method": "POST", "headers": {}, "body": body}))
    assert answer.status in {400, 422}


def test_a_key_and_its_successors_use_one_limit(chat: Deployment, alice: User, redis_url: str) -> None:
    old, text = key_of(chat, alice, requests_per_minute=3)
    second, second_text = keys.rotate(principal=make.principal(alice), key_id=old.pk, grace_hours=24)
    _, third_text = keys.rotate(principal=make.principal(alice), key_id=second.pk, grace_hours=24)

    answers = played(*(question(each) for each in (text, second_text, third_text, text, second_text, third_text)))

    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429, 429]
