"""Disaggregated deployments as objects: what KServe makes of them, what reaches vLLM, and what they may hold."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engine.profiles import DATA
from deployments.labels import ANNOTATION_STOP, LABEL_DEPLOYMENT, LABEL_REVISION, LABEL_ROLE
from deployments.manifests import Object, TeamWish, Wish, build, build_team, gpus_of, stopped
from deployments.manifests.presets import PREFIX, build_presets
from deployments.manifests.scaling import ROLE_LABEL
from deployments.spec import DeploymentSpec, Role
from sandbox import lite
from sandbox.lite.controllers import llm_workloads as workloads
from sandbox.lite.controllers.llm_config import Settings, combine
from sandbox.lite.controllers.llm_storage import Source
from tests.deployments.wishes import roles_json, spec_of, wish_of

EXAMPLES = int(os.environ.get("SLIPWAY_SPEC_EXAMPLES", "200"))  # 20,000 where there is time for it
TEAM = TeamWish("install", "search", "search-ab3de", presets=True)
SHIPPED = {
    item["metadata"]["name"]: item
    for item in json.loads((Path(lite.__file__).parent / "data" / "presets.json").read_text())
}
PRESET = roles_json(
    args={"max-num-batched-tokens": 32768, "max-num-seqs": 256, "dtype": "bfloat16"},
    prefill={"replicas": {"min": 2, "max": 8}, "args": {"tensor-parallel-size": 2}},
    decode={"replicas": {"min": 4, "max": 20}},
)


def disaggregated(**changes: Any) -> Wish:
    return wish_of(DeploymentSpec.from_json({**PRESET, **changes}))


def newer() -> Wish:
    return dataclasses.replace(disaggregated(), revision=4)


def one(objects: list[Object], kind: str) -> Object:
    (found,) = [obj for obj in objects if obj["kind"] == kind]
    return found


def children(objects: list[Object]) -> dict[str, Object]:
    """The Deployments that KServe makes, by role; its own presets lie in `kserve`, the team's in its namespace."""
    service = copy.deepcopy(one(objects, "LLMInferenceService"))
    service["metadata"]["uid"] = "0"
    here = {(obj["metadata"]["namespace"], obj["metadata"]["name"]): obj for obj in [*objects, *build_presets(TEAM)]}

    def find(namespace: str, name: str) -> Object | None:
        return here.get((namespace, name)) or (SHIPPED.get(name) if namespace == "kserve" else None)

    combined = combine(service, find, lambda namespace, name: None, Settings()).spec
    source = Source(uri=service["spec"]["model"]["uri"])
    return {
        "decode": workloads.deployment(service, combined, source),
        "prefill": workloads.prefill_deployment(service, combined, source),
    }


def test_what_guards_and_leads_in_comes_before_the_service():
    kinds = [obj["kind"] for obj in build(disaggregated())]
    assert kinds == [
        "NetworkPolicy",
        "NetworkPolicy",
        "LLMInferenceServiceConfig",
        "PodDisruptionBudget",
        "PodMonitor",
        "HTTPRoute",
        "LLMInferenceService",
    ]


def scaled(autoscaler: str, **changes: Any) -> Wish:
    """The preset on a cluster that scales by this."""
    made = disaggregated(**changes)
    return dataclasses.replace(made, resolution=dataclasses.replace(made.resolution, autoscaler=autoscaler))


def scalers(wish: Wish) -> dict[str, Object]:
    """The autoscalers of a deployment, by their names."""
    kinds = {"ScaledObject", "HorizontalPodAutoscaler"}
    return {obj["metadata"]["name"]: obj for obj in build(wish) if obj["kind"] in kinds}


@pytest.mark.parametrize(
    ("autoscaler", "kind", "fields"),
    [
        ("keda", "ScaledObject", ("minReplicaCount", "maxReplicaCount")),
        ("hpa", "HorizontalPodAutoscaler", ("minReplicas", "maxReplicas")),
    ],
)
def test_each_role_has_an_autoscaler_of_its_own(autoscaler: str, kind: str, fields: tuple[str, str]):
    wish = scaled(autoscaler)
    made = scalers(wish)
    assert {obj["kind"] for obj in made.values()} == {kind}
    bounds = {name: tuple(obj["spec"][field] for field in fields) for name, obj in made.items()}
    assert bounds == {"chat-slipway-prefill": (2, 8), "chat-slipway-decode": (4, 20)}
    targets = {name: obj["spec"]["scaleTargetRef"] for name, obj in made.items()}
    workloads_by_role = {role: child["metadata"]["name"] for role, child in children(build(wish)).items()}
    for role, workload in workloads_by_role.items():
        assert targets[f"chat-slipway-{role}"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload}
    # What somebody else sets is not said: KServe would set it back.
    service = one(build(wish), "LLMInferenceService")["spec"]
    assert "replicas" not in service
    assert "replicas" not in service["prefill"]
    kinds = [obj["kind"] for obj in build(wish)]
    assert kinds[-3:] == ["LLMInferenceService", kind, kind]


def test_a_role_of_a_fixed_number_is_not_scaled():
    wish = scaled("keda", prefill={"replicas": {"min": 3, "max": 3}})
    assert set(scalers(wish)) == {"chat-slipway-decode"}
    service = one(build(wish), "LLMInferenceService")["spec"]
    assert (service.get("replicas"), service["prefill"]["replicas"]) == (None, 3)


def test_keda_asks_for_the_pods_of_one_role_alone():
    asked = scalers(scaled("keda", scaling={"concurrency": 20, "percent": 50}))
    for role in ("prefill", "decode"):
        requests, cache = (trigger["metadata"] for trigger in asked[f"chat-slipway-{role}"]["spec"]["triggers"])
        pods = f'{{namespace="search-ab3de", slipway_dev_deployment="42", llm_d_ai_role="{role}"}}'
        assert requests["query"] == f"sum(vllm:num_requests_waiting{pods}) + sum(vllm:num_requests_running{pods})"
        assert cache["query"] == f"100 * sum(avg by (pod) (vllm:kv_cache_usage_perc{pods}))"
        assert (requests["threshold"], cache["threshold"]) == ("10", "50")
    # The label by which the roles' series differ is one that the PodMonitor takes over from pods.
    assert LABEL_ROLE in one(build(scaled("keda")), "PodMonitor")["spec"]["podTargetLabels"]
    assert re.sub(r"[^a-z0-9]", "_", LABEL_ROLE) == ROLE_LABEL


def test_without_keda_the_engines_processors_count_and_not_the_sidecars():
    [metric] = scalers(scaled("hpa", scaling={"percent": 60}))["chat-slipway-decode"]["spec"]["metrics"]
    target = {"type": "Utilization", "averageUtilization": 60}
    assert metric == {
        "type": "ContainerResource",
        "containerResource": {"name": "cpu", "container": "main", "target": target},
    }


def test_autoscalers_go_while_a_deployment_is_stopped():
    wish = scaled("keda")
    kinds = [obj["kind"] for obj in stopped(build(wish))]
    assert kinds == [obj["kind"] for obj in build(wish) if obj["kind"] != "ScaledObject"]


def test_gpus_are_counted_for_the_most_whoever_scales():
    assert {gpus_of(build(scaled(name))) for name in ("keda", "hpa")} == {8 * 2 + 20 + 2 * 2 + 5}


def test_top_level_is_decode_and_prefill_stands_beside_it():
    spec = one(build(disaggregated()), "LLMInferenceService")["spec"]
    assert (spec["replicas"], spec["parallelism"]) == (4, {"tensor": 1})
    assert (spec["prefill"]["replicas"], spec["prefill"]["parallelism"]) == (2, {"tensor": 2})


def test_the_only_way_in_is_slipways_own_route():
    objects = build(disaggregated())
    router = one(objects, "LLMInferenceService")["spec"]["router"]
    assert router["route"] == {"http": {"refs": [{"name": "chat-slipway"}]}}
    rule = one(objects, "HTTPRoute")["spec"]["rules"][0]
    assert rule["matches"][0]["path"]["value"] == "/search-ab3de/chat/v1"
    assert rule["backendRefs"][0]["kind"] == "InferencePool"
    assert rule["backendRefs"][0]["name"] == "chat-inference-pool"


@pytest.mark.parametrize("role", ["decode", "prefill"])
def test_pods_of_both_roles_are_admitted_by_the_level_restricted(role: str):
    pod = children(build(disaggregated()))[role]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["containers"], *pod["initContainers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, container["name"]
        assert context["capabilities"]["drop"] == ["ALL"], container["name"]
        assert "@sha256:" in container["image"], container["name"]


@pytest.mark.parametrize("role", ["decode", "prefill"])
def test_pods_carry_deployment_revision_and_role(role: str):
    meta = children(build(disaggregated()))[role]["spec"]["template"]["metadata"]
    assert (meta["labels"][LABEL_DEPLOYMENT], meta["labels"][LABEL_ROLE]) == ("42", role)
    assert meta["annotations"][LABEL_REVISION] == "3"


@pytest.mark.parametrize("role", ["decode", "prefill"])
def test_selectors_are_the_same_for_every_revision(role: str):
    """KServe writes the labels of pods into the selector as well, and the API server refuses another one."""
    before, after = (children(build(wish))[role]["spec"]["selector"] for wish in (disaggregated(), newer()))
    assert before == after
    assert LABEL_DEPLOYMENT in before["matchLabels"]


def test_nothing_of_the_clusters_own_presets_gets_into_the_pods(monkeypatch: pytest.MonkeyPatch):
    before = children(build(disaggregated()))
    text = json.dumps(SHIPPED).replace("llm-d-cuda:v0.8.0", "other:latest").replace("/bin/sleep", "/bin/other")
    changed = json.loads(text)
    monkeypatch.setattr("tests.deployments.test_disaggregated.SHIPPED", changed)
    assert children(build(disaggregated())) == before


def test_the_empty_presets_have_the_names_that_kserve_looks_for():
    names = {obj["metadata"]["name"] for obj in build_team(TEAM) if obj["kind"] == "LLMInferenceServiceConfig"}
    assert names == {
        PREFIX + name for name in ("decode-template", "prefill-template", "scheduler", "worker-pipeline-parallel")
    }
    assert all(obj["spec"] == {} for obj in build_presets(TEAM))
    assert not [obj for obj in build_team(TeamWish("install", "search", "ns")) if obj["kind"].endswith("Config")]


def test_the_copy_is_what_kserve_ships():
    stored = json.loads((DATA / "llm-presets.json").read_text())["presets"]
    assert stored == {name: SHIPPED[PREFIX + name]["spec"] for name in stored}


@pytest.mark.parametrize(("role", "connector"), [("decode", "kv_consumer"), ("prefill", "kv_producer")])
def test_flags_reach_vllm_through_the_presets_own_script_as_they_are(role: str, connector: str, tmp_path: Path):
    """Bash runs the script; `vllm` is a program that prints its arguments."""
    printer = tmp_path / "vllm"
    printer.write_text('#!/bin/bash\nif [ "$1" = --version ]; then echo 0.32.0; else printf "%s\\n" "$@"; fi\n')
    printer.chmod(0o755)
    [main] = [
        item
        for item in children(build(disaggregated()))[role]["spec"]["template"]["spec"]["containers"]
        if item["name"] == "main"
    ]
    variables = {item["name"]: item.get("value", "") for item in main["env"]}
    told = subprocess.run(
        [*main["command"], *main.get("args", [])],
        env={**variables, "PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    words = told.stdout.splitlines()
    assert "--max-num-batched-tokens=32768" in words
    assert "--dtype=bfloat16" in words
    transfer = {"kv_connector": "NixlConnector", "kv_role": connector}
    assert [json.loads(word.partition("=")[2]) for word in words if word.startswith("--kv-transfer")] == [transfer]
    size = words[words.index("--tensor-parallel-size") + 1]
    assert size == {"decode": "1", "prefill": "2"}[role]


@pytest.mark.parametrize("role", ["decode", "prefill"])
def test_engines_name_the_address_where_others_fetch_their_cache(role: str):
    pod = children(build(disaggregated()))[role]["spec"]["template"]["spec"]
    env = {item["name"]: item for item in pod["containers"][0]["env"]}
    assert env["VLLM_NIXL_SIDE_CHANNEL_HOST"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}


@pytest.mark.parametrize("role", ["decode", "prefill"])
@pytest.mark.parametrize(("version", "layout"), [("0.32.0", "DS"), ("0.20.0", "DS"), ("0.19.1", None)])
def test_engines_lay_states_out_as_they_are_handed_over(role: str, version: str, layout: str | None):
    wish = disaggregated()
    wish = dataclasses.replace(wish, resolution=dataclasses.replace(wish.resolution, engine_version=version))
    pod = children(build(wish))[role]["spec"]["template"]["spec"]
    env = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert env.get("VLLM_SSM_CONV_STATE_LAYOUT") == layout


def test_roles_that_hand_no_cache_over_are_not_built():
    wish = disaggregated()
    apart = {**wish.spec.to_json(), "decode": {"args": {"block-size": 32}}}
    with pytest.raises(ValueError, match="differ in block-size"):
        build(dataclasses.replace(wish, spec=DeploymentSpec.from_json(apart)))


def test_stopping_marks_the_service_alone():
    before, after = build(disaggregated()), stopped(build(disaggregated()))
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [obj["kind"] for obj in changed] == ["LLMInferenceService"]
    assert changed[0]["metadata"]["annotations"][ANNOTATION_STOP] == "true"


# What a deployment may hold


def templates(value: Any, replicas: int = 1) -> Iterator[tuple[int, int]]:
    """GPUs of each pod template in an object, with the replicas that stand beside it."""
    if isinstance(value, Mapping):
        own = value.get("replicas", value.get("maxReplicas"))
        count = own if isinstance(own, int) else replicas
        for container in value.get("containers", []) or []:
            limits = (container.get("resources") or {}).get("limits") or {}
            yield count, sum(int(amount) for name, amount in limits.items() if name.startswith("nvidia.com/"))
        if "model" in value and "resources" in value.get("model", {}):
            limits = value["model"]["resources"]["limits"]
            yield count, sum(int(amount) for name, amount in limits.items() if name.startswith("nvidia.com/"))
        for name, inner in value.items():
            if name != "containers":
                yield from templates(inner, count)
    elif isinstance(value, list):
        for inner in value:
            yield from templates(inner, replicas)


def held_at_most(objects: list[Object]) -> int:
    """GPUs at most scale while a rollout is under way, counted without the builders' own knowledge."""
    total = 0
    for obj in objects:
        surges = obj["kind"] == "LLMInferenceService"
        for replicas, gpus in templates(obj.get("spec", {})):
            total += gpus * (replicas + (math.ceil(replicas / 4) if surges else 0))
    return total


counts = st.tuples(st.integers(1, 50), st.integers(1, 50)).map(sorted)
splits = st.fixed_dictionaries(
    {},
    optional={
        "tensor-parallel-size": st.sampled_from([1, 2, 4, 8]),
        "pipeline-parallel-size": st.integers(1, 4),
        "max-num-seqs": st.integers(1, 512),
    },
)
roles = st.tuples(counts, splits).map(
    lambda pair: {"replicas": {"min": pair[0][0], "max": pair[0][1]}, "args": pair[1]}
)


@given(args=splits, prefill=roles, decode=roles)
@settings(max_examples=EXAMPLES, deadline=None)
@pytest.mark.timeout(60 + EXAMPLES // 10)
def test_what_is_reserved_covers_both_roles_at_their_most_and_the_surge(
    args: dict[str, Any], prefill: dict[str, Any], decode: dict[str, Any]
):
    spec = DeploymentSpec.from_json(roles_json(args=args, prefill=prefill, decode=decode))
    objects = build(wish_of(spec))
    reserved = spec.gpus + max(0, gpus_of(objects) - spec.gpus)
    assert held_at_most(objects) <= reserved
    parts = spec.by_role()
    assert spec.gpus == sum(part.gpus_per_replica * part.replicas.max for part in parts.values())
    assert set(parts) == {Role.PREFILL, Role.DECODE}


@given(args=splits, replicas=counts)
@settings(max_examples=EXAMPLES, deadline=None)
@pytest.mark.timeout(60 + EXAMPLES // 10)
def test_what_is_reserved_covers_standard_replicas(args: dict[str, Any], replicas: list[int]):
    spec = spec_of(args=args, replicas={"min": replicas[0], "max": replicas[1]})
    objects = build(wish_of(spec))
    assert held_at_most(objects) <= gpus_of(objects) == spec.gpus


def a_workload(**spec: Any) -> list[Object]:
    return [{"kind": "Deployment", "metadata": {"name": "own"}, "spec": {"template": {"spec": POD}, **spec}}]


POD = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "4"}}}]}


@pytest.mark.parametrize(
    ("objects", "gpus"),
    [
        (a_workload(), 4),
        (a_workload(replicas=4), 10),
        (a_workload(replicas=5), 14),
        (a_workload(replicas=4, strategy={"type": "Recreate"}), 8),
        (a_workload(replicas=4, strategy={"rollingUpdate": {"maxSurge": 0}}), 8),
        (
            [
                *a_workload(replicas=1, strategy={"type": "Recreate"}),
                {"kind": "ScaledObject", "spec": {"scaleTargetRef": {"name": "own"}, "maxReplicaCount": 6}},
            ],
            12,
        ),
        (
            [
                {
                    "kind": "LeaderWorkerSet",
                    "metadata": {"name": "big"},
                    "spec": {"replicas": 3, "leaderWorkerTemplate": {"size": 4, "workerTemplate": {"spec": POD}}},
                }
            ],
            24,
        ),
        (
            [
                {
                    "kind": "LLMInferenceService",
                    "metadata": {"name": "big"},
                    "spec": {
                        "replicas": 2,
                        "parallelism": {"data": 16, "dataLocal": 8},
                        "template": POD,
                        "worker": POD,
                    },
                }
            ],
            8,
        ),
    ],
)
def test_gpus_of_other_workloads(objects: list[Object], gpus: int):
    assert gpus_of(objects) == gpus
