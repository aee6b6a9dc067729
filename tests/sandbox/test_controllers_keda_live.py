"""Autoscaling on the running lite ground, from metrics in a real Prometheus; waits pass twenty times as fast."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sandbox.client import ApiError, Client
from sandbox.lite.controllers.meta import condition
from sandbox.lite.testing import running_cluster
from tests.conftest import PrometheusServer
from tests.sandbox.ground import (
    Ground,
    add_node,
    come_up,
    create,
    deployment,
    ensure_namespace,
    events_of,
    items,
    maybe,
    node,
    until,
)
from tests.sandbox.recordings import read_all

APPS, SCALING, KEDA = "apps/v1", "/apis/autoscaling/v2", "/apis/keda.sh/v1alpha1"
IN_CLUSTER = "http://prometheus-operated.monitoring.svc:9090"
SPEED = 20.0
CHAT = 'namespace="grow",model_name="chat"'
LONG = 40.0  # seconds; two scrapes and the windows of one change


@pytest.fixture(scope="module")
def ground(prometheus: PrometheusServer) -> Iterator[Ground]:
    with running_cluster(prometheus_url=prometheus.url, scaling_speed=SPEED) as cluster:
        yield Ground(cluster)


class Engine:
    """Something Prometheus scrapes: the requests that wait, as vLLM counts them, by the labels of each series."""

    def __init__(self) -> None:
        self.waiting: dict[str, float] = {}
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                series = engine.waiting.items()
                body = "".join(f"vllm:num_requests_waiting{{{labels}}} {count}\n" for labels, count in series).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def engine(prometheus: PrometheusServer) -> Iterator[Engine]:
    made = Engine()
    targets = prometheus.targets / "scaling-test.json"
    port = made.server.server_address[1]
    targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}"], "labels": {"job": "engine"}}]))
    prometheus.reload()
    yield made
    targets.unlink()
    prometheus.reload()
    made.server.shutdown()
    made.server.server_close()


def scaled_object(name: str, query: str, **spec: Any) -> dict[str, Any]:
    trigger = {"type": "prometheus", "metadata": {"serverAddress": IN_CLUSTER, "query": query, "threshold": "5"}}
    body = {"scaleTargetRef": {"name": name}, "triggers": [trigger], **spec}
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name}, "spec": body}


async def sized(client: Client, where: str, name: str, size: int, patience: float = LONG) -> None:
    """Be the kubelet until a Deployment has this size."""

    async def look() -> bool:
        await come_up(client, where)
        found = await client.get(f"/apis/{APPS}/namespaces/{where}/deployments/{name}")
        return bool(found["spec"]["replicas"] == size and (found["status"].get("readyReplicas") or 0) == size)

    await long(look, f"{name} at {size}", patience)


async def long(look: Callable[[], Awaitable[Any]], what: str, patience: float = LONG) -> Any:
    end = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await until(look, what)
        except AssertionError:
            if asyncio.get_running_loop().time() > end:
                raise


async def said(client: Client, where: str, name: str, kind: str, reason: str) -> dict[str, Any]:
    """Wait until a ScaledObject says something; returns the condition."""

    async def look() -> dict[str, Any] | None:
        found = await client.get(f"{KEDA}/namespaces/{where}/scaledobjects/{name}")
        item = condition((found.get("status") or {}).get("conditions"), kind)
        return item if item and item.get("reason") == reason else None

    return await until(look, f"{kind} {reason}")  # type: ignore[return-value]


async def query(client: Client, where: str, name: str, text: str) -> None:
    """Give the only trigger another query."""
    path = f"{KEDA}/namespaces/{where}/scaledobjects/{name}"
    triggers = (await client.get(path))["spec"]["triggers"]
    triggers[0]["metadata"]["query"] = text
    await client.patch(path, {"spec": {"triggers": triggers}})


async def gone(client: Client, where: str, name: str) -> None:
    """Delete a ScaledObject and wait for its finalizer."""
    path = f"{KEDA}/namespaces/{where}/scaledobjects/{name}"
    await client.delete(path)

    async def look() -> bool:
        return await maybe(client, path) is None

    await until(look, "the ScaledObject gone")


def test_waiting_requests_grow_a_deployment_to_its_most_and_shrink_it_after_the_window(
    ground: Ground, engine: Engine
) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "grow")
        await add_node(client, node("wide", gpus=8))
        await create(client, deployment("chat"), namespace="grow")
        behavior = {"scaleDown": {"stabilizationWindowSeconds": 60}, "scaleUp": {"stabilizationWindowSeconds": 0}}
        body = scaled_object(
            "chat",
            'sum(vllm:num_requests_waiting{namespace="grow",model_name="chat"})',
            minReplicaCount=1,
            maxReplicaCount=3,
            advanced={"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        )
        await create(client, body, namespace="grow")
        await sized(client, "grow", "chat", 1)
        engine.waiting[CHAT] = 40
        await sized(client, "grow", "chat", 3)

        async def limited() -> dict[str, Any] | None:
            found = await client.get(f"{SCALING}/namespaces/grow/horizontalpodautoscalers/keda-hpa-chat")
            item = condition(found["status"]["conditions"], "ScalingLimited")
            metric = found["status"]["currentMetrics"][0]["external"]
            settled = metric["current"]["averageValue"] == "13334m"  # 40 by three, rounded up
            return metric if settled and item and item["reason"] == "TooManyReplicas" else None

        metric: Any = await long(limited, "TooManyReplicas at a third of the load")
        assert metric["metric"]["name"] == "s0-prometheus"
        selector = (
            "&LabelSelector{MatchLabels:map[string]string{scaledobject.keda.sh/name: chat,},"
            "MatchExpressions:[]LabelSelectorRequirement{},}"
        )
        told = await events_of(client, "grow", "SuccessfulRescale")
        assert f"New size: 3; reason: external metric s0-prometheus({selector}) above target" in told
        engine.waiting[CHAT] = 0
        await sized(client, "grow", "chat", 1)
        assert "New size: 1; reason: All metrics below target" in await events_of(client, "grow", "SuccessfulRescale")
        await gone(client, "grow", "chat")

    ground.play(scene)


def test_the_examples_scale_a_workload_by_its_pods_and_by_its_model(ground: Ground, engine: Engine) -> None:
    """One workload, first under the HPA of prometheus-adapter's metric, then under a ScaledObject."""
    [hpa], [scaled] = read_all("examples/15-hpa.yaml"), read_all("examples/17-keda-scaledobject.yaml")
    name = scaled["spec"]["scaleTargetRef"]["name"]

    async def scene(client: Client) -> None:
        await ensure_namespace(client, "team-a")
        await add_node(client, node("wide", gpus=8))
        await create(client, deployment(name), namespace="team-a")
        await sized(client, "team-a", name, 1)
        [pod] = await items(client, "pods", "team-a")
        engine.waiting[f'namespace="team-a",pod="{pod["metadata"]["name"]}"'] = 12
        await create(client, hpa)
        await sized(client, "team-a", name, 2)  # one pod a minute at most, says the example
        told = await events_of(client, "team-a", "SuccessfulRescale")
        assert told[0] == "New size: 2; reason: pods metric vllm_num_requests_waiting above target"
        path = f"{SCALING}/namespaces/team-a/horizontalpodautoscalers/{hpa['metadata']['name']}"
        [metric] = (await client.get(path))["status"]["currentMetrics"]
        assert metric["pods"]["current"] == {"averageValue": "12"}
        await client.delete(path)

        engine.waiting = {'namespace="team-a",model_name="granite-3.1-8b-instruct"': 20}
        await create(client, scaled)
        await sized(client, "team-a", name, 4)
        await said(client, "team-a", name, "Active", "ScalerActive")
        await gone(client, "team-a", name)

    ground.play(scene)


def test_a_target_goes_to_zero_after_its_cooldown_and_comes_back(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "zero")
        await add_node(client, node("n", gpus=8))
        await create(client, deployment("chat"), namespace="zero")
        body = scaled_object("chat", "vector(1)", minReplicaCount=0, maxReplicaCount=2, cooldownPeriod=20)
        await create(client, body, namespace="zero")
        active = await said(client, "zero", "chat", "Active", "ScalerActive")
        assert active["message"] == "Scaling is performed because triggers are active"
        await query(client, "zero", "chat", "vector(0)")
        await said(client, "zero", "chat", "Active", "ScalerCooldown")
        await sized(client, "zero", "chat", 0)
        assert await events_of(client, "zero", "KEDAScaleTargetDeactivated") == [
            "Deactivated apps/v1.Deployment zero/chat from 1 to 0"
        ]
        await said(client, "zero", "chat", "HPAActive", "ScalingDisabled")
        await query(client, "zero", "chat", "vector(2)")
        await sized(client, "zero", "chat", 1)
        assert await events_of(client, "zero", "KEDAScaleTargetActivated") == [
            "Scaled apps/v1.Deployment zero/chat from 0 to 1, triggered by s0-prometheus"
        ]
        await gone(client, "zero", "chat")

    ground.play(scene)


def test_what_cannot_be_read_falls_back_after_the_failures_allowed(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "fall")
        await add_node(client, node("n", gpus=8))
        await create(client, deployment("chat"), namespace="fall")
        body = scaled_object(
            "chat", "no(", minReplicaCount=1, maxReplicaCount=4, fallback={"failureThreshold": 3, "replicas": 2}
        )
        await create(client, body, namespace="fall")
        falling = await said(client, "fall", "chat", "Fallback", "FallbackExists")
        assert falling["message"] == "At least one trigger is falling back on this scaled object"
        await sized(client, "fall", "chat", 2)
        reasons = await events_of(client, "fall", "KEDAScalerFailed")
        assert reasons == ["prometheus query api returned error. status: 400"]
        await query(client, "fall", "chat", "vector(5)")
        await said(client, "fall", "chat", "Fallback", "NoFallbackFound")
        await until(lambda: events_of(client, "fall", "ScaledObjectFallbackDeactivated"))
        await gone(client, "fall", "chat")

    ground.play(scene)


def test_without_a_fallback_the_failure_is_said_and_nothing_moves(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "fail")
        await create(client, deployment("chat", replicas=2), namespace="fail")
        body = scaled_object("chat", "up", minReplicaCount=1, maxReplicaCount=4)
        body["spec"]["triggers"][0]["metadata"]["serverAddress"] = "http://elsewhere.example"
        await create(client, body, namespace="fail")
        wrong = await said(client, "fail", "chat", "Ready", "TriggerError")
        assert wrong["message"] == "Triggers defined in ScaledObject are not working correctly"
        told = (await events_of(client, "fail", "KEDAScalerFailed"))[0]
        assert told.startswith('Get "http://elsewhere.example/api/v1/query?query=up&time=')
        assert told.endswith('": dial tcp: lookup elsewhere.example: no such host')
        unhealthy = await said(client, "fail", "chat", "HPAActive", "FailedGetExternalMetric")
        assert unhealthy["message"] == (
            "HPA is not actively scaling: the HPA was unable to compute the replica count: unable to get external "
            "metric fail/s0-prometheus/&LabelSelector{MatchLabels:map[string]string{scaledobject.keda.sh/name: chat,},"
            "MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: "
            "rpc error: code = Unknown desc = error when getting metric values metric:s0-prometheus encountered error"
        )
        found = await client.get(f"/apis/{APPS}/namespaces/fail/deployments/chat")
        assert found["spec"]["replicas"] == 2
        await gone(client, "fail", "chat")

    ground.play(scene)


def test_a_paused_target_rests_at_the_size_asked_for(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "rest")
        await add_node(client, node("n", gpus=8))
        await create(client, deployment("chat"), namespace="rest")
        await create(client, scaled_object("chat", "vector(1)", minReplicaCount=1), namespace="rest")
        await said(client, "rest", "chat", "Ready", "ScaledObjectReady")
        path = f"{KEDA}/namespaces/rest/scaledobjects/chat"
        note = "autoscaling.keda.sh/paused-replicas"
        await client.patch(path, {"metadata": {"annotations": {note: "3"}}})
        await sized(client, "rest", "chat", 3)
        resting = await client.get(path)
        assert resting["status"]["pausedReplicaCount"] == 3
        paused = condition(resting["status"]["conditions"], "Paused")
        assert paused == {
            "type": "Paused",
            "status": "True",
            "reason": "ScaledObjectPaused",
            "message": "ScaledObject is paused",
        }
        assert await items(client, "horizontalpodautoscalers", "rest", api="autoscaling/v2") == []
        await client.patch(path, {"metadata": {"annotations": {note: None}}})
        await said(client, "rest", "chat", "Paused", "ScaledObjectUnpaused")
        back = await until(lambda: items(client, "horizontalpodautoscalers", "rest", api="autoscaling/v2"), "the HPA")
        assert len(back) == 1
        await gone(client, "rest", "chat")
        assert await until(lambda: events_of(client, "rest", "ScaledObjectDeleted")) == ["ScaledObject was deleted"]

    ground.play(scene)


def test_a_scaled_object_without_its_target_says_so_until_it_comes(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "lone")
        await create(client, scaled_object("chat", "vector(1)"), namespace="lone")
        wrong = await said(client, "lone", "chat", "Ready", "ScaledObjectCheckFailed")
        assert wrong["message"] == (
            'ScaledObject doesn\'t have correct scaleTargetRef specification: deployments.apps "chat" not found'
        )
        assert "Target resource doesn't exist" in await events_of(client, "lone", "ScaledObjectCheckFailed")
        await create(client, deployment("chat"), namespace="lone")
        await said(client, "lone", "chat", "Ready", "ScaledObjectReady")
        found = await client.get(f"{KEDA}/namespaces/lone/scaledobjects/chat")
        status = found["status"]
        assert found["metadata"]["finalizers"] == ["finalizer.keda.sh"]
        assert found["metadata"]["labels"] == {"scaledobject.keda.sh/name": "chat"}
        assert (status["hpaName"], status["externalMetricNames"]) == ("keda-hpa-chat", ["s0-prometheus"])
        assert (status["scaleTargetKind"], status["originalReplicaCount"]) == ("apps/v1.Deployment", 1)
        await gone(client, "lone", "chat")

    ground.play(scene)


def test_the_autoscaler_of_a_scaled_object_is_made_again_and_set_right(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "again")
        await create(client, deployment("chat"), namespace="again")
        await create(client, scaled_object("chat", "vector(1)", maxReplicaCount=4), namespace="again")
        path = f"{SCALING}/namespaces/again/horizontalpodautoscalers/keda-hpa-chat"
        first = await until(lambda: maybe(client, path), "the autoscaler")
        assert first is not None
        await client.delete(path)

        async def another() -> bool:
            found = await maybe(client, path)
            return found is not None and found["metadata"]["uid"] != first["metadata"]["uid"]

        await until(another, "another autoscaler")
        await client.patch(path, {"spec": {"maxReplicas": 9}})

        async def right() -> bool:
            return bool((await client.get(path))["spec"]["maxReplicas"] == 4)

        await until(right, "four at most")
        await gone(client, "again", "chat")

    ground.play(scene)


def test_a_second_owner_of_one_workload_is_refused(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "rivals")
        await create(client, deployment("chat"), namespace="rivals")
        hpa = {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "own"},
            "spec": {
                "scaleTargetRef": {"apiVersion": APPS, "kind": "Deployment", "name": "chat"},
                "maxReplicas": 3,
            },
        }
        await create(client, hpa, namespace="rivals")
        with pytest.raises(ApiError) as refused:
            await create(client, scaled_object("chat", "up"), namespace="rivals")
        assert refused.value.body["message"] == (
            'admission webhook "vscaledobject.kb.io" denied the request: '
            "the workload 'chat' of type 'apps/v1.Deployment' is already managed by the hpa 'own'"
        )

        async def unmeasured() -> dict[str, Any] | None:
            found = await client.get(f"{SCALING}/namespaces/rivals/horizontalpodautoscalers/own")
            return condition(found["status"].get("conditions"), "ScalingActive")

        cpu: Any = await until(unmeasured)
        assert (cpu["status"], cpu["reason"]) == ("False", "FailedGetResourceMetric")
        assert cpu["message"] == (
            "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics "
            "for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the "
            "requested resource (get pods.metrics.k8s.io)"
        )
        with contextlib.suppress(ApiError):
            await client.delete(f"{SCALING}/namespaces/rivals/horizontalpodautoscalers/own")

    ground.play(scene)
