"""When standard replicas come and go: what is written, and what KServe makes of it for KEDA and the autoscaler."""

from __future__ import annotations

import dataclasses
from typing import Any

import jsonschema
import pytest

from deployments.manifests import Resolution, Wish, build, gpus_of
from deployments.manifests.scaling import available
from sandbox.lite.controllers import scaling_children
from sandbox.lite.controllers.kserve_config import KServeConfig
from tests.deployments.test_manifests import crd_schemas, one
from tests.deployments.wishes import spec_of, wish_of

CLASS = "serving.kserve.io/autoscalerClass"


def wish(autoscaler: str, *, least: int = 2, most: int = 10, **changes: Any) -> Wish:
    made = wish_of(spec_of(replicas={"min": least, "max": most}, **changes))
    return dataclasses.replace(made, resolution=dataclasses.replace(made.resolution, autoscaler=autoscaler))


def service(made: Wish) -> Any:
    return one(build(made), "InferenceService")


@pytest.mark.parametrize(
    ("groups", "autoscaler"),
    [((), ""), (("serving.kserve.io",), "hpa"), (("serving.kserve.io", "keda.sh"), "keda")],
)
def test_what_a_cluster_scales_by_follows_from_what_it_serves(groups: tuple[str, ...], autoscaler: str):
    assert available(groups) == autoscaler


@pytest.mark.parametrize(
    ("autoscaler", "least", "most", "written"),
    [
        ("keda", 2, 10, "keda"),
        ("hpa", 2, 10, "hpa"),
        ("", 2, 10, "none"),
        ("keda", 3, 3, "none"),
        ("hpa", 3, 3, "none"),
    ],
)
def test_the_class_is_always_written(autoscaler: str, least: int, most: int, written: str):
    made = service(wish(autoscaler, least=least, most=most))
    assert made["metadata"]["annotations"][CLASS] == written
    predictor = made["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (least, most)
    assert ("autoScaling" in predictor, "scaleMetric" in predictor) == (written == "keda", written == "hpa")


@pytest.mark.parametrize("autoscaler", ["keda", "hpa", ""])
def test_no_deployment_says_replicas_of_its_own(autoscaler: str):
    predictor = service(wish(autoscaler))["spec"]["predictor"]
    assert "replicas" not in predictor
    version = "serving.kserve.io/v1beta1", "InferenceService"
    jsonschema.Draft202012Validator(crd_schemas()[version]).validate(service(wish(autoscaler)))
    assert scaling_children.problem(predictor, autoscaler or "none") is None


def test_keda_gets_sums_over_all_replicas_and_what_one_may_have():
    predictor = service(wish("keda"))["spec"]["predictor"]
    made = scaling_children.scaled_object(predictor, {"name": "chat-predictor"}, KServeConfig())["spec"]
    assert (made["minReplicaCount"], made["maxReplicaCount"]) == (2, 10)
    requests, cache = (trigger["metadata"] for trigger in made["triggers"])
    # Ten requests per replica, and another at 80 % of that.
    assert requests["threshold"] == "8"
    assert requests["query"] == (
        'sum(vllm:num_requests_waiting{namespace="search-ab3de", slipway_dev_deployment="42"}) + '
        'sum(vllm:num_requests_running{namespace="search-ab3de", slipway_dev_deployment="42"})'
    )
    assert cache["threshold"] == "80"
    assert cache["query"] == (
        '100 * sum(avg by (pod) (vllm:kv_cache_usage_perc{namespace="search-ab3de", slipway_dev_deployment="42"}))'
    )
    assert {trigger["type"] for trigger in made["triggers"]} == {"prometheus"}
    window = made["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert window["stabilizationWindowSeconds"] == 600


@pytest.mark.parametrize(
    ("scaling", "threshold", "percent"),
    [({"concurrency": 10, "percent": 80}, "8", "80"), ({"concurrency": 25, "percent": 50}, "12.5", "50")],
)
def test_targets_are_the_wishs_own(scaling: dict[str, int], threshold: str, percent: str):
    predictor = service(wish("keda", scaling=scaling))["spec"]["predictor"]
    values = [metric["external"]["target"]["value"] for metric in predictor["autoScaling"]["metrics"]]
    assert values == [threshold, percent]


def test_without_keda_processors_count():
    predictor = service(wish("hpa", scaling={"percent": 60}))["spec"]["predictor"]
    made = scaling_children.hpa(predictor, {"name": "chat-predictor"})["spec"]
    assert made["metrics"][0]["resource"] == {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 60},
    }


@pytest.mark.parametrize("autoscaler", ["keda", "hpa", ""])
def test_gpus_are_reserved_for_the_most_replicas_whoever_scales(autoscaler: str):
    made = wish(autoscaler)
    assert gpus_of(build(made)) == made.spec.gpus == 10


def test_a_resolution_from_before_scaling_is_written_as_it_was():
    before = wish_of().resolution
    assert "autoscaler" not in before.as_json()
    assert Resolution.from_json(before.as_json()) == before
    after = wish("keda").resolution
    assert after.as_json()["autoscaler"] == "keda"
    assert Resolution.from_json(after.as_json()) == after
