"""Asks an authority whether a caller may use a model, and remembers the answer for a moment.

An answer counts for 4 s from the question on, or for less where it says so (`cache_seconds`): what was revoked is
refused within that time. 0 means that each request is a question of its own, because the authority counts them against
a limit. When the authority cannot be reached, or fails, an answer up to 60 s old still counts, so that a restart of it
is not noticed, unless it says otherwise (`stale_seconds`: 0 for keys, which somebody may revoke meanwhile); with no
such answer the gateway says 503.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from sandbox.gateway.open_streams import OpenStreams

log = logging.getLogger(__name__)

FRESH, STALE = 4.0, 60.0  # seconds
PATIENCE = 5.0  # seconds to wait for the authority
REMEMBERED = 10_000

_Key = tuple[str, str, str]


@dataclass(frozen=True)
class Decision:
    """200 admits; 401, 403 and 429 refuse; 503 means nobody could be asked.

    `key` and `deployment` are named where a key was used, whose use is reported. `limit` says what of a key is used up,
    and `retry_after` for how many seconds.
    """

    status: int
    message: str = ""
    key: int | None = None
    deployment: int | None = None
    limit: str = ""
    retry_after: int = 1
    fresh: float = FRESH
    stale: float = STALE


UNREACHABLE = Decision(503, "The authority that admits requests cannot be reached. Try again in a moment.")
_REFUSALS = {
    401: "The key is missing, unknown or expired.",
    403: "The key does not admit to this model.",
}


class Authorizer:
    """The one that asks."""

    def __init__(
        self, url: str, http: httpx.AsyncClient | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._http = http or httpx.AsyncClient(timeout=PATIENCE, trust_env=False)
        self._clock = clock
        self.open = OpenStreams(url, self._http)
        self._known: OrderedDict[_Key, tuple[float, Decision]] = OrderedDict()
        self._asking: dict[_Key, asyncio.Task[Decision]] = {}
        self._each: OrderedDict[_Key, None] = OrderedDict()  # of these every request is asked for

    async def decide(self, namespace: str, name: str, path: str, method: str, header: str | None) -> Decision:
        """Return whether the bearer of `header` may use `namespace/name`."""
        key = (hashlib.sha256((header or "").encode()).hexdigest(), namespace, name)
        known = self._known.get(key)
        if known is not None and self._clock() - known[0] <= known[1].fresh:
            return known[1]
        question = {"namespace": namespace, "name": name, "path": path, "method": method}
        if key in self._each:
            return await self._ask(key, question, header)
        task = self._asking.get(key)
        if task is not None:  # of many equal questions at once only one is asked
            decision = await asyncio.shield(task)
            return decision if decision.fresh > 0 else await self._ask(key, question, header)
        task = asyncio.create_task(self._ask(key, question, header))
        self._asking[key] = task
        task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Close the connections."""
        await self.open.close()
        await self._http.aclose()

    async def _ask(self, key: _Key, question: dict[str, str], header: str | None) -> Decision:
        headers = {"Authorization": header} if header else {}
        asked_at = self._clock()
        try:
            answer = await self._http.post(self._url, json=question, headers=headers)
        except httpx.HTTPError as error:
            log.warning("authorization: %s", error or type(error).__name__)
            return self._last_known(key)
        decision = _read(answer)
        if decision is None:
            log.warning("authorization: answered %d", answer.status_code)
            return self._last_known(key)
        self._remember(key, asked_at, decision)
        return decision

    def _remember(self, key: _Key, asked_at: float, decision: Decision) -> None:
        if decision.fresh > 0:
            self._each.pop(key, None)
            self._known[key] = (asked_at, decision)
            self._known.move_to_end(key)
        else:
            self._known.pop(key, None)
            self._each[key] = None
            self._each.move_to_end(key)
        for held in (self._known, self._each):
            while len(held) > REMEMBERED:
                held.popitem(last=False)

    def _last_known(self, key: _Key) -> Decision:
        known = self._known.get(key)
        if known is not None and self._clock() - known[0] <= known[1].stale:
            return known[1]
        return UNREACHABLE


def _read(answer: httpx.Response) -> Decision | None:
    """The decision that an answer tells; None when it is none."""
    status = answer.status_code
    if status in _REFUSALS:
        return Decision(status, _REFUSALS[status])
    if status not in (200, 429):
        return None
    try:
        told: Any = answer.json()
    except ValueError:
        told = {}
    told = told if isinstance(told, dict) else {}
    if status == 429:
        wait = answer.headers.get("retry-after", "")
        seconds = int(wait) if wait.isascii() and wait.isdigit() else 1
        limit, message = str(told.get("limit", "")), str(told.get("message", ""))
        return Decision(429, message, limit=limit, retry_after=max(1, seconds), fresh=0.0, stale=0.0)
    return Decision(
        200,
        key=_whole(told.get("key")),
        deployment=_whole(told.get("deployment")),
        fresh=_seconds(told.get("cache_seconds"), FRESH),
        stale=_seconds(told.get("stale_seconds"), STALE),
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(value: Any, most: float) -> float:
    """Seconds as told, at most `most`; that where nothing is told."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return most
    return min(max(0.0, float(value)), most)
