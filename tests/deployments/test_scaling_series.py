"""What KEDA's queries count: series as a PodMonitor's labels mark them, in a real Prometheus."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deployments.manifests.scaling import triggers
from tests.conftest import PrometheusServer
from tests.deployments.wishes import wish_of


class Engine(BaseHTTPRequestHandler):
    """An engine at work; its own words on where it is must not count."""

    def do_GET(self) -> None:
        said = 'engine="0",namespace="search-ab3de",slipway_dev_deployment="42"'
        body = (
            f"vllm:num_requests_waiting{{{said}}} 3\n"
            f"vllm:num_requests_running{{{said}}} 5\n"
            f"vllm:kv_cache_usage_perc{{{said}}} 0.25\n"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


def value(prometheus: PrometheusServer, query: str) -> float | None:
    found = prometheus.query(query)
    return float(found[0]["value"][1]) if found else None


def test_only_pods_of_the_deployments_own_namespace_count(prometheus: PrometheusServer, port: int):
    """A pod of another team bears the same label, and so does one of another Slipway."""
    wish = wish_of()
    marks = [
        {"namespace": wish.namespace, "pod": "chat-1", "slipway_dev_deployment": wish.deployment_id},
        {"namespace": wish.namespace, "pod": "chat-2", "slipway_dev_deployment": wish.deployment_id},
        {"namespace": "others-x1y2z", "pod": "posing", "slipway_dev_deployment": wish.deployment_id},
        {"namespace": wish.namespace, "pod": "sibling", "slipway_dev_deployment": "43"},
    ]
    # One address is one target: what tells these apart is where they are asked.
    groups = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {**labels, "__metrics_path__": f"/{number}"}}
        for number, labels in enumerate(marks)
    ]
    targets = prometheus.targets / "scaling-series.json"
    targets.write_text(json.dumps(groups))
    prometheus.reload()
    try:
        everything = f'vllm:kv_cache_usage_perc{{exported_namespace="{wish.namespace}"}}'
        deadline = time.monotonic() + 30
        while len(prometheus.query(everything)) < len(marks):
            assert time.monotonic() < deadline, "the engines are not scraped"
            time.sleep(0.2)
        requests, cache = (query for query, _ in triggers(wish, wish.spec))
        assert (value(prometheus, requests), value(prometheus, cache)) == (2 * (3 + 5), 2 * 25)
    finally:
        targets.unlink()
        prometheus.reload()
