"""Tells the authority what keys used: together, a few times a second at most, and again where it was away.

What an authority may or may not have kept (it was asked and did not answer in time) is not sent again: a key is
rather given a batch too little than one twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path

import httpx

log = logging.getLogger(__name__)

EVERY = 0.25  # seconds between two reports
AGAIN = 2.0  # seconds until one that failed is tried again
PATIENCE = 5.0
MOST_ROWS = 1000
NAMES = ("requests", "prompt_tokens", "completion_tokens")

_Where = tuple[int, int]


class Reporter:
    """What is not reported yet, and the one that reports it."""

    def __init__(self, url: str, token: Path, http: httpx.AsyncClient | None = None) -> None:
        self._url = url
        self._token = token
        self._http = http or httpx.AsyncClient(timeout=PATIENCE, trust_env=False)
        self._used: dict[_Where, Counter[str]] = {}
        self._news = asyncio.Event()

    def add(self, key: int, deployment: int, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Count one request of a key."""
        counted = {"requests": 1, "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        self._put({(key, deployment): Counter(counted)})
        self._news.set()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(EVERY if await self.flush() else AGAIN)

    async def flush(self) -> bool:
        """Send what is there; False when some of it has to be sent again."""
        self._news.clear()
        waiting, self._used = self._used, {}
        kept = True
        rows = list(waiting.items())
        for start in range(0, len(rows), MOST_ROWS):
            batch = dict(rows[start : start + MOST_ROWS])
            if not await self._send(batch):
                self._put(batch)
                self._news.set()
                kept = False
        return kept

    async def close(self) -> None:
        """Send the rest, and close the connections."""
        await self.flush()
        await self._http.aclose()

    def _put(self, used: dict[_Where, Counter[str]]) -> None:
        for where, counted in used.items():
            self._used.setdefault(where, Counter()).update(counted)

    async def _send(self, batch: dict[_Where, Counter[str]]) -> bool:
        """Send one report; False when it surely was not kept."""
        reports = [
            {"key": key, "deployment": deployment, **{name: counted[name] for name in NAMES}}
            for (key, deployment), counted in batch.items()
        ]
        try:
            headers = {"Authorization": f"Bearer {self._token.read_text().strip()}"}
            answer = await self._http.post(self._url, json={"reports": reports}, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, OSError) as error:
            log.warning("usage: %s", error or type(error).__name__)
            return False
        except httpx.HTTPError as error:
            log.warning("usage: %d rows may be lost: %s", len(reports), error or type(error).__name__)
            return True
        if answer.status_code == 200:
            return True
        log.warning("usage: answered %d", answer.status_code)
        return answer.status_code not in (401, 503)  # others would be answered the same again
