"""Running requests in real time: one timer for the simulator, and the text of each answer.

Background traffic gets filler words. A person's request gets the words of the sandbox's language model, let
through at the pace of the simulated GPU; when that model cannot be reached the request fails, no text is made up.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson

from sandbox.engine import tokens
from sandbox.engine.protocol import Refused, Wish
from sandbox.engine.simulator import SimRequest, Simulator

HEALTH_TIMEOUT = 5.0
MODEL_TIMEOUT = httpx.Timeout(10.0, read=120.0, pool=None)
STOPPED_SHARE = 0.7  # of background answers that end by themselves, before max_tokens
TRAFFIC_TOKENS = 200  # of a background answer that sets no limit


class Generation:
    """One request under way: what the simulator delivered and was not yet sent."""

    def __init__(self) -> None:
        self.pending = 0
        self.reason: str | None = None
        self.failure: Refused | None = None
        self.changed = asyncio.Event()

    def deliver(self, count: int, reason: str | None) -> None:
        """Called by the simulator."""
        self.pending += count
        self.reason = reason
        self.changed.set()

    def fail(self, failure: Refused) -> None:
        """The text cannot be had."""
        self.failure = failure
        self.changed.set()

    async def next(self) -> tuple[int, str | None]:
        """Wait for tokens or the end; raises Refused when the text failed."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            if self.failure is not None:
                raise self.failure
            if self.pending or self.reason is not None:
                count, self.pending = self.pending, 0
                return count, self.reason


class Runner:
    """Drives one simulator by the event loop's clock."""

    def __init__(self, simulator: Simulator, model_url: str, http: httpx.AsyncClient) -> None:
        self.simulator = simulator
        self.model_url = model_url.rstrip("/")
        self.http = http
        self.on_add: Callable[[], None] = lambda: None
        self.max_queued: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._random = random.Random()  # noqa: S311 - lengths of simulated answers

    def now(self) -> float:
        """The simulator's time."""
        return asyncio.get_running_loop().time()

    def catch_up(self) -> None:
        """Run what is due and set the timer for what comes next."""
        self.simulator.advance(self.now())
        self._arm()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def words(
        self, wish: Wish, *, traffic: bool, arrival: float, transferred: bool = False
    ) -> AsyncIterator[tuple[str, int, str | None]]:
        """Yield (text, tokens, finish reason) as the simulated GPU makes them; raises Refused.

        With `transferred` another engine has computed the prompt.
        """
        self._admit()
        generation = Generation()
        request = self._request(wish, generation, traffic=traffic, arrival=arrival)
        request.transferred = transferred
        pieces: deque[str] = deque()
        producer = None if traffic else asyncio.create_task(self._produce(wish, request, generation, pieces))
        self.simulator.add(request, self.now())
        self._arm()
        self.on_add()
        made = 0
        try:
            reason = None
            while reason is None:
                count, reason = await generation.next()
                if traffic:
                    text = tokens.filler(made, count)
                else:
                    text = "".join(pieces.popleft() for _ in range(min(count, len(pieces))))
                made += count
                yield text, count, reason
        finally:
            if generation.reason is None:
                self.simulator.abort(request, self.now())
                self._arm()
            if producer is not None:
                producer.cancel()

    def _admit(self) -> None:
        if self.max_queued is not None and len(self.simulator.waiting) >= self.max_queued:
            self.simulator.stats.rejected()
            raise Refused(503, "The request queue is full. Please retry later.", "ServiceUnavailableError")

    def _request(self, wish: Wish, generation: Generation, *, traffic: bool, arrival: float) -> SimRequest:
        target, finish = wish.max_tokens, "length"
        if traffic and not wish.fixed_length:
            if "max_tokens" not in wish.body and "max_completion_tokens" not in wish.body:
                target = min(target, TRAFFIC_TOKENS)
            if self._random.random() < STOPPED_SHARE:
                target, finish = max(1, int(target * self._random.uniform(0.3, 1.0))), "stop"
        return SimRequest(
            arrival=arrival,
            prompt_tokens=wish.prompt_tokens,
            max_tokens=wish.max_tokens,
            target=target,
            on_tokens=generation.deliver,
            hashes=tokens.block_hashes(wish.prompt, self.simulator.block_size),
            finish=finish,
            live=not traffic,
            streaming=wish.stream,
        )

    async def _produce(self, wish: Wish, request: SimRequest, generation: Generation, pieces: deque[str]) -> None:
        """Fetch the text of a person's answer and feed it to the simulator piece by piece."""
        path = "/v1/chat/completions" if wish.chat else "/v1/completions"
        prompt = {} if wish.chat or isinstance(wish.prompt, str) else {"prompt": " ".join(map(str, wish.prompt))}
        body = wish.body | prompt | {"stream": True, "max_tokens": wish.max_tokens}
        body.pop("max_completion_tokens", None)
        reason = "stop"
        try:
            # A model with a long queue tells its health at once; one that hangs would keep people waiting for minutes.
            await self.http.get(f"{self.model_url}/health", timeout=HEALTH_TIMEOUT)
            async with self.http.stream("POST", f"{self.model_url}{path}", json=body, timeout=MODEL_TIMEOUT) as answer:
                if answer.status_code == 400:
                    raise Refused(400, _detail(await answer.aread()), "BadRequestError")
                if answer.status_code != 200:
                    raise _unavailable(await answer.aread())
                async for line in answer.aiter_lines():
                    text, finish = _piece(line)
                    reason = finish or reason
                    if text:
                        pieces.append(text)
                        self.simulator.feed(request, 1, None, self.now())
                        self._arm()
        except httpx.HTTPError as error:
            generation.fail(_unavailable(str(error).encode() or type(error).__name__.encode()))
            return
        except Refused as refusal:
            generation.fail(refusal)
            return
        self.simulator.feed(request, 0, reason, self.now())
        self._arm()

    def _arm(self) -> None:
        self.close()
        due = self.simulator.next_event()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self.catch_up)


def _piece(line: str) -> tuple[str, str | None]:
    """Text and finish reason of one server-sent event."""
    if not line.startswith("data: {"):
        return "", None
    chunk: dict[str, Any] = orjson.loads(line[6:])
    for choice in chunk.get("choices") or []:
        content = choice["delta"].get("content") if "delta" in choice else choice.get("text")
        return content or "", choice.get("finish_reason")
    return "", None


def _unavailable(body: bytes) -> Refused:
    message = "The sandbox's language model, which writes the answers of its engines, is not available"
    return Refused(503, f"{message}: {_detail(body)}", "ServiceUnavailableError")


def _detail(body: bytes) -> str:
    """The message of an error body, or its text."""
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]
