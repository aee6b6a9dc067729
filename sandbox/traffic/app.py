"""Sends background requests through the gateway to the services that are to have some."""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson

from sandbox.client import Client, Reflector, resource_path
from sandbox.traffic.shape import next_arrival, question

log = logging.getLogger(__name__)

Obj = dict[str, Any]
ANNOTATION = "sandbox.slipway.dev/traffic"
SERVICES = resource_path("serving.kserve.io/v1beta1", "inferenceservices")
MOST_AT_ONCE = 64
ANSWER_SECONDS = 300.0
REPORT_SECONDS = 60.0


class Traffic:
    """One stream of requests for each ready InferenceService that has a rate."""

    def __init__(
        self, client: Client, gateway_url: str, *, plan: Path | None, token: Path | None, keys: Path | None = None
    ) -> None:
        self.services = Reflector(client, SERVICES, on_change=lambda kind, obj: self._changed.set())
        self.plan = plan
        self.token = token
        self.keys = keys
        self.sent: Counter[str] = Counter()
        self.refusals: dict[int, str] = {}
        self._changed = asyncio.Event()
        self._streams: dict[tuple[str, str], tuple[float, asyncio.Task[None]]] = {}
        self._http = httpx.AsyncClient(
            base_url=gateway_url,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=5.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            trust_env=False,
        )

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.services.run())
            tasks.create_task(self._report())
            while True:
                self._adjust(tasks)
                await self._changed.wait()
                self._changed.clear()

    def _adjust(self, tasks: asyncio.TaskGroup) -> None:
        """Begin and end streams so that they match the services and their rates."""
        rates = rates_of(self.services.store, read_plan(self.plan))
        for key, (rate, stream) in list(self._streams.items()):
            if rates.get(key) != rate:
                stream.cancel()
                del self._streams[key]
        for key, rate in rates.items():
            if key not in self._streams:
                log.info("%s/%s: about %g requests a second", *key, rate)
                self._streams[key] = rate, tasks.create_task(self._stream(*key, rate))

    async def _stream(self, namespace: str, name: str, rate: float) -> None:
        """Send to one service at its rate; the day's phase follows from the name, so that not all peak together."""
        phase = hashlib.sha256(f"{namespace}/{name}".encode()).digest()[0] / 256
        chance = random.Random(f"{namespace}/{name}/{time.time()}")  # noqa: S311 - load, no secret
        free = asyncio.Semaphore(MOST_AT_ONCE)
        now = time.time()
        async with asyncio.TaskGroup() as requests:
            while True:
                now = max(next_arrival(now, rate, phase, chance), time.time() - 1.0)
                await asyncio.sleep(max(0.0, now - time.time()))
                if free.locked():
                    self.sent["held back"] += 1
                    continue
                await free.acquire()
                asked = requests.create_task(self._ask(namespace, name, chance))
                asked.add_done_callback(lambda _: free.release())

    async def _ask(self, namespace: str, name: str, chance: random.Random) -> None:
        asked = question(chance)
        messages = [{"role": "system", "content": asked.system}] if asked.system else []
        body = {
            "model": name,
            "messages": [*messages, {"role": "user", "content": asked.text}],
            "max_tokens": asked.max_tokens,
        }
        headers = {"content-type": "application/json", "x-slipway-traffic": "1"}
        if token := self._token(namespace):
            headers["authorization"] = f"Bearer {token}"
        try:
            answer = await self._http.post(
                f"/{namespace}/{name}/v1/chat/completions", content=orjson.dumps(body), headers=headers
            )
            self.sent[f"{namespace}/{name} {answer.status_code}"] += 1
            if answer.status_code >= 400:
                self.refusals[answer.status_code] = answer.text[:300]
        except httpx.HTTPError as error:
            self.sent[f"{namespace}/{name} {type(error).__name__}"] += 1

    def _token(self, namespace: str) -> str:
        """What is sent as proof: the namespace's own key, else the token. Read each time, as either may be rotated."""
        if self.keys is not None and self.keys.exists():
            known = orjson.loads(self.keys.read_bytes())
            if namespace in known:
                return str(known[namespace])
        return self.token.read_text().strip() if self.token is not None and self.token.exists() else ""

    async def _report(self) -> None:
        """Say each minute what became of the requests, and look at the plan again."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            if self.sent:
                log.info("answers: %s", ", ".join(f"{what}: {count}" for what, count in sorted(self.sent.items())))
            for status, text in self.refusals.items():
                log.warning("the last %d said: %s", status, text)
            self.sent.clear()
            self.refusals.clear()
            self._changed.set()


def read_plan(path: Path | None) -> dict[str, float]:
    """Return requests a second by pattern `namespace/name` (`*` allowed); nothing when there is no file."""
    if path is None or not path.exists():
        return {}
    return {str(pattern): float(rate) for pattern, rate in orjson.loads(path.read_bytes()).items()}


def rates_of(services: Mapping[tuple[str, str], Obj], plan: Mapping[str, float]) -> dict[tuple[str, str], float]:
    """Return the rate of each service that is ready and has one: its annotation first, then the plan's first match."""
    rates: dict[tuple[str, str], float] = {}
    for (namespace, name), service in services.items():
        annotation = (service["metadata"].get("annotations") or {}).get(ANNOTATION)
        rate = _number(annotation) if annotation is not None else _planned(f"{namespace}/{name}", plan)
        if rate > 0 and _is_ready(service):
            rates[namespace, name] = rate
    return rates


def _planned(key: str, plan: Mapping[str, float]) -> float:
    return next((rate for pattern, rate in plan.items() if fnmatch.fnmatchcase(key, pattern)), 0.0)


def _number(text: str) -> float:
    try:
        return min(float(text), 1000.0)
    except ValueError:
        return 0.0


def _is_ready(service: Obj) -> bool:
    conditions = service.get("status", {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
