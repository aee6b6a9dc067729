"""Instant queries to Prometheus, for the autoscalers that read it.

Addresses in a cluster (`http://prometheus-operated.monitoring.svc:9090`) mean nothing outside it: here every
`….svc` is the Prometheus this cluster was told of, and no other host is ever asked.
"""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx

from sandbox.lite.controllers.hpa_replicas import MetricError
from sandbox.lite.controllers.meta import now, stamp

TIMEOUT = 3.0  # seconds; KEDA_HTTP_DEFAULT_TIMEOUT

Sample = tuple[dict[str, str], float]  # labels and value


class Prometheus:
    """Asks the one Prometheus of this cluster. Errors are worded as Go clients word them."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(trust_env=False, timeout=TIMEOUT)

    async def ask(
        self, address: str, query: str, *, namespace: str = "", headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the body of the answer of the Prometheus at `address`. MetricError when there is none."""
        words = {"query": query, "time": stamp(now())} | ({"namespace": namespace} if namespace else {})
        shown = f"{address}/api/v1/query?{urlencode(words)}"
        target = self._reachable(address, shown)
        try:
            answer = await self._http.get(f"{target}/api/v1/query", params=words, headers=headers)
        except httpx.TimeoutException as error:
            why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            raise MetricError(f'Get "{shown}": {why}') from error
        except httpx.HTTPError as error:
            host = urlsplit(target)
            why = f"dial tcp {host.hostname}:{host.port or 80}: connect: connection refused"
            raise MetricError(f'Get "{shown}": {why}') from error
        if not 200 <= answer.status_code < 300:
            raise MetricError(f"prometheus query api returned error. status: {answer.status_code}")
        try:
            body: dict[str, Any] = answer.json()
        except ValueError as error:
            raise MetricError("invalid character '<' looking for beginning of value") from error
        return body

    async def samples(self, query: str) -> list[Sample]:
        """Return what this cluster's Prometheus answers to a query. MetricError when it does not."""
        body = await self.ask(self.url, query)
        return [(dict(item["metric"]), float(item["value"][1])) for item in body["data"]["result"]]

    def _reachable(self, address: str, shown: str) -> str:
        if not address.startswith(("http://", "https://")):
            raise MetricError(f'Get "{shown}": unsupported protocol scheme "{urlsplit(address).scheme}"')
        if self.url and address.rstrip("/") == self.url:
            return self.url
        host = urlsplit(address).hostname or ""
        if self.url and host.removesuffix(".cluster.local").endswith(".svc"):
            return self.url
        raise MetricError(f'Get "{shown}": dial tcp: lookup {host}: no such host')


def only_value(body: dict[str, Any], query: str, *, ignore_nothing: bool) -> float:
    """Return the one number an answer holds. MetricError unless there is exactly one, or nothing counts as 0."""
    result = body.get("data", {}).get("result") or []
    if not result:
        if ignore_nothing:
            return 0.0
        raise MetricError("prometheus metrics 'prometheus' target may be lost, the result is empty")
    if len(result) > 1:
        raise MetricError(f"prometheus query {query} returned multiple elements")
    found = result[0].get("value") if isinstance(result[0], dict) else result
    if not found:
        if ignore_nothing:
            return 0.0
        raise MetricError("prometheus metrics 'prometheus' target may be lost, the value list is empty")
    if len(found) < 2:
        raise MetricError(f"prometheus query {query} didn't return enough values")
    value = float(found[1])
    if math.isfinite(value):
        return value
    if ignore_nothing:
        return 0.0
    spelled = "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    raise MetricError(f"prometheus query returns {spelled}")
