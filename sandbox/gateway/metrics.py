"""The gateway's own numbers, for Prometheus.

They name every team and model, so they are never answered where callers come in: like Envoy's and Traefik's, they have
a listener of their own, which only Prometheus is to reach.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from sandbox.asgi import Receive, Request, Scope, Send, send_answer, text_answer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Requests by outcome, their time, and those in flight; an ASGI application of one page, /metrics."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("namespace", "name")
        self.requests = Counter(
            "slipway_gateway_requests", "Requests answered.", (*labels, "code"), registry=self._registry
        )
        self.first_byte = Histogram(
            "slipway_gateway_first_byte_seconds",
            "Time from a request to the first byte of its answer.",
            labels,
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "slipway_gateway_requests_in_flight", "Requests being passed on.", registry=self._registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if Request(scope, receive).path == "/metrics":
            answer = text_answer(self.text().decode(), content_type=CONTENT_TYPE)
        else:
            answer = text_answer("not found", 404)
        await send_answer(send, answer, head=scope["method"] == "HEAD")

    def text(self) -> bytes:
        """Return the exposition."""
        return generate_latest(self._registry)
