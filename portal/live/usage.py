"""What gateways say was used: `POST /live/usage/`, and what `live` counts for gateways that say nothing.

A gateway proves itself with the token of SLIPWAY_GATEWAY_TOKEN; without that setting nobody can report. The body is
`{"reports": [{"key": 1, "deployment": 7, "requests": 3, "prompt_tokens": 120, "completion_tokens": 900}]}`: what was
used since the last report, keys and deployments as the answer to the question named them. An answer of 200 says that
all of it is kept; after 503 nothing is, and it may be sent again.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import Any

import orjson
from django.conf import settings
from django.db import DatabaseError, InterfaceError
from psycopg_pool import PoolTimeout

from deployments.services import usage
from deployments.services.invoke import Admission, Refusal
from deployments.services.usage import Use
from portal.live.database import in_database
from portal.live.http import Receive, Refused, Scope, Send, body_of, header_of, send_json

logger = logging.getLogger(__name__)

DATABASE_AWAY = (DatabaseError, InterfaceError, PoolTimeout)
PATH = "/live/usage/"
MOST_BODY = 256 * 1024
MOST_REPORTS = 1000
FLUSH_SECONDS = 2.0
MOST_HELD = 10_000  # rows kept while the database is away
NUMBERS = ("requests", "refused", "prompt_tokens", "completion_tokens")
CHALLENGE = (b"www-authenticate", b'Bearer realm="slipway-gateway"')


async def usage_report(scope: Scope, receive: Receive, send: Send) -> None:
    """Keep what a gateway reports. 401 for whoever is not the gateway, 422 for what cannot be meant."""
    if not from_gateway(header_of(scope, b"authorization")):
        raise Refused(401, "not_the_gateway", "Only the gateway reports what keys use.", headers=[CHALLENGE])
    uses = uses_of(await body_of(receive, most=MOST_BODY))
    await send_json(send, 200, {"kept": await in_database(usage.report, uses)})


def from_gateway(header: str) -> bool:
    """True for the header that carries the gateway's token."""
    token = settings.GATEWAY_TOKEN
    return bool(token) and hmac.compare_digest(header.encode(), f"Bearer {token}".encode())


def uses_of(body: bytes) -> list[Use]:
    """The rows of a report; Refused with 422 and a pointer otherwise."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(422, "invalid", "Send JSON with a list of reports.") from None
    rows = document.get("reports") if isinstance(document, dict) else None
    if not isinstance(rows, list) or len(rows) > MOST_REPORTS:
        raise Refused(422, "invalid", f"Send at most {MOST_REPORTS} reports.", pointer="/reports")
    return [_use(row, index) for index, row in enumerate(rows)]


class Tally:
    """Counts of this process on their way to the database: one statement in `every` seconds, however many there are."""

    def __init__(self, every: float = FLUSH_SECONDS) -> None:
        self._every = every
        self._held: list[Use] = []
        self._flushing: asyncio.Task[None] | None = None

    def admitted(self, admission: Admission) -> None:
        """Count a request that passes."""
        if admission.key is not None:
            self._add(Use(admission.key.key_id, admission.deployment_id, requests=1))

    def refused(self, refusal: Refusal) -> None:
        """Count a request over a limit; others belong to no key."""
        if refusal.key_id:
            self._add(Use(refusal.key_id, refusal.deployment_id, refused=1))

    def used(self, use: Use) -> None:
        """Count what an answer took."""
        self._add(use)

    async def flush(self) -> None:
        """Write what is held now; what the database does not take is held until the next time."""
        held, self._held = self._held, []
        if not held:
            return
        try:
            await in_database(usage.report, held)
        except DATABASE_AWAY as error:
            logger.warning("live: usage of %d requests is not kept yet: %s", len(held), error)
            self._held = [*held, *self._held][:MOST_HELD]

    async def stop(self) -> None:
        """Write what is held, at the end of the process."""
        if self._flushing is not None:
            self._flushing.cancel()
        await self.flush()

    def _add(self, use: Use) -> None:
        if len(self._held) < MOST_HELD:
            self._held.append(use)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_later())

    async def _flush_later(self) -> None:
        while self._held:
            await asyncio.sleep(self._every)
            await self.flush()


def _use(row: Any, index: int) -> Use:
    def number(name: str, least: int) -> int:
        value = row.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
            words = f"“{name}” must be a whole number from {least}."
            raise Refused(422, "invalid", words, pointer=f"/reports/{index}/{name}")
        return value

    if not isinstance(row, dict):
        raise Refused(422, "invalid", "Each report is an object.", pointer=f"/reports/{index}")
    return Use(number("key", 1), number("deployment", 1), *(number(name, 0) for name in NUMBERS))
