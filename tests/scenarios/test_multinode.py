"""A replica that spans two nodes: a leader and a worker as KServe and LeaderWorkerSet make them of what was signed."""

from __future__ import annotations

import pytest

from tests.scenarios.stage import Says, Stage, engine

pytestmark = pytest.mark.django_db

GROUP = "chat-kserve-mn"


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
