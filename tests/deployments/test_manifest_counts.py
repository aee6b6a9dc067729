"""GPUs of built objects are never more than is reserved, over many random wishes; and text keeps to its places."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings

from deployments.labels import GPU_PREFIX
from deployments.manifests import Object, Wish, build, common, gpus_of
from deployments.spec import MAX_REPLICAS, DeploymentSpec
from deployments.spec_errors import parse_spec
from tests.deployments.test_manifests import HOSTILE, leaves
from tests.deployments.wishes import roles_json, spec_json, wish_of

# Said where it fails: the same number gives the same wishes.
SEED = 20260826
WISHES = 20_000
SIZES, STAGES = (1, 2, 4, 8), (1, 1, 1, 2, 3)
# Without a pod's template, whatever is in them.
SCALING = frozenset({"ScaledObject", "HorizontalPodAutoscaler"})
NO_PODS = frozenset({"NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "HTTPRoute"}) | SCALING
NAMES = ("nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb")
SCALERS = ("", "keda", "hpa")


def random_wish(dice: random.Random) -> Wish:
    """A wish of any strategy, size and scaling."""
    document = _roles(dice) if dice.random() < 0.15 else spec_json(args=_args(dice), replicas=_replicas(dice))
    if dice.random() < 0.3:
        document["scaling"] = {"concurrency": dice.randint(1, 500), "percent": dice.randint(10, 100)}
    made = wish_of(DeploymentSpec.from_json(document))
    resolved = dataclasses.replace(
        made.resolution,
        resource_name=dice.choice(NAMES),
        autoscaler=dice.choice(SCALERS),
        weights_bytes=dice.choice((None, dice.randrange(10**12))),
    )
    return dataclasses.replace(made, resolution=resolved)


def _roles(dice: random.Random) -> dict[str, Any]:
    roles = {name: {"replicas": _replicas(dice), "args": _args(dice)} for name in ("prefill", "decode")}
    # What both engines have, each may have otherwise.
    return roles_json(args=_args(dice) if dice.random() < 0.5 else {}, **roles)


def _args(dice: random.Random) -> dict[str, Any]:
    args: dict[str, Any] = {"tensor-parallel-size": dice.choice(SIZES)} if dice.random() < 0.8 else {}
    if dice.random() < 0.4:
        args["pipeline-parallel-size"] = dice.choice(STAGES)
    if dice.random() < 0.3:
        args["data-parallel-size"] = dice.choice(SIZES)
    if dice.random() < 0.2:
        args["cpu-offload-gb"] = dice.randint(0, 64)
    return args


def _replicas(dice: random.Random) -> dict[str, int]:
    least, most = sorted((dice.randint(1, MAX_REPLICAS), dice.randint(1, MAX_REPLICAS)))
    return {"min": least, "max": most}


def at_most(objects: list[Object]) -> int:
    """GPUs of all pods that KServe may make of these objects at once, worked out from the objects by themselves.

    Of an InferenceService as many as it may scale to, and none more while it rolls; of an LLMInferenceService, whose
    Deployments roll with a quarter more of each role, both roles, each as far as its autoscaler may go.
    """
    total = 0
    most: dict[str, int] = {}
    for obj in objects:
        if obj["kind"] in SCALING:
            limit: int = obj["spec"].get("maxReplicaCount") or obj["spec"]["maxReplicas"]
            most[obj["spec"]["scaleTargetRef"]["name"]] = limit
    for obj in objects:
        spec: Any = obj.get("spec")
        if obj["kind"] == "InferenceService":
            predictor = spec["predictor"]
            surge = predictor["deploymentStrategy"]["rollingUpdate"]["maxSurge"]
            assert isinstance(surge, int)
            total += (predictor["maxReplicas"] + surge) * _limits([predictor["model"]])
        elif obj["kind"] == "LLMInferenceService":
            for role, child in ((spec, "-kserve"), (spec["prefill"], "-kserve-prefill")):
                assert "worker" not in role
                replicas = role["replicas"] if "replicas" in role else most.pop(obj["metadata"]["name"] + child)
                total += (replicas + ceil(replicas / 4)) * _limits(role["template"]["containers"])
        elif obj["kind"] not in NO_PODS:
            assert f'"{GPU_PREFIX}' not in json.dumps(obj).replace(f'"key": "{GPU_PREFIX}', ""), obj["kind"]
    assert most == {}, "what is scaled is not fixed, and is there"
    return total


def _limits(containers: list[Any]) -> int:
    amounts = [container["resources"]["limits"] for container in containers]
    return sum(int(count) for each in amounts for name, count in each.items() if name.startswith(GPU_PREFIX))


def test_gpus_at_most_scale_are_never_more_than_is_reserved(monkeypatch: pytest.MonkeyPatch):
    """Reserved is what the spec asks for, and the surge that is counted on its objects (services.rendering)."""
    # A third of the time, for what holds no GPU.
    monkeypatch.setattr(common, "object_hash", lambda obj: "")
    dice = random.Random(SEED)
    over = []
    for number in range(WISHES):
        wish = random_wish(dice)
        objects = build(wish)
        reserved = wish.spec.gpus + max(0, gpus_of(objects) - wish.spec.gpus)
        if at_most(objects) > reserved:
            over.append((number, wish.spec.to_json(), at_most(objects), reserved))
    assert over == [], f"seed {SEED}"


PLACES = {
    "standard": r"/\d+/(spec/predictor/model/(storageUri|args/\d+)|metadata/annotations/.*)$|/4/metadata.*",
    # Flags go into one variable of each role; the address of the model is said once.
    "disaggregated": r"/\d+/(spec/(prefill/)?(template/containers/0/env/\d+/value|model/uri)|metadata/annotations/.*)$",
}


@pytest.mark.parametrize("strategy", PLACES)
@given(uri=HOSTILE, flavor=HOSTILE, word=HOSTILE, other=HOSTILE)
@settings(max_examples=100, deadline=None)
def test_text_of_a_person_changes_declared_places_alone(strategy: str, uri: str, flavor: str, word: str, other: str):
    changed = document(strategy, uri=f"hf://a/b{uri}", flavor=f"a{flavor}", word=word, other=other)
    spec, _ = parse_spec(changed)
    if spec is None:
        return
    plain, _ = parse_spec(document(strategy, uri="hf://a/b", flavor="h100", word="half", other="auto"))
    assert plain is not None
    before, after = (dict(leaves(build(wish_of(each)))) for each in (plain, spec))
    assert set(after) == set(before)
    touched = {path for path in after if after[path] != before[path]}
    assert all(re.fullmatch(PLACES[strategy], path) for path in touched), touched


def document(strategy: str, *, uri: str, flavor: str, word: str, other: str) -> dict[str, Any]:
    args = {"dtype": word, "seed": 1}
    changes = {"source": {"uri": uri}, "flavor": flavor, "args": args}
    if strategy == "standard":
        return spec_json(**changes)
    return roles_json(**changes, prefill={"args": {"load-format": other}}, decode={"args": {"load-format": other}})
