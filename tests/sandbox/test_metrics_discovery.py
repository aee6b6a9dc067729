"""From objects of a cluster to series in a real Prometheus."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sandbox.asgi import listen
from sandbox.client import Client
from sandbox.metrics.app import Metrics
from tests.conftest import PrometheusServer
from tests.sandbox.test_metrics_kube_state import POD
from tests.sandbox.test_metrics_targets import monitor, pod


class Exporter(BaseHTTPRequestHandler):
    """An engine and a GPU exporter in one: its own namespace label must not shadow the target's."""

    def do_GET(self) -> None:
        body = b'test_engine_up 1\ntest_engine_up_created 1.6e9\ntest_gpu{namespace="team-a",pod="chat-1"} 7\n'
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture
def exporter() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def wait_for_series(prometheus: PrometheusServer, expression: str, seconds: float = 30.0) -> list[dict[str, str]]:
    deadline = time.monotonic() + seconds
    while not (result := prometheus.query(expression)):
        assert time.monotonic() < deadline, f"no series for {expression}"
        time.sleep(0.2)
    return [series["metric"] for series in result]


def test_what_the_cluster_holds_is_scraped_with_the_right_labels(prometheus: PrometheusServer, exporter: int) -> None:
    own_port = 0

    async def write_and_serve() -> None:
        nonlocal own_port
        client = Client.to("http://127.0.0.1:9")
        metrics = Metrics(
            client, targets=prometheus.targets, rules=prometheus.rules, prometheus_url=prometheus.url, address=""
        )
        listener = await listen(metrics, "127.0.0.1", 0)
        metrics.address = f"127.0.0.1:{listener.address[1]}"
        chat = pod(ip="127.0.0.1")
        chat["spec"]["containers"][0]["ports"][0]["containerPort"] = exporter
        quick = [{"port": "http1", "interval": "1s", "scrapeTimeout": "1s"}]
        metrics.reflectors["monitors"].store["team-a", "chat"] = monitor(podMetricsEndpoints=quick)
        metrics.reflectors["pods"].store["team-a", "chat-1"] = chat
        metrics.reflectors["pods"].store["search-abcde", "x"] = POD
        metrics.write_targets()
        await asyncio.to_thread(check)
        listener.close()
        await client.close()

    def check() -> None:
        (engine,) = wait_for_series(prometheus, "test_engine_up")
        assert engine["job"] == "team-a/chat"
        assert engine["instance"] == f"127.0.0.1:{exporter}"
        assert engine["slipway_dev_deployment"] == "42"
        assert (engine["namespace"], engine["pod"], engine["container"]) == ("team-a", "chat-1", "kserve-container")
        (gpu,) = wait_for_series(prometheus, "test_gpu")
        assert (gpu["exported_namespace"], gpu["exported_pod"]) == ("team-a", "chat-1")
        (state,) = wait_for_series(prometheus, 'kube_pod_status_phase{phase="Running", namespace="search-abcde"} == 1')
        assert state["pod"] == "chat-predictor-7d9-x2x"
        assert "exported_namespace" not in state
        assert prometheus.query("test_engine_up_created") == []

    try:
        asyncio.run(write_and_serve())
    finally:
        for path in prometheus.targets.rglob("*.json"):
            path.unlink()
