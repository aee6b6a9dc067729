"""The autoscalers of InferenceServices: what each class makes, what is refused, and who has the last word on size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.client import Client
from sandbox.lite.controllers import kserve_children as children
from sandbox.lite.controllers.kserve_admission import default, validate
from sandbox.lite.controllers.kserve_config import KServeConfig, read_config
from sandbox.lite.controllers.meta import condition
from sandbox.lite.testing import running_cluster
from tests.conftest import PrometheusServer
from tests.sandbox.ground import Ground, add_node, come_up, create, ensure_namespace, items, maybe, node, until
from tests.sandbox.recordings import comparable, read, read_all, recorded

RECORDING, EXAMPLE = "objects/16-isvc-keda.yaml", "examples/16-isvc-keda.yaml"
CLASS = "serving.kserve.io/autoscalerClass"
ISVC = "/apis/serving.kserve.io/v1beta1"


def service(chosen: str, **predictor: Any) -> dict[str, Any]:
    """Return the recorded service with another class and other words on scaling."""
    isvc = recorded(RECORDING, "InferenceService")
    assert isvc is not None
    isvc["metadata"]["annotations"][CLASS] = chosen
    isvc["spec"]["predictor"].pop("autoScaling")
    isvc["spec"]["predictor"] |= predictor
    return isvc


def made(isvc: dict[str, Any]) -> Any:
    found = children.autoscaler(isvc, read("runtime.yaml"), KServeConfig())
    return None if found is None else found["spec"]


def test_the_scaled_object_is_the_recorded_one() -> None:
    isvc, theirs = recorded(RECORDING, "InferenceService"), recorded(RECORDING, "ScaledObject")
    assert isvc is not None
    ours = children.autoscaler(isvc, read("runtime.yaml"), KServeConfig())
    assert comparable(ours) == comparable(theirs)


def test_the_example_passes_the_webhook_as_it_was_stored() -> None:
    [given] = read_all(EXAMPLE)
    theirs = recorded(RECORDING, "InferenceService")
    assert theirs is not None
    assert default(given)["spec"] == theirs["spec"]
    assert validate(default(given), None) == []


def test_windows_come_from_the_config_map_where_a_service_gives_none() -> None:
    data = {"data": {"autoscaler": '{"scaleDownStabilizationWindowSeconds": "120"}'}}
    found = children.autoscaler(service("keda"), read("runtime.yaml"), read_config(data))
    assert found is not None
    assert found["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == {
        "scaleDown": {"stabilizationWindowSeconds": 120},
        "scaleUp": {"stabilizationWindowSeconds": 0},
    }


@pytest.mark.parametrize("chosen", ["none", "external"])
def test_two_classes_make_nothing(chosen: str) -> None:
    assert made(service(chosen)) is None


def test_an_hpa_never_goes_to_zero_and_forgets_the_behavior() -> None:
    spec = made(service("hpa", minReplicas=0, maxReplicas=0, scaleTarget=60))
    assert (spec["minReplicas"], spec["maxReplicas"], spec["behavior"]) == (1, 1, {})
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "qwen-keda-predictor"}
    target = {"type": "Utilization", "averageUtilization": 60}
    assert spec["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def test_keda_takes_zero_and_cpu_as_a_trigger() -> None:
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}
    spec = made(service("keda", minReplicas=0, autoScaling={"metrics": [cpu]}))
    assert spec["minReplicaCount"] == 0
    assert spec["triggers"] == [{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "80"}}]


@pytest.mark.parametrize(
    ("chosen", "predictor", "words"),
    [
        ("hpa", {"scaleMetric": "rps"}, "[rps] is not a supported metric"),
        ("hpa", {"scaleTarget": 101}, "the target utilization percentage should be a [1-100] integer"),
        (
            "hpa",
            {"autoScaling": {"metrics": [{"type": "External"}]}},
            "invalid HPA metric source type with value [External],valid metric source types are Resource",
        ),
        ("keda", {"scaleMetric": "cpu"}, "ScaleMetric is not supported for KEDA"),
        (
            "keda",
            {"autoScaling": {"metrics": [{"type": "External", "external": {"metric": {}, "target": {}}}]}},
            "the query should not be empty",
        ),
        (
            "keda",
            {"autoScaling": {"metrics": [{"type": "External", "external": {"metric": {"query": "up"}, "target": {}}}]}},
            "the target threshold value should not be empty",
        ),
    ],
)
def test_wrong_words_on_scaling_are_refused(chosen: str, predictor: Any, words: str) -> None:
    assert validate(service(chosen, **predictor), None) == [words]


# On the running ground --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ground(prometheus: PrometheusServer) -> Iterator[Ground]:
    with running_cluster(prometheus_url=prometheus.url, scaling_speed=20.0) as cluster:
        yield Ground(cluster)


def test_what_keda_scales_the_service_leaves_alone_until_its_class_says_otherwise(ground: Ground) -> None:
    [given] = read_all(EXAMPLE)
    given["spec"]["predictor"]["autoScaling"]["metrics"][0]["external"]["metric"]["query"] = "vector(12)"

    async def scene(client: Client) -> None:
        await ensure_namespace(client, "team-a")
        await add_node(client, node("wide", gpus=8))
        await create(client, given)
        path = f"{ISVC}/namespaces/team-a/inferenceservices/qwen-keda"
        deployment = "/apis/apps/v1/namespaces/team-a/deployments/qwen-keda-predictor"
        scaled = "/apis/keda.sh/v1alpha1/namespaces/team-a/scaledobjects/qwen-keda-predictor"

        async def size(count: int) -> None:
            async def look() -> bool:
                await come_up(client, "team-a")
                found = await maybe(client, deployment)
                return found is not None and found["spec"]["replicas"] == count

            await until(look, f"{count} replicas")

        await size(3)
        # A change of the service writes the Deployment anew, without a size: KEDA's stays.
        await client.patch(path, {"spec": {"predictor": {"labels": {"cost": "low"}}}})

        async def labelled() -> bool:
            return bool((await client.get(deployment))["metadata"]["labels"].get("cost") == "low")

        await until(labelled, "the new label")
        assert (await client.get(deployment))["spec"]["replicas"] == 3
        ready = condition((await client.get(scaled))["status"]["conditions"], "Ready")
        assert ready is not None
        assert ready["reason"] == "ScaledObjectReady"

        # Stopped: nothing is left, the ScaledObject and its HPA included.
        await client.patch(path, {"metadata": {"annotations": {"serving.kserve.io/stop": "true"}}})

        async def stopped() -> bool:
            left = await items(client, "horizontalpodautoscalers", "team-a", api="autoscaling/v2")
            return not left and await maybe(client, deployment) is None and await maybe(client, scaled) is None

        await until(stopped, "nothing left")
        await client.patch(path, {"metadata": {"annotations": {"serving.kserve.io/stop": None, CLASS: "none"}}})
        await size(1)
        assert await maybe(client, scaled) is None

    ground.play(scene)


def test_an_hpa_comes_and_goes_with_its_class(ground: Ground) -> None:
    [given] = read_all(EXAMPLE)
    given["metadata"]["annotations"][CLASS] = "hpa"
    del given["spec"]["predictor"]["autoScaling"]

    async def scene(client: Client) -> None:
        await ensure_namespace(client, "team-a")
        await create(client, given)
        hpa = "/apis/autoscaling/v2/namespaces/team-a/horizontalpodautoscalers/qwen-keda-predictor"
        found = await until(lambda: maybe(client, hpa), "the HPA")
        assert found is not None
        assert found["spec"]["behavior"]["scaleDown"]["selectPolicy"] == "Max"  # {} is filled by the server
        await client.patch(
            f"{ISVC}/namespaces/team-a/inferenceservices/qwen-keda", {"metadata": {"annotations": {CLASS: "external"}}}
        )

        async def gone() -> bool:
            return await maybe(client, hpa) is None

        await until(gone, "no HPA")

    ground.play(scene)
