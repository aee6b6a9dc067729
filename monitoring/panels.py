"""Every chart, defined once: page, API, Grafana dashboard and docs are made from this list.

A panel has one query, whose label `series` names its lines. Names follow vLLM's metrics (vllm: with a colon); an older
name stands beside the newer one inside the aggregation, so that a mixed fleet loses nothing. Latencies in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings

from portal.lib.promql import Query, Selector, any_of

DEPLOYMENT_LABEL = "slipway_dev_deployment"  # set on each target by the PodMonitor's podTargetLabels

# Lines of fleet panels are named by this pair; pages turn it into the deployment's name.
FLEET_LABELS = ("namespace", DEPLOYMENT_LABEL)


@dataclass(frozen=True)
class Scope:
    """What a panel looks at: label matchers for vLLM's targets, and the namespaces whose GPUs count."""

    engines: Selector
    namespaces: tuple[str, ...]
    everything: bool = False

    @classmethod
    def deployment(cls, pk: int, namespace: str) -> Scope:
        return cls(Selector.equal(namespace=namespace, **{DEPLOYMENT_LABEL: str(pk)}), (namespace,))

    @classmethod
    def fleet(cls, namespaces: tuple[str, ...], everything: bool) -> Scope:
        """Every deployment of these namespaces; with `everything` of all, for an admin."""
        seen = Selector.present(DEPLOYMENT_LABEL)
        return cls(seen if everything else seen & Selector.one_of("namespace", namespaces), namespaces, everything)


QUANTILES = frozenset({"p50", "p95"})

Builder = Callable[[Scope, int], Query]


@dataclass(frozen=True)
class Panel:
    """One chart. `unit` is s, req, tok/s, 1/s, ratio, bytes, celsius or W; one should stay below `limit`."""

    id: str
    title: str
    unit: str
    help: str
    build: Builder
    group: str
    limit: float | None = None
    # A plain rate reads low until one window has passed; quantiles and ratios are right from the first value.
    ramps: bool = False
    # Nobody asked, so there is nothing to measure: not the same as a metric that is missing.
    needs_traffic: bool = False
    headline: str = ""  # the line whose last value stands in the title
    # First bound of its histogram (vLLM's, in seconds): all that is known of a quantile below it is that it is below.
    floor: float = 0.0

    def is_below(self, line: str, value: float | None) -> bool:
        """True when all that is known of a value is that it is below `floor`: a mean is exact, a quantile is not."""
        return value is not None and line in QUANTILES and value <= self.floor


def _rate(name: str, scope: Scope, window: int) -> Query:
    return Query.metric(name, scope.engines).rate(window)


def _histogram(scope: Scope, window: int, *names: str) -> Query:
    """Buckets summed by `le`, the newest name first."""
    return any_of(_rate(f"{name}_bucket", scope, window) for name in names).sum_by("le")


def quantiles(*names: str) -> Builder:
    """For histograms fine enough that a quantile means something."""

    def build(scope: Scope, window: int) -> Query:
        buckets = _histogram(scope, window, *names)
        return buckets.quantile(0.95).named("p95") | buckets.quantile(0.5).named("p50")

    return build


def mean_and_p95(*names: str) -> Builder:
    """For histograms so coarse that a quantile stands still within a bucket: the mean of sum and count is exact."""

    def build(scope: Scope, window: int) -> Query:
        def total(part: str) -> Query:
            return any_of(_rate(f"{name}_{part}", scope, window) for name in names).sum_by()

        mean = (total("sum") / total("count")).named("mean")
        return mean | _histogram(scope, window, *names).quantile(0.95).named("p95")

    return build


def _throughput(scope: Scope, window: int) -> Query:
    generated = _rate("vllm:generation_tokens_total", scope, window).sum_by().named("generated")
    return generated | _rate("vllm:prompt_tokens_total", scope, window).sum_by().named("prompt")


def _requests(scope: Scope, window: int) -> Query:
    return (
        _rate("vllm:request_success_total", scope, window)
        .sum_by("finished_reason")
        .relabel("series", "finished_reason")
    )


def _gauge(name: str, scope: Scope) -> Query:
    """A gauge while it is scraped: what nobody has measured for some scrapes is a gap, not a level line."""
    return Query.metric(name, scope.engines).last_over(_recent())


def _recent() -> int:
    return 3 * settings.PROMETHEUS_SCRAPE_INTERVAL


def _queue(scope: Scope, window: int) -> Query:
    waiting = _gauge("vllm:num_requests_waiting", scope).sum_by().named("waiting")
    return waiting | _gauge("vllm:num_requests_running", scope).sum_by().named("running")


def _kv_gauge(scope: Scope) -> Query:
    return any_of(_gauge(name, scope) for name in ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"))


def _kv(scope: Scope, window: int) -> Query:
    return _kv_gauge(scope).max_by().named("fullest") | _kv_gauge(scope).avg_by().named("mean")


def _prefix_hits(scope: Scope, window: int) -> Query:
    def both(what: str) -> Query:
        names = (f"vllm:prefix_cache_{what}_total", f"vllm:gpu_prefix_cache_{what}_total")
        return any_of(_rate(name, scope, window) for name in names).sum_by()

    return (both("hits") / both("queries")).named("hit ratio")


def _preemptions(scope: Scope, window: int) -> Query:
    return _rate("vllm:num_preemptions_total", scope, window).sum_by().named("preemptions")


def _failures(scope: Scope, window: int) -> Query:
    calls = scope.engines & Selector('handler=~"/v1/.*"')
    every = Query.metric("http_requests_total", calls).rate(window).sum_by()
    failed = Query.metric("http_requests_total", calls & Selector('status=~"5.."')).rate(window).sum_by()
    # Without the second half there is no data at all while nothing fails.
    return Query(f"({failed} or {every} * 0) / ({every} > 0)").named("5xx")


def _gpu_metric(scope: Scope, name: str, scale: str = "") -> Query:
    """One DCGM metric with the workload's namespace and pod, whatever the scraper's honorLabels was."""
    none = Selector()
    within = none if scope.everything else Selector.one_of("exported_namespace", scope.namespaces)
    exported = Query(f"{Query.metric(name, Selector.present('exported_pod') & within)}{scale}")
    exported = exported.relabel("pod", "exported_pod").relabel("namespace", "exported_namespace")
    within = none if scope.everything else Selector.one_of("namespace", scope.namespaces)
    plain = Query.metric(name, Selector.absent("exported_pod") & Selector.present("pod") & within)
    return exported | Query(f"{plain}{scale}")


def _gpus(scope: Scope, *metrics: Query) -> Query:
    """GPU series of the pods that this scope's engines run in, one value per GPU, while those are scraped.

    Exporters are scraped at intervals of their own, so it is the engines' target that tells a gap in scraping.
    """
    pods = _gauge("up", scope).group_by("namespace", "pod")
    return any_of(metrics).max_by("namespace", "pod", "gpu", "UUID").on(pods, "namespace", "pod")


def _gpu_utilisation(scope: Scope, window: int) -> Query:
    every = _gpus(
        scope,
        _gpu_metric(scope, "DCGM_FI_DEV_GPU_UTIL_RATIO"),
        _gpu_metric(scope, "DCGM_FI_DEV_GPU_UTIL", " / 100"),
        _gpu_metric(scope, "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
    )
    return every.avg_by().named("mean") | every.max_by().named("busiest")


def _gpu_memory(scope: Scope, window: int) -> Query:
    used = _gpus(
        scope,
        _gpu_metric(scope, "DCGM_FI_DEV_FB_USED_BYTES"),
        _gpu_metric(scope, "DCGM_FI_DEV_FB_USED", " * 1048576"),
    )
    return used.avg_by().named("used per GPU")


def _gpu_temperature(scope: Scope, window: int) -> Query:
    every = _gpus(scope, _gpu_metric(scope, "DCGM_FI_DEV_GPU_TEMP_CELSIUS"), _gpu_metric(scope, "DCGM_FI_DEV_GPU_TEMP"))
    return every.max_by().named("hottest") | every.avg_by().named("mean")


def _gpu_power(scope: Scope, window: int) -> Query:
    return (
        _gpus(scope, _gpu_metric(scope, "DCGM_FI_DEV_BOARD_POWER_WATTS"), _gpu_metric(scope, "DCGM_FI_DEV_POWER_USAGE"))
        .sum_by()
        .named("all GPUs")
    )


LATENCY, LOAD, CACHE, GPU = "Latency", "Load", "KV cache", "GPUs"

PANELS: tuple[Panel, ...] = (
    Panel(
        "ttft",
        "TTFT",
        "s",
        "Time to first token: from arrival at the engine, queueing included.",
        quantiles("vllm:time_to_first_token_seconds"),
        LATENCY,
        needs_traffic=True,
        headline="p95",
        floor=0.001,
    ),
    Panel(
        "tpot",
        "TPOT",
        "s",
        "Time per output token after the first. p95 is as rough as vLLM's buckets: 10, 25, 50, 75 ms and so on.",
        mean_and_p95("vllm:request_time_per_output_token_seconds"),
        LATENCY,
        needs_traffic=True,
        headline="mean",
        floor=0.01,
    ),
    Panel(
        "itl",
        "Inter-token latency",
        "s",
        "Gap between two tokens of one answer. p95 is as rough as vLLM's buckets: 10, 25, 50, 75 ms and so on.",
        mean_and_p95("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
        LATENCY,
        needs_traffic=True,
        headline="mean",
        floor=0.01,
    ),
    Panel(
        "e2e",
        "End-to-end latency",
        "s",
        "From arrival to the last token. Long answers take long.",
        quantiles("vllm:e2e_request_latency_seconds"),
        LATENCY,
        needs_traffic=True,
        headline="p95",
        floor=0.3,
    ),
    Panel(
        "queue_time",
        "Queue time",
        "s",
        "Time a request waits until the engine takes it. vLLM's first bucket ends at 0.3 s: below, p95 is not known.",
        mean_and_p95("vllm:request_queue_time_seconds"),
        LATENCY,
        needs_traffic=True,
        headline="mean",
        floor=0.3,
    ),
    Panel(
        "queue",
        "Requests",
        "req",
        "Requests that wait for room, and those being answered.",
        _queue,
        LOAD,
        headline="running",
    ),
    Panel(
        "throughput",
        "Throughput",
        "tok/s",
        "Tokens generated, and prompt tokens taken in, per second.",
        _throughput,
        LOAD,
        ramps=True,
        headline="generated",
    ),
    Panel(
        "requests",
        "Finished requests",
        "1/s",
        "By how they ended: stop, length limit, abort, error.",
        _requests,
        LOAD,
        ramps=True,
        headline="",
    ),
    Panel(
        "failures",
        "Failed requests",
        "ratio",
        "Answers with a 5xx status among all calls.",
        _failures,
        LOAD,
        limit=0.05,
        needs_traffic=True,
        headline="5xx",
    ),
    Panel(
        "kv",
        "KV cache",
        "ratio",
        "Share of the key-value cache in use. Near 100 % requests wait or are preempted.",
        _kv,
        CACHE,
        limit=0.95,
        headline="fullest",
    ),
    Panel(
        "prefix",
        "Prefix cache hits",
        "ratio",
        "Prompt tokens found in the cache instead of computed again.",
        _prefix_hits,
        CACHE,
        needs_traffic=True,
        headline="hit ratio",
    ),
    Panel(
        "preemptions",
        "Preemptions",
        "1/s",
        "Requests thrown out of a full KV cache and computed again.",
        _preemptions,
        CACHE,
        ramps=True,
        headline="preemptions",
    ),
    Panel(
        "gpu",
        "GPU utilisation",
        "ratio",
        "Share of time in which a GPU did something (DCGM).",
        _gpu_utilisation,
        GPU,
        headline="mean",
    ),
    Panel(
        "gpu_memory",
        "GPU memory",
        "bytes",
        "vLLM takes its share at start, so this line is flat: the KV cache shows the load.",
        _gpu_memory,
        GPU,
        headline="used per GPU",
    ),
    Panel(
        "gpu_temperature",
        "GPU temperature",
        "celsius",
        "Hottest and mean of the GPUs in use.",
        _gpu_temperature,
        GPU,
        limit=85,
        headline="hottest",
    ),
    Panel("gpu_power", "GPU power", "W", "Drawn by all GPUs in use together.", _gpu_power, GPU, headline="all GPUs"),
)

BY_ID = {panel.id: panel for panel in PANELS}
OVERVIEW_IDS = ("ttft", "tpot", "kv", "gpu")


EVER_SECONDS = 3600  # a target that never answered for that long has not begun


def health(scope: Scope, seconds: int) -> Query:
    """Targets known and up; of the one that has answered longest: answers within `seconds`, whether it answered
    `seconds` ago ("before") and within the last hour ("ever"). Nothing at all: not scraped."""
    up = Query.metric("up", scope.engines)
    lines = (
        up.count_by().named("known"),
        Query(f"count ({up} == 1)").named("up"),
        up.sum_over(seconds).max_by().named("answers"),
        up.before(seconds).max_by().named("before"),
        up.max_over(EVER_SECONDS).max_by().named("ever"),
    )
    return any_of(lines)


def columns(scope: Scope, window: int) -> dict[str, Query]:
    """The fleet table's columns, each one query grouped by deployment."""
    buckets = _rate("vllm:time_to_first_token_seconds_bucket", scope, window).sum_by("le", *FLEET_LABELS)
    return {
        "ttft": buckets.quantile(0.95),
        "tokens": _rate("vllm:generation_tokens_total", scope, window).sum_by(*FLEET_LABELS),
        "kv": _kv_gauge(scope).max_by(*FLEET_LABELS),
    }
