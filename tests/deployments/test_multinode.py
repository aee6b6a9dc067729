"""Replicas that span nodes: what a wish says of them, what is built, what they hold, and when they run."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.findings import Severity
from deployments.kube.diagnose import diagnose
from deployments.kube.observe import observe, workload_view
from deployments.kube.reasons import Code
from deployments.labels import LABEL_DEPLOYMENT, LABEL_REVISION
from deployments.manifests import Object, TeamWish, Wish, build, build_service_account, gpus_of, stopped
from deployments.manifests.presets import build_presets
from deployments.preflight import ClusterFacts, Facts, check
from deployments.preflight.cluster import surge_of
from deployments.preflight.objects import check_objects
from deployments.preflight.trials import with_changes
from deployments.spec import DeploymentSpec, Strategy
from deployments.spec_errors import parse_spec
from deployments.state import Outcome, OutcomeKind, StateName, Want, Wanted, state_of
from sandbox.lite.admission.podsecurity import violations
from sandbox.lite.controllers import llm_workloads as workloads
from sandbox.lite.controllers.llm_admission import validate
from sandbox.lite.controllers.llm_config import Settings, combine
from sandbox.lite.controllers.llm_storage import Source
from tests.deployments.preflighting import SERVED, codes, said, the, with_cluster
from tests.deployments.wishes import FLAVORS, H100, facts_of, roles_json, spec_json, spec_of, wish_of

GOLDEN = Path(__file__).parent.parent / "data" / "manifests" / "multinode.json"
TWO_BY_FOUR = {"max-model-len": 8192, "tensor-parallel-size": 4, "pipeline-parallel-size": 2}
TEAM = TeamWish("install", "search", "search-ab3de", presets=True)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def wide(nodes: int = 2, args: dict[str, Any] | None = None, **changes: Any) -> DeploymentSpec:
    return spec_of(nodes=nodes, args=args or TWO_BY_FOUR, **changes)


def service_of(wish: Wish | None = None) -> Object:
    (found,) = (obj for obj in build(wish or wish_of(wide())) if obj["kind"] == "LLMInferenceService")
    return found


def group_of(wish: Wish | None = None) -> Object:
    """The LeaderWorkerSet that KServe makes of it."""
    service = json.loads(json.dumps(service_of(wish)))
    service["metadata"]["uid"] = "1"
    here = {(obj["metadata"]["namespace"], obj["metadata"]["name"]): obj for obj in build_presets(TEAM)}
    combined = combine(service, lambda ns, name: here.get((ns, name)), lambda ns, name: None, Settings()).spec
    return workloads.leader_worker_set(service, combined, Source(uri=service["spec"]["model"]["uri"]))


# The wish


def test_gpus_of_a_replica_are_shared_out_over_its_nodes():
    spec = wide(replicas={"min": 1, "max": 3})
    assert (spec.gpus_per_replica, spec.gpus_per_pod, spec.gpus) == (8, 4, 24)


def test_one_node_is_not_written_so_that_digests_stay():
    assert "nodes" not in spec_of().to_json()
    assert spec_of(nodes=1) == spec_of()
    assert DeploymentSpec.from_json(wide().to_json()) == wide()


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (spec_json(nodes=3, args=TWO_BY_FOUR), "/spec/nodes"),
        (roles_json(nodes=2), "/spec/nodes"),
        (spec_json(nodes=2, strategy="oci-volume", source={"uri": "oci://a/b"}, args=TWO_BY_FOUR), "/spec/nodes"),
        (spec_json(nodes=17, args=TWO_BY_FOUR), "/spec/nodes"),
        (spec_json(nodes=0), "/spec/nodes"),
    ],
)
def test_what_cannot_span_nodes_is_said_at_its_field(data: dict[str, Any], pointer: str):
    spec, errors = parse_spec(data)
    assert spec is None
    assert [error.pointer for error in errors] == [pointer]


# What is built


def test_what_guards_and_leads_in_comes_before_the_service():
    kinds = [obj["kind"] for obj in build(wish_of(wide()))]
    assert kinds == ["NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "HTTPRoute", "LLMInferenceService"]


def test_the_engine_of_each_node_knows_its_number_and_its_leader():
    spec = service_of()["spec"]
    (leader,), (worker,) = spec["template"]["containers"], spec["worker"]["containers"]
    among = {"--nnodes=2", "--node-rank=$(LWS_WORKER_INDEX)", "--master-addr=$(LWS_LEADER_ADDRESS)"}
    assert among | {"--tensor-parallel-size=4", "--pipeline-parallel-size=2"} <= set(leader["args"])
    assert set(worker["args"]) - set(leader["args"]) == {"--headless"}
    assert leader["resources"]["limits"]["nvidia.com/gpu"] == worker["resources"]["limits"]["nvidia.com/gpu"] == "4"
    # Only the leader answers, so only it is asked.
    assert "readinessProbe" in leader
    assert not {"ports", "readinessProbe", "startupProbe"} & set(worker)


def test_a_model_that_is_one_file_is_named_to_every_engine():
    plain = wish_of(wide())
    one = dataclasses.replace(plain.resolution, file="model.gguf", tokenizer="tokenizer", endpoint="http://store.data")
    spec = service_of(dataclasses.replace(plain, resolution=one))["spec"]
    for part in ("template", "worker"):
        (engine,) = spec[part]["containers"]
        assert engine["command"] == ["vllm", "serve", "/mnt/models/model.gguf"]
        assert engine["args"][0] == "--tokenizer=/mnt/models"
    policy = build(dataclasses.replace(plain, resolution=one))[0]["spec"]
    assert len(policy["egress"]) == len(build(plain)[0]["spec"]["egress"]) + 1


def test_kserve_makes_a_group_of_as_many_pods_as_nodes():
    group = group_of()
    assert (group["spec"]["replicas"], group["spec"]["leaderWorkerTemplate"]["size"]) == (1, 2)
    assert validate(service_of(), None) == []
    for part in ("leaderTemplate", "workerTemplate"):
        template = group["spec"]["leaderWorkerTemplate"][part]
        assert violations(template["spec"], "restricted") == ""
        assert template["metadata"]["labels"][LABEL_DEPLOYMENT] == "42"
        assert template["metadata"]["annotations"][LABEL_REVISION] == "3"
        assert "/dev/shm" in {mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]}
    assert workload_view(group).revision == 3


def test_the_way_in_leads_to_leaders_alone():
    objects = {obj["kind"]: obj for obj in build(wish_of(wide()))}
    (backend,) = objects["HTTPRoute"]["spec"]["rules"][0]["backendRefs"]
    assert (backend["kind"], backend["name"], backend["port"]) == ("Service", "chat-kserve-workload-svc", 8000)
    assert service_of()["spec"]["router"]["route"] == {"http": {"refs": [{"name": "chat-slipway"}]}}
    template = group_of()["spec"]["leaderWorkerTemplate"]
    chosen = workloads.workload_selector(service_of())
    assert chosen.items() <= template["leaderTemplate"]["metadata"]["labels"].items()
    assert not chosen.items() <= template["workerTemplate"]["metadata"]["labels"].items()


def test_objects_are_as_kserve_starts_them_and_those_that_were_signed():
    wish = wish_of(wide())
    made = [build_service_account(wish, ("hf-x1",)), *build(wish), *stopped(build(wish))]
    assert check_objects(build(wish)) == []
    assert json.dumps(made, indent=1) + "\n" == GOLDEN.read_text()


@pytest.mark.parametrize(("scaler", "kind"), [("keda", "ScaledObject"), ("hpa", "HorizontalPodAutoscaler")])
def test_replicas_between_two_numbers_are_an_autoscalers(scaler: str, kind: str):
    wish = wish_of(wide(replicas={"min": 1, "max": 3}, scaling={"concurrency": 20, "percent": 50}))
    wish = dataclasses.replace(wish, resolution=dataclasses.replace(wish.resolution, autoscaler=scaler))
    *_, service, made = build(wish)
    assert (service["kind"], "replicas" in service["spec"]) == ("LLMInferenceService", False)
    assert (made["kind"], made["metadata"]["name"]) == (kind, "chat-slipway")
    assert made["spec"]["scaleTargetRef"] == {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "name": group_of()["metadata"]["name"],
    }
    assert gpus_of(build(wish)) == wish.spec.gpus == 24
    # A fixed number is KServe's to keep.
    assert service_of(wish_of(wide(replicas={"min": 2, "max": 2})))["spec"]["replicas"] == 2


@given(
    nodes=st.integers(2, 16),
    tensor=st.integers(1, 16),
    stages=st.integers(1, 16),
    replicas=st.lists(st.integers(1, 50), min_size=2, max_size=2).map(sorted),
)
@settings(max_examples=150, deadline=None)
def test_what_is_reserved_covers_every_pod_of_every_replica(nodes: int, tensor: int, stages: int, replicas: list[int]):
    args = {"tensor-parallel-size": tensor, "pipeline-parallel-size": stages}
    spec, _ = parse_spec(spec_json(nodes=nodes, args=args, replicas={"min": replicas[0], "max": replicas[1]}))
    if spec is None:
        assert tensor * stages % nodes
        return
    objects = build(wish_of(spec))
    template = group_of(wish_of(spec))["spec"]["leaderWorkerTemplate"]
    pods = [template["leaderTemplate"], *[template["workerTemplate"]] * (template["size"] - 1)]
    held = sum(int(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) for pod in pods)
    assert held == spec.gpus_per_replica
    assert gpus_of(objects) == held * replicas[0] <= spec.gpus
    assert surge_of(spec) == 0


# What preflight says

LWS = {**SERVED, "leaderworkerset.x-k8s.io": ("v1",)}


def facts(**changes: Any) -> Facts:
    flavor = dataclasses.replace(H100, total=8, free=8, largest_free_block=4, nodes=2)
    cluster = with_cluster(groups=LWS).cluster
    return facts_of(**{"flavors": {**FLAVORS, "h100": flavor}, "cluster": cluster, **changes})


def found(spec: DeploymentSpec, known: Facts | None = None) -> Any:
    return check(spec, "chat", "search", known or facts())


def test_a_model_too_large_for_a_node_may_span_two():
    assert found(wide()) == []
    alone = the("gpus_per_node", found(spec_of(args=TWO_BY_FOUR)))
    assert alone.is_error
    assert "span 2 nodes" in alone.remedy


def test_without_leader_worker_sets_no_replica_spans_nodes():
    finding = the("strategy_parts", found(wide(), facts(cluster=with_cluster().cluster)))
    assert (finding.field, finding.value, finding.is_error) == ("nodes", 1, True)
    assert "LeaderWorkerSet" in finding.message
    assert "strategy_parts" not in codes(said(with_cluster()))


def test_each_node_must_hold_its_part():
    args = {**TWO_BY_FOUR, "pipeline-parallel-size": 4}
    finding = the("gpus_per_node", found(wide(args=args)))
    assert "needs 8 GPUs" in finding.message


@pytest.mark.parametrize(
    ("spec", "code", "field", "value"),
    [
        (wide(4, {**TWO_BY_FOUR, "pipeline-parallel-size": 4}), "nodes_missing", "nodes", 2),
        (wide(2, {"max-model-len": 8192, "pipeline-parallel-size": 2}), "one_node_would_do", "nodes", 1),
        (wide(2, {"max-model-len": 8192, "tensor-parallel-size": 8}), "layers_across_nodes", "tensor_parallel_size", 4),
    ],
)
def test_what_is_slow_or_waits_is_a_warning_with_what_is_better(
    spec: DeploymentSpec, code: str, field: str, value: int
):
    finding = the(code, found(spec))
    assert (finding.severity, finding.field, finding.value) == (Severity.WARNING, field, value)


def test_an_engine_that_spans_no_nodes_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deployments.preflight.nodes.flags_of", lambda version: {})
    finding = the("engine_one_node", found(wide()))
    assert (finding.field, finding.is_error) == ("profile", True)
    assert "engine_one_node" not in codes(found(spec_of()))


def test_the_nodes_of_a_replica_stay_as_they_are():
    finding = the("nodes_fixed", found(wide(), facts(nodes_before=4)))
    assert (finding.field, finding.value, finding.is_error) == ("nodes", 4, True)
    for before in (None, 1, 2):
        assert "nodes_fixed" not in codes(found(wide(), facts(nodes_before=before)))


def test_sources_are_those_of_llm_services():
    finding = the("source_strategy", found(wide(source={"uri": "gs://bucket/model"})))
    assert "s3://" in finding.message
    # Eight GPUs stand in no node here; two do, and then one node takes what several do not.
    assert (finding.field, finding.value, finding.remedy) == ("nodes", None, "Choose another source.")
    pair = {"max-model-len": 8192, "pipeline-parallel-size": 2}
    finding = the("source_strategy", found(wide(args=pair, source={"uri": "gs://bucket/model"})))
    assert (finding.field, finding.value) == ("nodes", 1)


def test_small_parts_of_a_replica_may_share_a_node():
    flavor = dataclasses.replace(H100, total=4, free=4, largest_free_block=4, nodes=1)
    pair = wide(args={"max-model-len": 8192, "pipeline-parallel-size": 2})
    assert "nodes_missing" not in codes(found(pair, facts(flavors={**FLAVORS, "h100": flavor})))


def test_images_are_mounted_across_nodes_in_one_way_alone():
    image = {"uri": "oci://registry/m@sha256:" + "1" * 64}
    assert the("folder_fixed", found(wide(source={**image, "folder": "/weights"}))).field == "source_folder"
    old = facts(cluster=ClusterFacts(sandbox=True, version="v1.33.0", grows=True))
    assert the("image_volumes", found(wide(source=image), old)).is_error


# When it runs


def a_pod(name: str, component: str, *, ready: bool) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/component": f"llminferenceservice-workload-{component}",
        "app.kubernetes.io/part-of": "llminferenceservice",
        "app.kubernetes.io/name": "chat",
        **({"llm-d.ai/role": "both"} if component == "leader" else {}),
    }
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    container = {"name": "main", "state": {"running": {}}, "ready": ready, "started": ready}
    meta = {"name": name, "namespace": "n", "labels": labels, "annotations": {LABEL_REVISION: "1"}}
    return {"metadata": meta, "spec": {}, "status": {**status, "containerStatuses": [container]}}


@pytest.mark.parametrize(("leader", "state"), [(False, StateName.STARTING), (True, StateName.RUNNING)])
def test_it_runs_when_its_leader_answers_whatever_workers_do(leader: bool, state: StateName):
    pods = [a_pod("chat-kserve-mn-0", "leader", ready=leader), a_pod("chat-kserve-mn-0-1", "worker", ready=True)]
    seen = observe(pods=pods)
    assert [pod.service for pod in seen.pods] == ["chat", "chat"]
    wanted, outcome = Wanted(Want.RUN, 1, 1), Outcome(OutcomeKind.APPLIED, 1)
    result = state_of(wanted, outcome, seen, None, NOW)
    assert (result.state, result.ready_replicas) == (state, int(leader))


def test_pods_that_a_group_could_not_make_are_told_from_its_events():
    sentence = (
        'create Pod chat-kserve-mn-0-1 in StatefulSet chat-kserve-mn-0 failed error: pods "chat-kserve-mn-0-1" is '
        "forbidden: exceeded quota: slipway, requested: requests.nvidia.com/gpu=4, used: requests.nvidia.com/gpu=4, "
        "limited: requests.nvidia.com/gpu=4"
    )
    about = {"kind": "StatefulSet", "name": "chat-kserve-mn-0", "namespace": "n"}
    event = {"type": "Warning", "reason": "FailedCreate", "message": sentence, "involvedObject": about, "metadata": {}}
    leader = a_pod("chat-kserve-mn-0", "leader", ready=False)
    worker = a_pod("chat-kserve-mn-0-1", "worker", ready=True)
    assert Code.QUOTA_EXCEEDED in {reason.code for reason in diagnose(observe(pods=[leader], events=[event]))}
    # It was made in the end: the event is an old one.
    assert diagnose(observe(pods=[leader, worker], events=[event]))[0].code is Code.STARTING


def test_only_standard_replicas_span_nodes():
    assert {item for item in Strategy if parse_spec(spec_json(strategy=item.value, nodes=2, args=TWO_BY_FOUR))[0]} == {
        Strategy.STANDARD
    }


def test_splitting_between_layers_changes_both_flags_at_once():
    spec = wide(2, {"max-model-len": 8192, "tensor-parallel-size": 8})
    finding = the("layers_across_nodes", found(spec))
    assert finding.also == (("/spec/engine/args/pipeline-parallel-size", 2),)
    changed = with_changes(spec, ((finding.pointer, finding.value), *finding.also))
    assert changed is not None
    assert found(changed) == []
