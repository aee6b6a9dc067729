"""HorizontalPodAutoscalers on the running lite ground, without metrics: bounds, targets that are not there, rivals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.client import ApiError, Client
from sandbox.lite.controllers.meta import condition
from sandbox.lite.testing import running_cluster
from tests.sandbox.ground import Ground, create, deployment, ensure_namespace, events_of, until

HPAS = "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers/{}"
DEPLOYMENT = "/apis/apps/v1/namespaces/{}/deployments/{}"


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with running_cluster(scaling_speed=50.0) as cluster:
        yield Ground(cluster)


def hpa(name: str, target: str = "chat", kind: str = "Deployment", **spec: Any) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": kind, "name": target}
    body = {"scaleTargetRef": reference, "maxReplicas": 3, **spec}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": body}


async def told(client: Client, where: str, name: str, kind: str, reason: str) -> dict[str, Any]:
    """Wait until an autoscaler says something; returns the condition."""

    async def look() -> dict[str, Any] | None:
        found = await client.get(HPAS.format(where, name))
        item = condition(found["status"].get("conditions"), kind)
        return item if item and item["reason"] == reason else None

    found = await until(look, f"{kind} {reason}")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Deployment", 'deployments.apps "chat" not found'),
        ("Rocket", 'no matches for kind "Rocket" in group "apps"'),
    ],
)
def test_a_target_that_is_not_there_is_said(ground: Ground, kind: str, words: str) -> None:
    where = f"lost-{kind.lower()}"

    async def scene(client: Client) -> None:
        await ensure_namespace(client, where)
        await create(client, hpa("lost", kind=kind), namespace=where)
        lost = await told(client, where, "lost", "AbleToScale", "FailedGetScale")
        assert (lost["status"], lost["message"]) == (
            "False",
            f"the HPA controller was unable to get the target's current scale: {words}",
        )
        assert await events_of(client, where, "FailedGetScale") == [words]
        await client.delete(HPAS.format(where, "lost"))

    ground.play(scene)


def test_bounds_are_kept_without_any_metric(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "bounds")
        await create(client, deployment("chat", replicas=5), deployment("small"), namespace="bounds")
        await create(client, hpa("most"), hpa("least", "small", minReplicas=2), namespace="bounds")

        async def within() -> bool:
            sizes = [
                (await client.get(DEPLOYMENT.format("bounds", name)))["spec"]["replicas"] for name in ("chat", "small")
            ]
            return sizes == [3, 2]

        await until(within, "both within their bounds")
        assert set(await until(lambda: events_of(client, "bounds", "SuccessfulRescale"))) <= {
            "New size: 3; reason: Current number of replicas above Spec.MaxReplicas",
            "New size: 2; reason: Current number of replicas below Spec.MinReplicas",
        }
        found = await client.get(DEPLOYMENT.format("bounds", "chat"))
        owners = [(item["manager"], item.get("subresource")) for item in found["metadata"]["managedFields"]]
        assert ("kube-controller-manager", "scale") in owners
        status = (await client.get(HPAS.format("bounds", "most")))["status"]
        assert (status["currentReplicas"], status["desiredReplicas"]) in ((5, 3), (3, 3))
        for name in ("most", "least"):
            await client.delete(HPAS.format("bounds", name))

    ground.play(scene)


def test_an_autoscaler_rests_while_its_target_is_at_zero(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "zero")
        await create(client, deployment("chat", replicas=0), namespace="zero")
        await create(client, hpa("rests"), namespace="zero")
        resting = await told(client, "zero", "rests", "ScalingActive", "ScalingDisabled")
        assert (resting["status"], resting["message"]) == (
            "False",
            "scaling is disabled since the replica count of the target is zero",
        )
        await client.delete(HPAS.format("zero", "rests"))

    ground.play(scene)


def test_pods_metrics_need_an_adapter(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "adapter")
        await create(client, deployment("chat"), namespace="adapter")
        source = {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "5"}}
        await create(client, hpa("wants", metrics=[{"type": "Pods", "pods": source}]), namespace="adapter")
        missing = await told(client, "adapter", "wants", "ScalingActive", "FailedGetPodsMetric")
        why = (
            "unable to get metric queue: unable to fetch metrics from custom metrics API: "
            "no custom metrics API (custom.metrics.k8s.io) registered"
        )
        assert missing["message"] == f"the HPA was unable to compute the replica count: {why}"
        assert await until(lambda: events_of(client, "adapter", "FailedComputeMetricsReplicas")) == [
            f"invalid metrics (1 invalid out of 1), first error is: failed to get pods metric value: {why}"
        ]
        await client.delete(HPAS.format("adapter", "wants"))

    ground.play(scene)


def test_two_autoscalers_of_the_same_pods_both_stand_still(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "rivals")
        await create(client, deployment("chat"), namespace="rivals")
        await create(client, hpa("one"), hpa("two"), namespace="rivals")
        rival = await told(client, "rivals", "one", "ScalingActive", "AmbiguousSelector")
        assert rival["message"] == (
            "pods by selector app=chat are controlled by multiple HPAs: [{one rivals} {two rivals}]"
        )
        for name in ("one", "two"):
            await client.delete(HPAS.format("rivals", name))

    ground.play(scene)


def test_a_wrong_autoscaler_is_refused_field_by_field(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "wrong")
        with pytest.raises(ApiError) as refused:
            await create(client, hpa("wrong", minReplicas=4), namespace="wrong")
        assert refused.value.status == 422
        assert refused.value.body["message"] == (
            'HorizontalPodAutoscaler.autoscaling "wrong" is invalid: spec.maxReplicas: Invalid value: 3: must be '
            "greater than or equal to `minReplicas`"
        )

    ground.play(scene)
