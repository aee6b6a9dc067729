"""Reports to the authority of what keys used, and limits that hold for a key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from sandbox.gateway.authorization import Authorizer, Decision
from sandbox.gateway.reporting import Reporter

CHAT = "/team/chat/v1/chat/completions"


# Reporting -----------------------------------------------------------------------------------------------------------


class Books:
    """An authority that keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[int | Exception] = []
        self.kept: list[Any] = []
        self.tokens: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        if answer == 200:
            self.kept.extend(orjson.loads(request.read())["reports"])
            self.tokens.add(request.headers["authorization"])
        return httpx.Response(answer)


def reported(tmp_path: Path, *answers: int | Exception) -> tuple[Books, list[bool]]:
    (tmp_path / "token").write_text("secret\n")

    async def run() -> list[bool]:
        reporter = Reporter(
            "http://portal/live/usage/", tmp_path / "token", httpx.AsyncClient(transport=httpx.MockTransport(books))
        )
        for number in range(3):
            reporter.add(1, 7, prompt_tokens=10, completion_tokens=number)
        reporter.add(2, 7, prompt_tokens=1, completion_tokens=1)
        return [await reporter.flush() for _ in range(len(answers) + 1)]

    books = Books()
    books.answers = list(answers)
    return books, asyncio.run(run())


ROWS = [
    {"key": 1, "deployment": 7, "requests": 3, "prompt_tokens": 30, "completion_tokens": 3},
    {"key": 2, "deployment": 7, "requests": 1, "prompt_tokens": 1, "completion_tokens": 1},
]


def test_what_keys_used_is_told_together(tmp_path: Path) -> None:
    books, done = reported(tmp_path)

    assert (books.kept, books.tokens, done) == (ROWS, {"Bearer secret"}, [True])


@pytest.mark.parametrize("trouble", [httpx.ConnectError("refused"), 503, 401])
def test_what_was_not_kept_is_told_again(tmp_path: Path, trouble: int | Exception) -> None:
    books, done = reported(tmp_path, trouble)

    assert (books.kept, done) == (ROWS, [False, True])


@pytest.mark.parametrize("trouble", [httpx.ReadTimeout("slow"), 422])
def test_what_may_have_been_kept_is_not_told_twice(tmp_path: Path, trouble: int | Exception) -> None:
    books, done = reported(tmp_path, trouble)

    assert (books.kept, done) == ([], [True, True])


# Keys at the door ----------------------------------------------------------------------------------------------------


class Authority:
    """An authority that answers as it is told, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = 1000.0
        self.answer: Callable[[], httpx.Response] = lambda: httpx.Response(200, json={})
        self.slow = 0.0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await asyncio.sleep(0)
        self.now += self.slow
        return self.answer()


Ask = Callable[[], Awaitable[Decision]]


def play(scene: Callable[[Authority, Ask], Awaitable[None]]) -> None:
    async def whole() -> None:
        authority = Authority()
        http = httpx.AsyncClient(transport=httpx.MockTransport(authority))
        door = Authorizer("http://portal/live/authorize/", http, clock=lambda: authority.now)

        async def ask() -> Decision:
            return await door.decide("team", "chat", CHAT, "POST", "Bearer slk_x")

        await scene(authority, ask)
        await door.close()

    asyncio.run(whole())


def admitted(**told: Any) -> Callable[[], httpx.Response]:
    terms = {"key": 3, "deployment": 7, "cache_seconds": 5.0, "stale_seconds": 0.0, **told}
    return lambda: httpx.Response(200, json=terms)


def test_a_revoked_key_is_refused_within_five_seconds_of_the_last_question() -> None:
    async def scene(authority: Authority, ask: Ask) -> None:
        authority.answer, authority.slow = admitted(), 2.0
        decision = await ask()
        assert (decision.status, decision.key, decision.deployment) == (200, 3, 7)
        authority.slow = 0.0
        authority.answer = lambda: httpx.Response(401)  # revoked right after the answer was made
        authority.now += 1.9  # 3.9 s since the question
        assert (await ask()).status == 200
        authority.now += 0.2
        assert (await ask()).status == 401

    play(scene)


@pytest.mark.parametrize(("told", "lasts"), [(2.0, 2.0), (3600, 4.0), ("x", 4.0), (True, 4.0), (-1, 0.0)])
def test_the_authority_may_say_less_than_five_seconds_never_more(told: Any, lasts: float) -> None:
    async def scene(authority: Authority, ask: Ask) -> None:
        authority.answer = admitted(cache_seconds=told)
        await ask()
        authority.now += lasts + 0.1
        await ask()
        assert authority.asked == 2

    play(scene)


def test_with_the_authority_away_a_key_opens_nothing_that_was_not_just_asked() -> None:
    async def scene(authority: Authority, ask: Ask) -> None:
        authority.answer = admitted()
        await ask()
        authority.answer = lambda: httpx.Response(502)
        authority.now += 4
        assert (await ask()).status == 200
        authority.now += 2
        assert (await ask()).status == 503

    play(scene)


def test_of_a_key_with_limits_every_request_is_asked_for_also_many_at_once() -> None:
    async def scene(authority: Authority, ask: Ask) -> None:
        left = 7

        def counted() -> httpx.Response:
            nonlocal left
            left -= 1
            if left < 0:
                told = {"limit": "tokens", "message": "Used up."}
                return httpx.Response(429, json=told, headers={"retry-after": "12"})
            return admitted(cache_seconds=0.0)()

        authority.answer = counted
        decisions = [*await asyncio.gather(*(ask() for _ in range(10))), *[await ask() for _ in range(3)]]
        assert [item.status for item in decisions].count(200) == 7
        assert authority.asked == 13
        assert decisions[-1] == Decision(429, "Used up.", limit="tokens", retry_after=12, fresh=0.0, stale=0.0)

    play(scene)
