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
    apart = dice.random() < 0.15
    document = (
        _roles(dice) if apart else spec_json(args=_args(dice), replicas=_replicas(dice), surge=dice.choice((0, 1)))
    )
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

    Of an InferenceService as many as it may scale to, and the surge while it rolls; of an LLMInferenceService, whose
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


HASHED = r"/\d+/metadata/(annotations/slipway\.dev/spec-hash|name)|"
FLAG = r"/\d+/spec/predictor/model/args/\d+|"
# Where text of a person may stand, by what the wish is of. Names are of hashes of what is in the object.
PLACES = {
    "standard": r"/\d+/(spec/predictor/model/(storageUri|args/\d+)|metadata/annotations/.*)$|/4/metadata.*",
    # Flags go into one variable of each role; the address of the model is said once.
    "disaggregated": r"/\d+/(spec/(prefill/)?(template/containers/0/env/\d+/value|model/uri)|metadata/annotations/.*)$",
    "across-nodes": HASHED + r"/4/spec/(model/uri|(template|worker)/containers/0/args/\d+)",
    "adapters": HASHED
    + FLAG
    + r"/4/spec/predictor/(model/(storageUri|runtime)|initContainers/0/(args/\d|volumeMounts/\d/mountPath))|"
    + r"/1/spec/containers/0/volumeMounts/1/mountPath",
    "folder": HASHED + FLAG + r"/4/spec/predictor/model/runtime|/1/spec/containers/0/volumeMounts/1/subPath",
    # One word of the init container's shell, of characters that no shell takes apart.
    "folder-by-sidecar": HASHED + FLAG + r"/4/spec/predictor/initContainers/0/command/2",
    "claim": HASHED + FLAG + r"/4/spec/predictor/model/storageUri",
    "fetched-ahead": HASHED
    + r"/2/spec/template/spec/(containers/0/args/0|volumes/0/persistentVolumeClaim/claimName)|"
    + r"/7/spec/predictor/model/(storageUri|args/\d+)",
}


@pytest.mark.parametrize("kind", PLACES)
@given(text=HOSTILE, flavor=HOSTILE, word=HOSTILE, other=HOSTILE)
@settings(max_examples=100, deadline=None)
def test_text_of_a_person_changes_declared_places_alone(kind: str, text: str, flavor: str, word: str, other: str):
    after = worded(kind, text, flavor=f"a{flavor}", word=word, other=other)
    if after is None:
        return
    before = worded(kind, "", flavor="h100", word="half", other="auto")
    assert before is not None
    old, new = (dict(leaves(build(each))) for each in (before, after))
    assert set(new) == set(old)
    touched = {path for path in new if new[path] != old[path]}
    assert all(re.fullmatch(PLACES[kind], path) for path in touched), touched


@pytest.mark.parametrize("kind", PLACES)
def test_texts_that_pass_do_reach_their_places(kind: str):
    before, after = (worded(kind, text, flavor="h100", word=text or "half", other="auto") for text in ("", "b-_.b"))
    assert before is not None
    assert after is not None
    assert "b-_.b" in json.dumps(build(after))
    assert "b-_.b" not in json.dumps(build(before))


def worded(kind: str, text: str, *, flavor: str, word: str, other: str) -> Wish | None:
    """A wish with text in all places where that kind has some; None where that is no wish."""
    changes: dict[str, Any] = {
        "flavor": flavor,
        "args": {"dtype": word, "seed": 1},
        "source": {"uri": f"hf://a/b{text}"},
    }
    resolved: dict[str, Any] = {}
    match kind:
        case "disaggregated":
            role = {"args": {"load-format": other}}
            changes = roles_json(**changes, prefill=role, decode=role)
        case "across-nodes":
            changes |= {"args": {**changes["args"], "tensor-parallel-size": 4}, "nodes": 2}
        case "adapters":
            name, address = f"a{text}", f"hf://a/adapter{text}"
            changes["adapters"] = [{"name": name, "uri": address}]
            resolved = {"adapters": ({"name": name, "uri": f"{address}:{'d' * 40}"},), "lora_rank": 16}
        case "folder" | "folder-by-sidecar":
            image = "oci://registry.example.com/a/b@sha256:" + "1" * 64
            changes |= {"strategy": "oci-volume", "source": {"uri": image, "folder": f"/a{text}"}}
            resolved = {"storage_uri": image, "image_mode": "volume" if kind == "folder" else "modelcar"}
        case "claim":
            address = f"pvc://weights/a{text}"
            changes["source"] = {"uri": address}
            resolved = {"commit": "", "storage_uri": address}
        case "fetched-ahead":
            changes["source"]["cache"] = "claim"
            resolved = {"claim_gib": 20, "claim_class": "files", "claim_mode": "ReadWriteMany"}
    spec, _ = parse_spec(changes if kind == "disaggregated" else spec_json(**changes))
    if spec is None:
        return None
    wish = wish_of(spec)
    return dataclasses.replace(wish, resolution=dataclasses.replace(wish.resolution, **resolved))
