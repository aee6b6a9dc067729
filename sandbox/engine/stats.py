"""What the scheduler reports, turned into vLLM's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.engine.cost import Step
from sandbox.engine.metrics import Registry

if TYPE_CHECKING:
    from sandbox.engine.simulator import SimRequest


class EngineStats:
    """Keeps the registry of one engine up to date."""

    def __init__(self, registry: Registry, *, mfu: bool = False) -> None:
        self.registry = registry
        self.mfu = mfu
        self.prompt_tokens = registry.value("vllm:prompt_tokens_total")
        self.generation_tokens = registry.value("vllm:generation_tokens_total")
        self.queries = registry.value("vllm:prefix_cache_queries_total")
        self.hits = registry.value("vllm:prefix_cache_hits_total")
        self._iteration = registry.histogram("vllm:iteration_tokens_total")
        self._ttft = registry.histogram("vllm:time_to_first_token_seconds")
        self._itl = registry.histogram("vllm:inter_token_latency_seconds")
        self._preemptions = registry.value("vllm:num_preemptions_total")

    def steps(self, tokens: int, count: int, step: Step) -> None:
        """`count` steps over `tokens` each were run."""
        self._iteration.observe(float(tokens), count)
        if self.mfu:
            amounts = {"flops": step.flops, "read_bytes": step.read, "write_bytes": step.written}
            for kind, amount in amounts.items():
                self.registry.value(f"vllm:estimated_{kind}_per_gpu_total").inc(amount * count)

    def admitted(self, request: SimRequest) -> None:
        """A request was scheduled for the first time; its prompt was looked up in the prefix cache."""
        self.queries.inc(request.prompt_tokens)
        self.hits.inc(request.cached)
        if request.transferred:
            self.registry.value("vllm:external_prefix_cache_queries_total").inc(request.prompt_tokens - request.cached)
            self.registry.value("vllm:external_prefix_cache_hits_total").inc(self._brought(request))

    def first_token(self, request: SimRequest, at: float) -> None:
        """The prompt is computed and the first token is there."""
        self._ttft.observe(at - request.arrival)
        self._count_prompt(request)

    def inter_token(self, seconds: float, count: int) -> None:
        """`count` further tokens came at this distance."""
        if count > 0:
            self._itl.observe(seconds, count)

    def generated(self, tokens: int) -> None:
        """Tokens were made."""
        self.generation_tokens.inc(tokens)

    def preempted(self) -> None:
        """A request lost its blocks."""
        self._preemptions.inc()

    def finished(self, request: SimRequest, reason: str, at: float) -> None:
        """A request ended at `at`; everything vLLM observes at that moment."""
        self.registry.value("vllm:request_success_total", finished_reason=reason).inc()
        scheduled = request.scheduled if request.scheduled is not None else at
        first = request.first_token if request.first_token is not None else at
        observations = {
            "vllm:request_prompt_tokens": request.prompt_tokens,
            "vllm:request_generation_tokens": request.produced,
            "vllm:request_max_num_generation_tokens": request.produced,
            "vllm:request_params_n": request.n,
            "vllm:request_params_max_tokens": request.max_tokens,
            "vllm:e2e_request_latency_seconds": at - request.arrival,
            "vllm:request_queue_time_seconds": scheduled - request.arrival,
            "vllm:request_inference_time_seconds": request.last_token - scheduled,
            "vllm:request_prefill_time_seconds": first - scheduled,
            "vllm:request_decode_time_seconds": request.last_token - first,
            "vllm:request_time_per_output_token_seconds": (request.last_token - first) / max(1, request.produced - 1),
            "vllm:request_num_preemptions": request.preemptions,
            "vllm:request_prefill_kv_computed_tokens": request.prompt_tokens - request.cached,
        }
        for name, value in observations.items():
            self.registry.histogram(name).observe(float(value))

    def _brought(self, request: SimRequest) -> int:
        """Tokens of the prompt that another engine computed; the last one is always computed here."""
        return request.prompt_tokens - 1 - request.cached if request.transferred else 0

    def _count_prompt(self, request: SimRequest) -> None:
        self.prompt_tokens.inc(request.prompt_tokens)
        brought = self._brought(request)
        computed = request.prompt_tokens - request.cached - brought
        by_source = "vllm:prompt_tokens_by_source_total"
        if brought:
            self.registry.value(by_source, source="external_kv_transfer").inc(brought)
        self.registry.value(by_source, source="local_compute").inc(computed)
        self.registry.value(by_source, source="local_cache_hit").inc(request.cached)
        self.registry.value("vllm:prompt_tokens_cached_total").inc(request.cached)
        self.registry.value("vllm:prompt_tokens_cached_by_source_total", source="device").inc(request.cached)

    def gauges(self, running: int, waiting: int, usage: float) -> None:
        """Set what a scrape sees of this moment."""
        self.registry.value("vllm:num_requests_running").value = running
        self.registry.value("vllm:num_requests_waiting").value = waiting
        self.registry.value("vllm:num_requests_waiting_by_reason", reason="capacity").value = waiting
        self.registry.value("vllm:kv_cache_usage_perc").value = usage

    def rejected(self) -> None:
        """A request was refused because the queue is full."""
        self.registry.value("vllm:admission_rejections_total", reason="max_num_queued_reqs").inc()
