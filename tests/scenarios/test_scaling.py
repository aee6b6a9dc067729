"""Replicas between two numbers: what scales them on each ground, and that a new revision leaves their number alone."""

from __future__ import annotations

import pytest

from deployments.services import facts
from tests.scenarios.grounds import Object
from tests.scenarios.stage import Stage, engine

pytestmark = pytest.mark.django_db

CLASS = "serving.kserve.io/autoscalerClass"
# The real ground has KServe's own controllers and no KEDA.
SCALES = {"lite": "keda", "real": "hpa"}


@pytest.mark.timeout(300)
def test_replicas_between_two_numbers_are_the_autoscalers(stage: Stage):
    # What a cluster scales by is decided when somebody asks, from what the watcher knows of it.
    stage.driven.until(lambda: (cluster := facts.main_cluster()) and cluster.seen_at and not cluster.trouble)
    row = stage.running(replicas={"min": 1, "max": 2})
    service = stage.service(row) or {}

    assert service["metadata"]["annotations"][CLASS] == SCALES[stage.ground.name]
    assert limits(stage) == (1, 2)
    assert stage.held(row) == 2  # for the most, whatever runs now

    # As the autoscaler would: the next revision must not set it back.
    stage.ground.edit("Deployment", "chat-predictor", stage.namespace, {"spec": {"replicas": 2}})
    row = stage.revise(row, replicas={"min": 1, "max": 2}, engine=engine(max_model_len=4096))
    row = stage.pass_over(row)
    assert row.applied.number == 2
    assert "replicas" not in (stage.service(row) or {})["spec"]["predictor"]


def limits(stage: Stage) -> tuple[int, int]:
    """The fewest and most replicas that the autoscaler of the service keeps to."""
    if stage.ground.name == "lite":
        spec: Object = (stage.ground.read("ScaledObject", "chat-predictor", stage.namespace) or {})["spec"]
        return spec["minReplicaCount"], spec["maxReplicaCount"]
    spec = (stage.ground.read("HorizontalPodAutoscaler", "chat-predictor", stage.namespace) or {})["spec"]
    return spec["minReplicas"], spec["maxReplicas"]
