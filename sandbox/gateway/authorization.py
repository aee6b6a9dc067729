"""Asks an authority whether a caller may use a model, and remembers the answer for a moment.

An answer counts for 5 s. When the authority cannot be reached, or fails, an answer up to 60 s old still counts, so
that a restart of it is not noticed; with no such answer the gateway says 503.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import httpx

log = logging.getLogger(__name__)

FRESH, STALE = 5.0, 60.0  # seconds
PATIENCE = 5.0  # seconds to wait for the authority
REMEMBERED = 10_000

_Key = tuple[str, str, str]


@dataclass(frozen=True)
class Decision:
    """200 admits; 401 and 403 refuse; 503 means nobody could be asked."""

    status: int
    message: str = ""


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
        self._known: OrderedDict[_Key, tuple[float, Decision]] = OrderedDict()
        self._asking: dict[_Key, asyncio.Task[Decision]] = {}

    async def decide(self, namespace: str, name: str, path: str, method: str, header: str | None) -> Decision:
        """Return whether the bearer of `header` may use `namespace/name`."""
        key = (hashlib.sha256((header or "").encode()).hexdigest(), namespace, name)
        known = self._known.get(key)
        if known is not None and self._clock() - known[0] <= FRESH:
            return known[1]
        task = self._asking.get(key)
        if task is None:  # of many equal questions at once only one is asked
            question = {"namespace": namespace, "name": name, "path": path, "method": method}
            task = asyncio.create_task(self._ask(key, question, header))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(self, key: _Key, question: dict[str, str], header: str | None) -> Decision:
        headers = {"Authorization": header} if header else {}
        try:
            answer = await self._http.post(self._url, json=question, headers=headers)
        except httpx.HTTPError as error:
            log.warning("authorization: %s", error or type(error).__name__)
            return self._last_known(key)
        if answer.status_code == 200:
            decision = Decision(200)
        elif answer.status_code in _REFUSALS:
            decision = Decision(answer.status_code, _REFUSALS[answer.status_code])
        else:
            log.warning("authorization: answered %d", answer.status_code)
            return self._last_known(key)
        self._known[key] = (self._clock(), decision)
        self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return decision

    def _last_known(self, key: _Key) -> Decision:
        known = self._known.get(key)
        if known is not None and self._clock() - known[0] <= STALE:
            return known[1]
        return UNREACHABLE
