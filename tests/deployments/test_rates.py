"""Limits of keys: what passes in a minute, the same in Redis and in one process's memory, and without Redis."""

from __future__ import annotations

import itertools
import random
import threading
from typing import Any

import pytest
import redis

from deployments.services import rates
from deployments.services.rates import OwnCounters, RedisCounters, SharedCounters, Taken

_keys = itertools.count(random.Random().randrange(10**9))  # Redis outlives the test


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own(clock: Clock) -> OwnCounters:
    return OwnCounters(clock)


def test_never_more_requests_than_the_limit_in_any_minute(own: OwnCounters, clock: Clock) -> None:
    passed = []
    for _ in range(3000):
        clock.now += 0.1
        if not own.take(1, 7, 0).limit:
            passed.append(clock.now)

    assert max(sum(1 for at in passed if start <= at < start + 60) for start in passed) == 7
    assert 28 <= len(passed) <= 35  # of five minutes' 35


def test_the_wait_is_until_one_passes_again(own: OwnCounters, clock: Clock) -> None:
    own.take(1, 2, 0)
    clock.now += 10
    own.take(1, 2, 0)

    refused = own.take(1, 2, 0)

    assert refused == Taken("requests", 51.0)
    clock.now += refused.wait
    assert own.take(1, 2, 0) == Taken()


def test_tokens_are_taken_afterwards_and_their_debt_is_waited_for(own: OwnCounters, clock: Clock) -> None:
    assert own.take(1, 0, 600) == Taken()
    own.spend(1, 600, 1200)

    assert own.take(1, 0, 600) == Taken("tokens", 60.1)
    clock.now += 60.1
    assert own.take(1, 0, 600) == Taken()
    clock.now += 10_000
    own.spend(1, 600, 599)  # never more than a minute's worth was saved up
    assert own.take(1, 0, 600) == Taken()
    own.spend(1, 600, 2)
    assert own.take(1, 0, 600).limit == "tokens"


def test_keys_do_not_use_up_each_others_limits(own: OwnCounters) -> None:
    assert [own.take(key, 1, 0).limit for key in (1, 1, 2)] == ["", "requests", ""]


def test_redis_counts_as_this_process_does(redis_url: str, clock: Clock) -> None:
    """The same questions in one second and over a few; Redis has a clock of its own, so waits agree to a second."""
    shared, chance = RedisCounters(redis_url), random.Random(7)
    for _ in range(20):
        key, requests, tokens = next(_keys), chance.choice([0, 1, 3, 5]), chance.choice([0, 60, 600])
        own = OwnCounters(clock)
        for _ in range(12):
            if tokens and chance.random() < 0.4:
                spent = chance.randrange(1, 500)
                own.spend(key, tokens, spent)
                shared.spend(key, tokens, spent)
            mine, theirs = own.take(key, requests, tokens), shared.take(key, requests, tokens)
            assert mine.limit == theirs.limit
            assert abs(mine.wait - theirs.wait) <= 1.5


def test_several_gateways_share_one_count(redis_url: str) -> None:
    key, passed = next(_keys), []

    def gateway() -> None:
        counters = RedisCounters(redis_url)
        passed.extend(1 for _ in range(25) if not counters.take(key, 20, 0).limit)

    threads = [threading.Thread(target=gateway) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(passed) == 20


def test_counts_do_not_stay_in_redis_for_ever(redis_url: str) -> None:
    key, shared = next(_keys), RedisCounters(redis_url)
    shared.take(key, 5, 60)
    shared.spend(key, 60, 6000)

    client = redis.Redis.from_url(redis_url)
    requested, spent = (client.ttl(name) for name in rates._names(key))

    assert 60 < requested <= 120
    assert 6000 <= spent <= 6060  # until the debt is paid, and a minute


class Away:
    def __init__(self) -> None:
        self.asked = 0
        self.back = False

    def take(self, key_id: int, requests: int, tokens: int) -> Taken:
        self._answer()
        return Taken("requests", 1.0)

    def spend(self, key_id: int, tokens: int, spent: int) -> None:
        self._answer()

    def _answer(self) -> Any:
        self.asked += 1
        if not self.back:
            raise redis.ConnectionError("away")


def test_without_redis_this_process_counts_alone_and_asks_again_later(own: OwnCounters, clock: Clock) -> None:
    away = Away()
    both = SharedCounters(away, own, clock)

    assert [both.take(1, 2, 0).limit for _ in range(3)] == ["", "", "requests"]
    both.spend(1, 60, 5)
    assert away.asked == 1
    away.back = True
    clock.now += rates.ASK_AGAIN
    assert both.take(2, 2, 0) == Taken("requests", 1.0)


def test_a_redis_that_is_away_costs_little(own: OwnCounters) -> None:
    both = SharedCounters(RedisCounters("redis://127.0.0.1:9/0"), own)

    assert both.take(1, 1, 0) == Taken()
