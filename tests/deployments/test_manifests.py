"""What the builders write: valid everywhere, closed, counted, and the same for the same wish."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.labels import ANNOTATION_HASH, ANNOTATION_STOP, LABEL_DEPLOYMENT, LABEL_REVISION
from deployments.manifests import (
    Object,
    Platform,
    TeamWish,
    Wish,
    build,
    build_cluster_objects,
    build_service_account,
    build_team,
    gpus_of,
    key_of,
    stopped,
)
from deployments.manifests.cluster import PINNED_HF
from deployments.manifests.common import Resolution
from deployments.spec import DeploymentSpec
from deployments.spec_errors import parse_spec
from sandbox import definitions
from tests.deployments.wishes import roles_json, spec_json, spec_of, wish_of

CORE = "1.36"
TEAM = TeamWish("install", "search", "search-ab3de", {"nvidia.com/gpu": 4})
SPLIT = spec_of(args={"max-model-len": 8192, "tensor-parallel-size": 4}, replicas={"min": 1, "max": 2})

ROLES = DeploymentSpec.from_json(roles_json(prefill={"args": {"tensor-parallel-size": 2}}))

WIDE = spec_of(args={"pipeline-parallel-size": 2, "tensor-parallel-size": 4}, nodes=2)


def of_image(mode: str) -> Wish:
    """Weights in a folder of an image that KServe does not look into."""
    uri = "oci://registry.example.com/m@sha256:" + "c" * 64
    wish = wish_of(spec_of(strategy="oci-volume", source={"uri": uri, "folder": "/weights"}))
    resolution = dataclasses.replace(wish.resolution, storage_uri=uri, image_mode=mode)
    return dataclasses.replace(wish, resolution=resolution)


def everything() -> list[Object]:
    wishes = [wish_of(), wish_of(SPLIT), wish_of(ROLES), wish_of(WIDE), of_image("volume"), of_image("modelcar")]
    objects = [*build_cluster_objects("install"), *build_team(dataclasses.replace(TEAM, presets=True))]
    for wish in wishes:
        objects += [build_service_account(wish, ("hf-x1",)), *build(wish)]
    return objects


@cache
def crd_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """Schemas of custom resources by apiVersion and kind, made strict: unknown fields are errors."""
    found = {}
    for path in definitions.of_lite():
        crd = json.loads(path.read_text())
        group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
        for version in crd["spec"]["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{group}/{version['name']}", kind] = schema
    return found


def strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        made["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made


@pytest.mark.parametrize("obj", everything(), ids=lambda obj: "-".join(key_of(obj)[1:]))
def test_every_object_is_valid_for_its_schema(obj: Object):
    version, kind, _, _ = key_of(obj)
    schema = crd_schemas().get((version, kind))
    if schema is None:
        kubernetes_validate.validate(obj, CORE, strict=True)
    else:
        jsonschema.Draft202012Validator(schema).validate(obj)


def test_the_schema_check_itself_refuses_an_unknown_field():
    service = one(build(wish_of()), "InferenceService")
    service["spec"]["predictor"]["storageInitializer"] = {}
    schema = crd_schemas()["serving.kserve.io/v1beta1", "InferenceService"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(service)


def our_container() -> Any:
    """The storage container that fetches with keys."""
    return next(
        copy.deepcopy(obj) for obj in build_cluster_objects("install") if obj["metadata"]["name"] == "slipway-hf"
    )


def one(objects: list[Object], kind: str) -> Any:
    (found,) = [copy.deepcopy(obj) for obj in objects if obj["kind"] == kind]
    return found


def test_the_kinds_of_a_deployment_and_their_order():
    kinds = [obj["kind"] for obj in build(wish_of())]
    assert kinds == [
        "NetworkPolicy",
        "ServingRuntime",
        "PodDisruptionBudget",
        "PodMonitor",
        "InferenceService",
        "HTTPRoute",
    ]


def test_the_service_is_standard_cluster_local_and_without_autoscaler():
    metadata = one(build(wish_of()), "InferenceService")["metadata"]
    assert metadata["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert metadata["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    assert metadata["labels"]["networking.kserve.io/visibility"] == "cluster-local"
    assert metadata["labels"][LABEL_DEPLOYMENT] == "42"
    assert metadata["labels"][LABEL_REVISION] == "3"


def test_the_model_comes_from_the_resolved_commit_through_our_own_container():
    predictor = one(build(wish_of()), "InferenceService")["spec"]["predictor"]
    uri = predictor["model"]["storageUri"]
    assert uri == "hf://meta-llama/Llama-3.1-8B-Instruct:" + "a" * 40
    storage = our_container()
    assert predictor["storageContainerName"] == storage["metadata"]["name"]
    assert re.search(storage["spec"]["supportedUriFormats"][0]["regex"], uri)


@pytest.mark.parametrize("uri", ["hf://a/b", "hf://a/b:main", "hf://a/b:" + "a" * 39, "s3://a/b:" + "a" * 40])
def test_our_storage_container_takes_nothing_but_pinned_commits(uri: str):
    assert not re.search(PINNED_HF, uri)


def pod_of(objects: list[Object]) -> dict[str, Any]:
    """The pod KServe makes of our runtime, service and storage container, as far as pod security looks."""
    predictor = one(objects, "InferenceService")["spec"]["predictor"]
    runtime = one(objects, "ServingRuntime")["spec"]
    storage = our_container()["spec"]["container"]
    return {
        **{key: value for key, value in predictor.items() if key != "model"},
        "containers": runtime["containers"],
        "initContainers": [storage],
        "volumes": runtime["volumes"],
    }


@pytest.mark.parametrize("spec", [spec_of(), SPLIT])
def test_the_pod_passes_the_restricted_level(spec: Any):
    pod = pod_of(build(wish_of(spec)))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["fsGroup"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["containers"], *pod["initContainers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context["privileged"]
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod["volumes"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_no_pod_gets_a_token_or_the_addresses_of_its_neighbours():
    pod = pod_of(build(wish_of()))
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    account = build_service_account(wish_of(), ("hf-x1",))
    assert account["automountServiceAccountToken"] is False
    assert account["secrets"] == [{"name": "hf-x1"}]
    assert pod["serviceAccountName"] == account["metadata"]["name"]


def test_the_engine_may_write_where_its_caches_are():
    (container,) = one(build(wish_of()), "ServingRuntime")["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    mounts = {item["mountPath"] for item in container["volumeMounts"]}
    for name in ("HOME", "HF_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR"):
        assert any(environment[name].startswith(mount) for mount in mounts)
    assert environment["USER"]
    assert "PYTHONPATH" not in environment


def test_every_image_is_named_by_digest():
    for obj in everything():
        for image in re.findall(r'"image": "([^"]+)"', json.dumps(obj)):
            assert re.search(r"@sha256:[0-9a-f]{64}$", image), image


def test_gpus_are_limits_and_requests_alike_on_the_chosen_kind_of_node():
    predictor = one(build(wish_of(SPLIT)), "InferenceService")["spec"]["predictor"]
    resources = predictor["model"]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "4"
    assert predictor["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert predictor["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_shared_memory_is_there_where_gpus_talk_and_counts_in_the_memory():
    def memory(spec: Any) -> int:
        model = one(build(wish_of(spec)), "InferenceService")["spec"]["predictor"]["model"]
        return int(model["resources"]["limits"]["memory"].removesuffix("Gi"))

    alone, split = build(wish_of()), build(wish_of(SPLIT))
    assert "/dev/shm" not in json.dumps(alone)
    volumes = one(split, "ServingRuntime")["spec"]["volumes"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "6Gi"}} in volumes
    assert memory(SPLIT) >= memory(spec_of()) + 6


@pytest.mark.parametrize(
    ("args", "memory", "shared"),
    [
        ({}, 20, 0),
        ({"cpu-offload-gb": 64}, 84, 0),
        ({"cpu-offload-gb": 8, "tensor-parallel-size": 4}, 70, 6),
        # What is kept of the cache lies in shared memory, of all GPUs of an engine together.
        ({"kv-offloading-size": 500}, 524, 503),
        ({"kv-offloading-size": 100.5, "tensor-parallel-size": 4}, 140, 107),
        ({"kv-offloading-size": 100, "tensor-parallel-size": 2, "data-parallel-size": 2}, 238, 206),
        # Processed images are kept twice for each engine.
        ({"mm-processor-cache-gb": 16}, 52, 0),
        ({"mm-processor-cache-gb": 16, "data-parallel-size": 2}, 92, 4),
    ],
)
def test_main_memory_holds_what_flags_keep_there(args: dict[str, Any], memory: int, shared: int):
    objects = build(wish_of(spec_of(args=args)))
    resources = one(objects, "InferenceService")["spec"]["predictor"]["model"]["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"] == f"{memory}Gi"
    volumes = one(objects, "ServingRuntime")["spec"].get("volumes", [])
    sizes = [volume["emptyDir"]["sizeLimit"] for volume in volumes if volume["name"] == "shm"]
    assert sizes == ([f"{shared}Gi"] if shared else [])


def test_of_a_cache_in_main_memory_each_node_of_a_replica_holds_its_part():
    args = {"tensor-parallel-size": 4, "pipeline-parallel-size": 2, "kv-offloading-size": 100}
    service = one(build(wish_of(spec_of(args=args, nodes=2))), "LLMInferenceService")["spec"]
    for pod in (service["template"], service["worker"]):
        (engine,) = [each for each in pod["containers"] if each["name"] == "main"]
        assert engine["resources"]["limits"]["memory"] == "88Gi"
        memory = [each["emptyDir"] for each in pod["volumes"] if each.get("emptyDir", {}).get("medium") == "Memory"]
        assert memory == [{"medium": "Memory", "sizeLimit": "56Gi"}]


def test_arguments_are_single_words_after_those_of_the_runtime():
    objects = build(wish_of(spec_of(args={"max-model-len": 8192, "enable-prefix-caching": False})))
    assert one(objects, "InferenceService")["spec"]["predictor"]["model"]["args"] == [
        "--no-enable-prefix-caching",
        "--max-model-len=8192",
    ]
    (container,) = one(objects, "ServingRuntime")["spec"]["containers"]
    assert container["args"] == ["--port=8080", "--served-model-name={{.Name}}", "--model=/mnt/models"]


def test_scraping_is_by_deployment_label_on_a_declared_port():
    objects = build(wish_of())
    monitor = one(objects, "PodMonitor")["spec"]
    assert monitor["podTargetLabels"] == [LABEL_DEPLOYMENT, LABEL_REVISION]
    assert monitor["selector"] == {"matchLabels": {LABEL_DEPLOYMENT: "42"}}
    ports = one(objects, "InferenceService")["spec"]["predictor"]["model"]["ports"]
    assert [port["name"] for port in ports] == [monitor["podMetricsEndpoints"][0]["port"]]


def test_only_the_api_is_open_at_the_gateway():
    route = one(build(wish_of()), "HTTPRoute")
    assert route["metadata"]["name"] == "chat-slipway"
    (rule,) = route["spec"]["rules"]
    (match,) = rule["matches"]
    assert match["path"] == {"type": "PathPrefix", "value": "/search-ab3de/chat/v1"}
    removal, rewriting = rule["filters"]
    assert removal["requestHeaderModifier"] == {"remove": ["Authorization"]}, "the model's own code could read the key"
    rewrite = rewriting["urlRewrite"]["path"]
    assert rewrite == {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}
    assert rule["backendRefs"][0]["name"] == "chat-predictor"


def test_pods_are_reached_by_gateway_and_scrapers_only_and_reach_no_cluster_range():
    policy = one(build(wish_of()), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    names = [
        source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for source in policy["ingress"][0]["from"]
    ]
    assert names == ["kserve", "monitoring"]
    closed = policy["egress"][0]["to"][0]["ipBlock"]["except"]
    assert {"169.254.0.0/16", "10.0.0.0/8"} <= set(closed)


def test_a_rollout_takes_no_gpu_that_nobody_reserved():
    strategy = one(build(wish_of()), "InferenceService")["spec"]["predictor"]["deploymentStrategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_gpus_are_counted_on_the_objects_at_most_scale():
    assert gpus_of(build(wish_of())) == 1
    assert gpus_of(build(wish_of(SPLIT))) == SPLIT.gpus == 8


@pytest.mark.parametrize(("surge", "gpus"), [(None, 12), ("25%", 12), (1, 12), (2, 16), (0, 8), ("50%", 12)])
def test_the_surge_of_a_rollout_is_counted_rounded_up(surge: Any, gpus: int):
    objects = copy.deepcopy(build(wish_of(SPLIT)))
    predictor = next(obj for obj in objects if obj["kind"] == "InferenceService")["spec"]["predictor"]
    if surge is None:
        del predictor["deploymentStrategy"]
    else:
        predictor["deploymentStrategy"]["rollingUpdate"]["maxSurge"] = surge
    assert gpus_of(objects) == gpus


def test_a_kind_that_cannot_be_counted_is_not_taken_for_none():
    with pytest.raises(ValueError, match="StatefulSet"):
        gpus_of([{"kind": "StatefulSet"}])


@given(size=st.sampled_from([1, 2, 4, 8]), stages=st.integers(1, 3), least=st.integers(1, 50), most=st.integers(1, 50))
@settings(max_examples=40)
def test_counted_gpus_are_what_a_spec_reserves(size: int, stages: int, least: int, most: int):
    least, most = sorted((least, most))
    args = {"tensor-parallel-size": size, "pipeline-parallel-size": stages}
    spec = spec_of(args=args, replicas={"min": least, "max": most})
    assert gpus_of(build(wish_of(spec))) == spec.gpus == size * stages * most


def test_stopping_changes_one_annotation_alone():
    before, after = build(wish_of()), stopped(build(wish_of()))
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    ((old, new),) = changed
    assert new["metadata"]["annotations"].pop(ANNOTATION_STOP) == "true"
    assert old == new


def test_the_same_wish_gives_the_same_objects_and_hashes():
    assert build(wish_of()) == build(wish_of())
    first, second = build(wish_of()), build(wish_of(SPLIT))
    hashes = [{obj["metadata"]["annotations"][ANNOTATION_HASH] for obj in objs} for objs in (first, second)]
    assert all(len(found) == len(first) for found in hashes)
    assert hashes[0] != hashes[1]


def test_a_runtime_belongs_to_one_deployment_and_one_content():
    def name(**changes: Any) -> str:
        return str(one(build(wish_of(**changes)), "ServingRuntime")["metadata"]["name"])

    assert name() == name(revision=4)
    assert name() != name(deployment_id="43")
    other = Resolution("a" * 40, "vllm/vllm-openai@sha256:" + "2" * 64, "NVIDIA-L4")
    assert name() != name(resolution=other)
    assert name().startswith("slipway-vllm-0-32-0-")


def test_a_team_gets_a_closed_namespace_with_its_quota():
    objects = build_team(TEAM)
    assert objects[0]["kind"] == "Namespace"
    assert objects[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert objects[0]["metadata"]["labels"]["slipway.dev/team"] == "search"
    assert one(objects, "ResourceQuota")["spec"]["hard"] == {"requests.nvidia.com/gpu": "4"}
    assert "default" not in one(objects, "LimitRange")["spec"]["limits"][0]
    deny = [obj for obj in objects if obj["metadata"]["name"] == "slipway-deny-all"]
    assert deny[0]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_a_team_without_quota_may_hold_no_gpu():
    (hard,) = [
        obj["spec"]["hard"]
        for obj in build_team(TeamWish("install", "search", "search-ab3de"))
        if obj["kind"] == "ResourceQuota"
    ]
    assert hard == {"requests.nvidia.com/gpu": "0"}


def test_the_platform_says_where_gateway_and_accounts_are():
    platform = Platform(gateway_name="edge", gateway_namespace="net", worker_account="w")
    route = one(build(wish_of(platform=platform)), "HTTPRoute")
    assert route["spec"]["parentRefs"][0]["name"] == "edge"
    bindings = [obj for obj in build_team(TeamWish("i", "t", "t-1", {}, platform)) if obj["kind"] == "RoleBinding"]
    assert bindings[0]["subjects"] == [{"kind": "ServiceAccount", "name": "w", "namespace": "slipway-system"}]
    assert [subject["name"] for subject in bindings[1]["subjects"]] == ["live", "watcher"]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}/{index}")
    else:
        yield path, value


HOSTILE = st.text("ab", min_size=1, max_size=9) | st.text("ab/-_.:{}$()`\n\"'\\ #&<é", max_size=20)


@given(uri=HOSTILE, flavor=HOSTILE, word=HOSTILE)
@settings(max_examples=150)
def test_no_text_of_a_person_leaves_its_place(uri: str, flavor: str, word: str):
    document = spec_json(source={"uri": f"hf://a/b{uri}"}, flavor=f"a{flavor}", args={"dtype": word, "seed": 1})
    spec, _ = parse_spec(document)
    if spec is None:
        return
    base = dict(leaves(build(wish_of(spec_of(args={"dtype": "half", "seed": 1})))))
    built = dict(leaves(build(wish_of(spec))))
    assert set(built) == set(base)
    changed = {path for path in built if built[path] != base[path]}
    allowed = re.compile(r"/\d+/(spec/predictor/model/(storageUri|args/\d+)|metadata/annotations/.*)$|/4/metadata.*")
    assert all(allowed.fullmatch(path) for path in changed), changed
    for path, value in built.items():
        if "served-model-name" not in str(value):
            assert "{{" not in str(value), path
        assert "$(" not in str(value), path
