"""Answers under way, and whether their callers may still have them: all of them are asked about in one call.

A caller who lost the right is cut off within five seconds. Where the authority cannot be reached, or knows no such
question, answers go on: they were admitted, and the next request is asked about by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import httpx

log = logging.getLogger(__name__)

EVERY = 2.0  # seconds between an answer and the next question
PATIENCE = 2.5  # seconds to wait for an answer
MOST = 200  # callers in one question

_Caller = tuple[str, str, str]  # authorization header, namespace, name


class OpenStreams:
    """Who is being answered just now."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = f"{url.rstrip('/')}-open/"
        self._http = http
        self._open: dict[_Caller, set[asyncio.Future[None]]] = {}
        self._asking: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def one(self, header: str, namespace: str, name: str) -> Iterator[asyncio.Future[None]]:
        """While this lasts, the future is done once the caller has lost the right."""
        caller = (header, namespace, name)
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open.setdefault(caller, set()).add(lost)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._run())
        try:
            yield lost
        finally:
            lost.cancel()
            held = self._open.get(caller, set())
            held.discard(lost)
            if not held:
                self._open.pop(caller, None)

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _run(self) -> None:
        while self._open:
            await asyncio.sleep(EVERY)
            callers = list(self._open)
            for start in range(0, len(callers), MOST):
                for caller in await self._lost(callers[start : start + MOST]):
                    for lost in self._open.get(caller, set()):
                        if not lost.done():
                            lost.set_result(None)

    async def _lost(self, callers: list[_Caller]) -> list[_Caller]:
        """Those of the callers who may not go on."""
        rows = [{"authorization": header, "namespace": space, "name": name} for header, space, name in callers]
        try:
            answer = await self._http.post(self._url, json={"open": rows}, timeout=PATIENCE)
            told: Any = answer.json() if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError) as error:
            log.warning("open streams: %s", error or type(error).__name__)
            return []
        may = told.get("may") if isinstance(told, dict) else None
        if not isinstance(may, list) or len(may) != len(callers):
            log.warning("open streams: answered %d", answer.status_code)
            return []
        return [caller for caller, still in zip(callers, may, strict=True) if still is False]
