"""How much a key may use in a minute, counted in Redis: all gateways and processes of `live` share one count.

Requests: never more than the limit in any 60 s, counted by whole seconds. Tokens: a bucket that holds one minute's
worth and fills evenly. Nobody knows an answer's tokens before it is over, so a request passes while the bucket holds
anything, and what it really took is taken out afterwards; the debt is waited for.

**While Redis is away each process counts for itself.** Limits share out what models can do and admit nobody: who may
call is PostgreSQL's to say. So callers are not turned away for want of a counter; with n processes of `live` a key may
have n times its limits until Redis is back.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

T = TypeVar("T")

logger = logging.getLogger(__name__)

WINDOW = 60  # seconds
SECONDS = 0.25  # for a connection to Redis, and for its answer
ASK_AGAIN = 5.0  # seconds without asking a Redis that did not answer
KEYS_HELD = 10_000

TAKE = """
local per_minute, tokens_per_minute = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second + tonumber(time[2]) / 1000000
if tokens_per_minute > 0 then
  local held = redis.call('HMGET', KEYS[2], 'level', 'at')
  if held[1] then
    local filled = math.max(0, now - tonumber(held[2])) * tokens_per_minute / 60
    local level = math.min(tokens_per_minute, tonumber(held[1]) + filled)
    if level <= 0 then
      return {'tokens', tostring((1 - level) * 60 / tokens_per_minute)}
    end
  end
end
if per_minute > 0 then
  local counted, used, seconds = redis.call('HGETALL', KEYS[1]), 0, {}
  for i = 1, #counted, 2 do
    local at = tonumber(counted[i])
    if at < second - 60 then
      redis.call('HDEL', KEYS[1], counted[i])
    else
      used = used + tonumber(counted[i + 1])
      seconds[#seconds + 1] = {at, tonumber(counted[i + 1])}
    end
  end
  if used >= per_minute then
    table.sort(seconds, function(a, b) return a[1] < b[1] end)
    local left = used
    for _, entry in ipairs(seconds) do
      left = left - entry[2]
      if left < per_minute then
        return {'requests', tostring(entry[1] + 61 - now)}
      end
    end
  end
  redis.call('HINCRBY', KEYS[1], second, 1)
  redis.call('EXPIRE', KEYS[1], 120)
end
return {'', '0'}
"""

SPEND = """
local tokens_per_minute, spent = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local held, level = redis.call('HMGET', KEYS[1], 'level', 'at'), tokens_per_minute
if held[1] then
  local filled = math.max(0, now - tonumber(held[2])) * tokens_per_minute / 60
  level = math.min(tokens_per_minute, tonumber(held[1]) + filled)
end
level = level - spent
redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil((tokens_per_minute - level) * 60 / tokens_per_minute) + 60)
return tostring(level)
"""


@dataclass(frozen=True)
class Taken:
    """Whether a request passes: `limit` names what is used up (requests, tokens; empty: it passes), `wait` in s."""

    limit: str = ""
    wait: float = 0.0


class Counters(Protocol):
    """One place that counts. A limit of 0 is none."""

    def take(self, key_id: int, requests: int, tokens: int) -> Taken:
        """Count one request that passes; one that does not is not counted."""

    def spend(self, key_id: int, tokens: int, spent: int) -> None:
        """Take what an answer used out of a key's bucket of `tokens` a minute."""


class RedisCounters:
    """Counts shared by everybody who has this Redis. Each call is one script, which nothing comes between."""

    def __init__(self, url: str) -> None:
        client = redis.Redis.from_url(
            url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS, retry=Retry(NoBackoff(), 0)
        )
        self._take: Callable[..., Any] = client.register_script(TAKE)
        self._spend: Callable[..., Any] = client.register_script(SPEND)

    def take(self, key_id: int, requests: int, tokens: int) -> Taken:
        """As promised; raises redis.RedisError."""
        requested, spent = _names(key_id)
        limit, wait = self._take(keys=[requested, spent], args=[requests, tokens])
        return Taken(limit.decode(), float(wait))

    def spend(self, key_id: int, tokens: int, spent: int) -> None:
        """As promised; raises redis.RedisError."""
        self._spend(keys=[_names(key_id)[1]], args=[tokens, spent])


@dataclass
class _Use:
    seconds: dict[int, int] = field(default_factory=dict)
    level: float | None = None
    at: float = 0.0


class OwnCounters:
    """The same counts in the memory of this process, of the keys that were last used."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._uses: OrderedDict[int, _Use] = OrderedDict()
        self._guard = threading.Lock()

    def take(self, key_id: int, requests: int, tokens: int) -> Taken:
        """As promised."""
        with self._guard:
            now = self._clock()
            use = self._use(key_id)
            if tokens and (level := _level(use, tokens, now)) <= 0:
                return Taken("tokens", (1 - level) * WINDOW / tokens)
            if requests:
                return _count(use, requests, now)
            return Taken()

    def spend(self, key_id: int, tokens: int, spent: int) -> None:
        """As promised."""
        with self._guard:
            now = self._clock()
            use = self._use(key_id)
            use.level, use.at = _level(use, tokens, now) - spent, now

    def _use(self, key_id: int) -> _Use:
        use = self._uses.setdefault(key_id, _Use())
        self._uses.move_to_end(key_id)
        while len(self._uses) > KEYS_HELD:
            self._uses.popitem(last=False)
        return use


class SharedCounters:
    """Redis while it answers, else this process alone; a Redis that is away is asked again every five seconds."""

    def __init__(self, shared: Counters, own: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared, self._own, self._clock = shared, own, clock
        self._away_until = float("-inf")

    def take(self, key_id: int, requests: int, tokens: int) -> Taken:
        """As promised."""
        return self._by_whom_answers(lambda counters: counters.take(key_id, requests, tokens))

    def spend(self, key_id: int, tokens: int, spent: int) -> None:
        """As promised."""
        self._by_whom_answers(lambda counters: counters.spend(key_id, tokens, spent))

    def _by_whom_answers(self, ask: Callable[[Counters], T]) -> T:
        if self._clock() >= self._away_until:
            try:
                return ask(self._shared)
            except redis.RedisError as error:
                logger.warning("rates: Redis is away, limits are counted by this process alone: %s", error)
                self._away_until = self._clock() + ASK_AGAIN
        return ask(self._own)


_made: dict[str, SharedCounters] = {}


def counters() -> SharedCounters:
    """The counters of this process."""
    url = settings.REDIS_URL
    if url not in _made:
        _made[url] = SharedCounters(RedisCounters(url), OwnCounters())
    return _made[url]


def _names(key_id: int) -> tuple[str, str]:
    # The braces keep both in one slot of a Redis cluster.
    return f"slipway:key:{{{key_id}}}:requests", f"slipway:key:{{{key_id}}}:tokens"


def _level(use: _Use, tokens: int, now: float) -> float:
    if use.level is None:
        return tokens
    return min(tokens, use.level + max(0.0, now - use.at) * tokens / WINDOW)


def _count(use: _Use, requests: int, now: float) -> Taken:
    second = math.floor(now)
    use.seconds = {at: count for at, count in use.seconds.items() if at >= second - WINDOW}
    left = sum(use.seconds.values())
    if left >= requests:
        for at, count in sorted(use.seconds.items()):
            left -= count
            if left < requests:
                return Taken("requests", at + WINDOW + 1 - now)
    use.seconds[second] = use.seconds.get(second, 0) + 1
    return Taken()
