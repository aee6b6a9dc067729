"""One replica through an edit: answered all the while where the new pod is started first, interrupted where not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.grounds import Object
from tests.scenarios.stage import POD, Stage, engine
from tests.scenarios.test_oci_volume import image

pytestmark = pytest.mark.django_db


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("wish", "surge", "fewest"),
    [({}, 1, 1), (image("1.0"), 1, 1), ({}, 0, 0)],
    ids=["new pod first", "new pod first, of an image", "in place"],
)
def test_one_replica_through_an_edit(stage: Stage, wish: dict[str, Any], surge: int, fewest: int):
    row = stage.running(**wish, surge=surge)
    row = stage.until(row, lambda: stage.held(row) == 1, what="no more held than runs")
    pods, since = stage.pods(), stage.ground.version_of(POD, stage.namespace)

    row = stage.revise(row, **wish, surge=surge, engine=engine(max_model_len=4096))
    assert stage.held(row) == 1 + surge
    row = stage.comes_to_pass(row, lambda: stage.newest_serves(row, 2), within=90, note="change")

    ready = ready_through(stage, pods, since)
    assert (min(ready), max(ready)) == (fewest, 1 + surge)
    stage.until(row, lambda: stage.held(row) == 1, what="the surge given back")


def ready_through(stage: Stage, pods: list[Object], since: str) -> list[int]:
    """How many pods took calls after each event since then; first those that were there."""
    there = {pod["metadata"]["name"]: takes_calls(pod) for pod in pods}
    counts = [sum(there.values())]
    for event in stage.ground.events(POD, stage.namespace, since):
        there[event.object["metadata"]["name"]] = event.type != "DELETED" and takes_calls(event.object)
        counts.append(sum(there.values()))
    return counts


def takes_calls(pod: Object) -> bool:
    """True for a pod that a Service leads to: it is ready, and nobody has asked it to go."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
