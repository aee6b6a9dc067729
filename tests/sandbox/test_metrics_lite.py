"""The metrics part as an ordinary API client of a lite cluster, under its own account."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from sandbox.client import Client, resource_path
from sandbox.lite.testing import running_cluster
from sandbox.metrics.app import Metrics
from tests.sandbox.test_metrics_targets import monitor

PODS = resource_path("v1", "pods", "default")
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "chat-1",
        "labels": {"serving.kserve.io/inferenceservice": "chat", "slipway.dev/deployment": "42"},
    },
    "spec": {
        "containers": [
            {"name": "kserve-container", "image": "x", "ports": [{"name": "http1", "containerPort": 8080}]},
        ]
    },
}
RULE: dict[str, Any] = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PrometheusRule",
    "metadata": {"name": "slo"},
    "spec": {"groups": [{"name": "g", "rules": [{"record": "slipway:one", "expr": "1"}]}]},
}


async def eventually(check: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not check():
            await asyncio.sleep(0.05)


async def with_metrics(folder: Path, kubeconfig: Path, work: Callable[[Metrics], Awaitable[None]]) -> None:
    client = Client.from_kubeconfig(kubeconfig)
    metrics = Metrics(
        client,
        targets=folder / "targets",
        rules=folder / "rules",
        prometheus_url="http://prometheus.invalid",
        address="127.0.0.1:1",
    )
    metrics._http = httpx.AsyncClient(
        base_url="http://prometheus.invalid", transport=httpx.MockTransport(lambda request: httpx.Response(200))
    )
    running = asyncio.create_task(metrics.run())
    try:
        await work(metrics)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await client.close()


def test_monitors_pods_and_rules_come_and_go(tmp_path: Path) -> None:
    def targets() -> list[str]:
        path = tmp_path / "targets" / "discovered.json"
        return [entry["targets"][0] for entry in json.loads(path.read_text())] if path.exists() else ["no file"]

    def rules() -> list[str]:
        return [path.name for path in (tmp_path / "rules").glob("*.yml")]

    async def work(metrics: Metrics, admin: Client) -> None:
        await eventually(lambda: targets() == [])
        wish = monitor() | {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor"}
        wish["metadata"] = {"name": "chat", "namespace": "default"}
        await admin.create(resource_path("monitoring.coreos.com/v1", "podmonitors", "default"), wish)
        await admin.create(PODS, POD)
        status = {"phase": "Running", "podIP": "127.20.0.9", "podIPs": [{"ip": "127.20.0.9"}]}
        await admin.patch_status(f"{PODS}/chat-1", {"status": status})
        await eventually(lambda: targets() == ["127.20.0.9:8080"])
        assert 'kube_pod_status_phase{namespace="default",pod="chat-1"' in metrics.page()

        await admin.create(resource_path("monitoring.coreos.com/v1", "prometheusrules", "default"), RULE)
        await eventually(lambda: rules() == ["default_slo.yml"])

        await admin.delete(f"{PODS}/chat-1", {"gracePeriodSeconds": 0})
        await admin.delete(resource_path("monitoring.coreos.com/v1", "prometheusrules", "default", "slo"))
        await eventually(lambda: targets() == [] and rules() == [])

    with running_cluster(accounts=["metrics"], controllers=False) as cluster:

        async def run() -> None:
            admin = Client.from_kubeconfig(cluster.kubeconfig)
            await with_metrics(tmp_path, cluster.kubeconfig_of("metrics"), lambda metrics: work(metrics, admin))
            await admin.close()

        asyncio.run(run())
