"""A replica that spans two nodes: a leader and a worker as KServe and LeaderWorkerSet make them of what was signed."""

from __future__ import annotations

import pytest

from deployments.services import facts
from tests.scenarios.stage import Says, Stage, engine

pytestmark = pytest.mark.django_db

GROUP = "chat-kserve-mn"
# What each ground scales by; the real one has no KEDA.
SCALER = {"lite": "ScaledObject", "real": "HorizontalPodAutoscaler"}


@pytest.mark.timeout(300)
def test_a_replica_on_two_nodes_from_wish_to_running_to_gone(stage: Stage):
    split = engine(max_model_len=2048, pipeline_parallel_size=2)
    row = stage.comes_to(stage.ask(nodes=2, engine=split), Says("Running"), within=90)

    assert {pod["metadata"]["name"] for pod in stage.pods()} == {f"{GROUP}-0", f"{GROUP}-0-1"}
    assert [item["metadata"]["name"] for item in stage.ground.list("LeaderWorkerSet", stage.namespace)] == [GROUP]
    assert [item["metadata"]["name"] for item in stage.ground.list("HTTPRoute", stage.namespace)] == ["chat-slipway"]
    assert (row.applied.gpus, row.applied.surge, stage.held(row)) == (2, 0, 2)

    row = stage.comes_to(stage.stop(row), Says("Stopped"), within=90, note="stop")
    assert stage.pods() == []
    assert stage.ground.list("StatefulSet", stage.namespace) == []
    stage.until(row, lambda: stage.held(row) == 0, what="GPUs given back")

    row = stage.delete(row)
    stage.until(row, lambda: stage.fresh(row).deleted_at, within=60, what="deleted")
    assert stage.ground.list("LeaderWorkerSet", stage.namespace) == []


@pytest.mark.timeout(300)
def test_replicas_on_two_nodes_are_handed_over_to_an_autoscaler(stage: Stage):
    # What a cluster scales by is decided when somebody asks, from what the watcher knows of it.
    stage.driven.until(lambda: (cluster := facts.main_cluster()) and cluster.seen_at and not cluster.trouble)
    kind, split = SCALER[stage.ground.name], {"pipeline_parallel_size": 2}
    fixed = {"nodes": 2, "replicas": {"min": 2, "max": 2}, "engine": engine(max_model_len=2048, **split)}
    row = stage.running(**fixed)
    assert (replicas(stage), len(stage.pods())) == (2, 4)
    assert stage.ground.read(kind, "chat-slipway", stage.namespace) is None

    # From here on nobody says how many: what ran goes on, and is not set back to one.
    between = {"nodes": 2, "replicas": {"min": 1, "max": 2}, "engine": engine(max_model_len=1024, **split)}
    row = stage.revise(row, **between)
    row = stage.comes_to_pass(row, lambda: stage.newest_serves(row, 2), within=120, note="change")
    assert "replicas" not in (stage.ground.read("LLMInferenceService", "chat", stage.namespace) or {})["spec"]
    scaler = stage.ground.read(kind, "chat-slipway", stage.namespace) or {}
    assert scaler["spec"]["scaleTargetRef"]["name"] == GROUP
    assert (replicas(stage), len(stage.pods())) == (2, 4)
    assert (row.applied.gpus, stage.held(row)) == (4, 4)

    row = stage.revise(row, **{**between, "replicas": {"min": 1, "max": 1}})
    stage.until(row, lambda: (replicas(stage), stage.held(row)) == (1, 2), within=60, what="a fixed number again")
    stage.until(row, lambda: stage.ground.read(kind, "chat-slipway", stage.namespace) is None, what="no autoscaler")


def replicas(stage: Stage) -> int:
    """How many replicas the groups are to have."""
    found: int = (stage.ground.read("LeaderWorkerSet", GROUP, stage.namespace) or {})["spec"]["replicas"]
    return found
