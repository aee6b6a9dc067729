"""Continuous batching in virtual time.

Nothing here sleeps or reads a clock: `advance(now)` runs every step that ends by `now`, `next_event` says
when somebody could notice something, and the caller sets one timer. Steps of an unchanged batch are run
together, so an engine under load wakes a few times a second, an idle one never.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.engine.blocks import BlockPool, Holding
from sandbox.engine.cost import CostModel, Step
from sandbox.engine.memory import Limits
from sandbox.engine.stats import EngineStats

TOGETHER = 64  # steps of an unchanged batch run as one
LIVE_SECONDS = 0.02  # how late a token of a person's answer may be seen
STREAM_SECONDS = 0.25  # the same for background traffic that streams
EPSILON = 1e-9

OnTokens = Callable[[int, str | None], None]


@dataclass(eq=False)
class SimRequest:
    """One request. `target` is how many tokens it will make; with `live`, text arrives through `feed` instead."""

    arrival: float
    prompt_tokens: int
    max_tokens: int
    target: int
    on_tokens: OnTokens
    hashes: list[int] = field(default_factory=list)
    finish: str = "length"  # the reason when `target` is reached
    live: bool = False
    streaming: bool = False
    n: int = 1

    transferred: bool = False  # its prompt was computed by another engine

    available: int = 0  # live: tokens whose text is there
    ended: str | None = None  # live: why the text is complete
    cached: int = 0
    computed: int = 0  # tokens whose KV is in the cache
    produced: int = 0
    preemptions: int = 0
    scheduled: float | None = None
    first_token: float | None = None
    last_token: float = 0.0
    holding: Holding | None = None

    @property
    def context(self) -> int:
        """Tokens that must be in the cache before the next one."""
        return self.prompt_tokens + self.produced

    @property
    def prefilling(self) -> bool:
        """Whether its prompt (or, after preemption, all it had) is still being computed."""
        return self.computed < self.context - (1 if self.produced else 0)

    @property
    def remaining(self) -> int:
        """Tokens it could make now."""
        if not self.live:
            return self.target - self.produced
        return min(self.available, self.max_tokens) - self.produced

    @property
    def complete(self) -> bool:
        """Whether nothing is left to make."""
        if self.live:
            return self.produced >= self.max_tokens or (self.ended is not None and self.produced >= self.available)
        return self.produced >= self.target


@dataclass
class _Batch:
    start: float
    step: Step
    count: int  # identical steps still to come
    decoding: list[SimRequest]
    prefill: list[tuple[SimRequest, int]]

    @property
    def tokens(self) -> int:
        return len(self.decoding) + sum(tokens for _, tokens in self.prefill)


class Simulator:
    """The scheduler and executor of one engine."""

    def __init__(
        self, cost: CostModel, limits: Limits, blocks: int, block_size: int, stats: EngineStats, *, caching: bool = True
    ) -> None:
        self.cost = cost
        self.limits = limits
        self.block_size = block_size
        self.stats = stats
        self.pool = BlockPool(blocks, caching=caching)
        self.waiting: deque[SimRequest] = deque()
        self.running: list[SimRequest] = []
        self.busy_seconds = 0.0
        self.flops = 0.0
        self.bytes_moved = 0.0
        self._batch: _Batch | None = None
        self._time = 0.0

    def add(self, request: SimRequest, now: float) -> None:
        """Queue a request; the step under way ends first."""
        self.advance(now)
        self.waiting.append(request)
        self._interrupt(now)

    def feed(self, request: SimRequest, tokens: int, ended: str | None, now: float) -> None:
        """Say that text for `tokens` more tokens of a live request is there, or that it is complete."""
        self.advance(now)
        request.available += tokens
        request.ended = ended or request.ended
        if request.complete and request in self.running and not request.prefilling:
            self._finish(request, now)
        self._interrupt(now)

    def abort(self, request: SimRequest, now: float) -> None:
        """Forget a request whose caller went away. As in vLLM this counts in no finish reason."""
        self.advance(now)
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self._leave(request)
        self._interrupt(now)

    def next_event(self) -> float | None:
        """When `advance` should next be called, or None while nothing runs."""
        batch = self._batch
        if batch is None:
            return None
        seconds = batch.step.seconds
        steps = batch.count
        if any(request.live for request in batch.decoding):
            steps = min(steps, max(1, math.ceil(LIVE_SECONDS / seconds)))
        elif any(request.streaming for request in batch.decoding):
            steps = min(steps, max(1, math.ceil(STREAM_SECONDS / seconds)))
        return batch.start + steps * seconds

    def advance(self, now: float) -> None:
        """Run every step that ends by `now`."""
        while True:
            batch = self._batch
            if batch is None:
                self._time = max(self._time, now)
                return
            done = min(batch.count, int((now - batch.start) / batch.step.seconds + EPSILON))
            if done <= 0:
                return
            self._apply(batch, done)
            if batch.count == 0:
                self._batch = None
                self._schedule(batch.start)

    @property
    def idle(self) -> bool:
        """Whether no step is under way."""
        return self._batch is None

    def _interrupt(self, now: float) -> None:
        """Let the newcomer in after the step under way, or at once when there is none."""
        if self._batch is None:
            self._schedule(max(now, self._time))
        elif self._batch.count > 1:
            self._batch.count = 1

    def _apply(self, batch: _Batch, done: int) -> None:
        seconds = batch.step.seconds
        first_end, end = batch.start + seconds, batch.start + done * seconds
        self.busy_seconds += done * seconds
        self.flops += done * batch.step.flops
        self.bytes_moved += done * (batch.step.read + batch.step.written)
        self.stats.steps(batch.tokens, done, batch.step)
        batch.start, batch.count = end, batch.count - done
        for request, tokens in batch.prefill:
            if request.holding is not None:
                self._prefilled(request, tokens, end)
        steady = 0
        for request in batch.decoding:
            if request.holding is None:
                continue
            if request.first_token is None:
                self._first(request, first_end)
            elif request.last_token >= first_end - seconds - EPSILON:
                steady += done
            else:
                self.stats.inter_token(first_end - request.last_token, 1)
                steady += done - 1
            request.produced += done
            request.computed += done
            request.last_token = end
            self._deliver(request, done, end)
        self.stats.inter_token(seconds, steady)
        batch.decoding = [request for request in batch.decoding if request.holding is not None]
        self._time = end

    def _prefilled(self, request: SimRequest, tokens: int, end: float) -> None:
        request.computed += tokens
        if request.prefilling or (request.live and request.remaining <= 0):
            return
        if request.first_token is None:
            self._first(request, end)
        else:
            self.stats.inter_token(end - request.last_token, 1)
        request.produced += 1
        request.last_token = end
        self._deliver(request, 1, end)

    def _first(self, request: SimRequest, at: float) -> None:
        request.first_token = request.last_token = at
        self.stats.first_token(request, at)

    def _deliver(self, request: SimRequest, tokens: int, at: float) -> None:
        self.stats.generated(tokens)
        if request.complete:
            self._finish(request, at, tokens)
        else:
            request.on_tokens(tokens, None)

    def _finish(self, request: SimRequest, at: float, tokens: int = 0) -> None:
        if not request.live:
            reason = request.finish
        else:
            reason = "length" if request.produced >= request.max_tokens else request.ended or "stop"
        self._leave(request)
        self.stats.finished(request, reason, at)
        request.on_tokens(tokens, reason)

    def _leave(self, request: SimRequest) -> None:
        if request.holding is not None:
            self.pool.release(request.holding)
            request.holding = None
        self.running.remove(request)

    def _schedule(self, start: float) -> None:
        """Form the next batch at `start`: running requests first, then the waiting line, as vLLM does."""
        budget = self.limits.max_num_batched_tokens
        decoding: list[SimRequest] = []
        prefill: list[tuple[SimRequest, int]] = []
        preempted = False
        for request in list(self.running):
            if request.holding is None or budget <= 0:
                continue
            if request.prefilling:
                tokens = min(budget, request.context - request.computed)
                prefill.append((request, tokens))
                budget -= tokens
            elif request.remaining > 0:
                if not self._make_room(request):
                    preempted = True
                    continue
                decoding.append(request)
                budget -= 1
        decoding = [request for request in decoding if request.holding is not None]
        prefill = [(request, tokens) for request, tokens in prefill if request.holding is not None]
        if not preempted or not (decoding or prefill):
            self._admit(budget, start, prefill)
        if not decoding and not prefill:
            return
        self._batch = self._form(start, decoding, prefill)

    def _admit(self, budget: int, start: float, prefill: list[tuple[SimRequest, int]]) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_num_seqs:
            request = self.waiting[0]
            cached = self.pool.cached(request.hashes) * self.block_size
            holding = self.pool.start(request.hashes, self._blocks(request.context + 1))
            if holding is None:
                return
            self.waiting.popleft()
            request.holding = holding
            request.computed = (
                request.prompt_tokens - 1 if request.transferred else min(cached, request.prompt_tokens - 1)
            )
            if request.scheduled is None:
                request.scheduled = start
                request.cached = min(cached, request.prompt_tokens - 1)
                self.stats.admitted(request)
            self.running.append(request)
            tokens = min(budget, request.context - request.computed)
            prefill.append((request, tokens))
            budget -= tokens

    def _form(self, start: float, decoding: list[SimRequest], prefill: list[tuple[SimRequest, int]]) -> _Batch:
        new = len(decoding) + sum(tokens for _, tokens in prefill)
        held = sum(request.computed for request in decoding)
        held += sum(request.computed + tokens for request, tokens in prefill)
        count = 1
        if not prefill:
            count = min(TOGETHER, *(request.remaining for request in decoding))
            count = self._reserve(decoding, count)
        step = self.cost.step(new, len(decoding) + len(prefill), held)
        return _Batch(start, step, count, decoding, prefill)

    def _reserve(self, decoding: list[SimRequest], count: int) -> int:
        """Take the blocks that `count` steps need; fewer steps when the cache is nearly full."""
        while count > 1:
            needed = sum(
                max(0, self._blocks(request.context + count) - request.holding.blocks)
                for request in decoding
                if request.holding is not None
            )
            if needed <= self.pool.free:
                break
            count //= 2
        if count > 1:
            for request in decoding:
                if request.holding is not None:
                    self.pool.grow(request.holding, self._blocks(request.context + count))
        return max(1, count)

    def _make_room(self, request: SimRequest) -> bool:
        """Give a decoding request the block for its next token, preempting the newest when there is none."""
        assert request.holding is not None
        while not self.pool.grow(request.holding, self._blocks(request.context + 1)):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        return True

    def _preempt(self, victim: SimRequest) -> None:
        self._leave(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.stats.preempted()
        self.waiting.appendleft(victim)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_size)
