"""The three metrics APIs an autoscaler reads, as far as this cluster has them.

* `metrics.k8s.io` (CPU and memory): none. Nothing here measures the CPU of a simulated engine, so the answer is that
  of a cluster without metrics-server.
* `custom.metrics.k8s.io`: prometheus-adapter's part, played with one rule: a metric is the Prometheus series of that
  name (`vllm_…` is `vllm:…` too) with the labels `namespace` and `pod`, or the described object's kind.
* `external.metrics.k8s.io`: whoever registered itself as the source, which is KEDA.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping

from sandbox.client import Obj
from sandbox.lite.controllers.hpa_replicas import MetricError
from sandbox.lite.controllers.scaling_prometheus import Prometheus

_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")
External = Callable[[str, str, dict[str, str]], Awaitable[list[int]]]  # namespace, metric, labels → milli values
NO_RESOURCE = (
    "unable to fetch metrics from resource metrics API: "
    "the server could not find the requested resource (get pods.metrics.k8s.io)"
)
NO_CUSTOM = "no custom metrics API (custom.metrics.k8s.io) registered"


class Metrics:
    """Where the values of metrics come from. Every call raises MetricError with the words of the API."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self.source: External | None = None

    async def pods(self, namespace: str, metric: str, selector: Obj | None, names: Iterable[str]) -> dict[str, int]:
        """Return the value of a metric for each pod that has one."""
        found = await self._ask(_series(metric, selector, namespace=namespace), by="pod")
        wanted = set(names)
        values = {labels["pod"]: value for labels, value in found if labels.get("pod") in wanted}
        if not values:
            why = f"the server could not find the metric {metric} for pods"
            raise MetricError(f"unable to fetch metrics from custom metrics API: {why}")
        return values

    async def object(self, namespace: str, metric: str, selector: Obj | None, described: Obj) -> int:
        """Return the value of a metric that describes an object."""
        label = {described["kind"].lower(): described["name"]}
        found = await self._ask(_series(metric, selector, namespace=namespace, **label), by="namespace")
        if not found:
            kind = f"{described['kind'].lower()}s"
            why = f"the server could not find the metric {metric} for {kind} {described['name']}"
            raise MetricError(f"unable to fetch metrics from custom metrics API: {why}")
        return found[0][1]

    async def external(self, namespace: str, metric: str, selector: Obj | None) -> int:
        """Return the sum of an external metric's values."""
        try:
            if self.source is None:
                raise MetricError(
                    f"the server could not find the requested resource (get {metric}.external.metrics.k8s.io)"
                )
            values = await self.source(namespace, metric, (selector or {}).get("matchLabels") or {})
        except MetricError as error:
            raise MetricError(f"unable to fetch metrics from external metrics API: {error}") from error
        if not values:
            raise MetricError("no metrics returned from external metrics API")
        return sum(values)

    async def _ask(self, series: str, *, by: str) -> list[tuple[Mapping[str, str], int]]:
        if not self._prometheus.url:
            raise MetricError(f"unable to fetch metrics from custom metrics API: {NO_CUSTOM}")
        try:
            samples = await self._prometheus.samples(f"sum by ({by}) ({series})")
        except MetricError as error:
            why = "Internal error occurred: unable to fetch metrics"
            raise MetricError(f"unable to fetch metrics from custom metrics API: {why}") from error
        return [(labels, milli(value)) for labels, value in samples if math.isfinite(value)]


def milli(value: float) -> int:
    """Return an amount in whole thousandths, as KEDA and the adapter give it."""
    return round(value * 1000)


def _series(metric: str, selector: Obj | None, **labels: str) -> str:
    names = re.escape(metric) if not metric.startswith("vllm_") else f"vllm[:_]{re.escape(metric[5:])}"
    wanted = {**labels, **((selector or {}).get("matchLabels") or {})}
    pairs = [f"__name__=~{json.dumps(names)}"]
    pairs += [f"{_NO_LABEL.sub('_', name)}={json.dumps(value)}" for name, value in wanted.items()]
    return "{" + ", ".join(pairs) + "}"
