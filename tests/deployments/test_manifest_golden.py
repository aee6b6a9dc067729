"""Objects of *standard* deployments, byte for byte: what was signed is rendered again, wherever builders stand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from deployments.manifests import Wish, build, build_service_account, stopped
from tests.deployments.wishes import spec_of, wish_of

GOLDEN = Path(__file__).parent.parent / "data" / "manifests" / "standard.json"


def wishes() -> dict[str, Wish]:
    split = spec_of(args={"max-model-len": 8192, "tensor-parallel-size": 4}, replicas={"min": 1, "max": 2})
    of_a_slice = dataclasses.replace(
        wish_of().resolution,
        resource_name="nvidia.com/mig-3g.40gb",
        node_selector={"pool": "a"},
        tolerations=({"key": "team", "operator": "Exists"},),
        storage_uri="hf://a/b:" + "b" * 40,
        engine_version="0.32.0",
    )
    return {"one-gpu": wish_of(), "split": wish_of(split), "slice": wish_of(resolution=of_a_slice)}


def test_standard_objects_are_those_that_were_signed():
    made = {
        name: [build_service_account(wish, ("hf-x1",)), *build(wish), *stopped(build(wish))]
        for name, wish in wishes().items()
    }
    assert json.dumps(made, indent=1) + "\n" == GOLDEN.read_text()
