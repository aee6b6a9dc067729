"""Rules about strategies and the cluster: what a source, a role, a rollout and the built objects need."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.findings import Finding, Severity
from deployments.manifests import build, gpus_of
from deployments.preflight import ClusterFacts, QuotaFacts, check
from deployments.preflight.cluster import surge_of
from deployments.preflight.objects import check_objects
from deployments.spec import DeploymentSpec
from tests.deployments.preflighting import EIGHT_K, SERVED, codes, said, the, with_cluster
from tests.deployments.wishes import FLAVORS, facts_of, roles_json, spec_of, wish_of

# Sources and strategies


@pytest.mark.parametrize(
    ("strategy", "uri", "instead"),
    [
        ("disaggregated", "gs://bucket/m", "standard"),
        ("disaggregated", "https://host.example/m.tar.gz", "standard"),
        ("oci-volume", "s3://bucket/m", "standard"),
        ("standard", "oci://registry/m", "oci-volume"),
    ],
)
def test_a_source_that_a_strategy_cannot_load_is_refused(strategy: str, uri: str, instead: str):
    roles = {"prefill": {}, "decode": {}} if strategy == "disaggregated" else {}
    finding = the("source_strategy", said(strategy=strategy, source={"uri": uri}, **roles))
    assert (finding.field, finding.value, finding.is_error) == ("strategy", instead, True)


@pytest.mark.parametrize(
    ("strategy", "uri"),
    [("disaggregated", "hf://a/b"), ("disaggregated", "s3://bucket/m"), ("oci-volume", "oci://registry/m")],
)
def test_a_source_that_a_strategy_loads_is_taken(strategy: str, uri: str):
    roles = {"prefill": {}, "decode": {}} if strategy == "disaggregated" else {}
    assert "source_strategy" not in codes(said(strategy=strategy, source={"uri": uri}, **roles))


def test_a_volume_that_is_not_there_is_refused():
    facts = with_cluster(claims=frozenset({"weights"}))
    finding = the("claim_unknown", said(facts, source={"uri": "pvc://other/llama"}))
    assert (finding.field, finding.is_error) == ("source_uri", True)
    assert "weights" in finding.remedy
    assert "claim_unknown" not in codes(said(facts, source={"uri": "pvc://weights/llama"}))
    assert "claim_unknown" not in codes(said(source={"uri": "pvc://other/llama"}))


# What the cluster can do


def test_a_cluster_with_everything_has_nothing_to_complain_about():
    assert said(with_cluster(version="v1.36.3")) == []


@pytest.mark.parametrize(
    ("group", "part"),
    [
        ("serving.kserve.io", "KServe"),
        ("gateway.networking.k8s.io", "Gateway API"),
        ("monitoring.coreos.com", "Prometheus operator"),
    ],
)
@pytest.mark.parametrize("strategy", ["standard", "disaggregated", "oci-volume"])
def test_without_what_every_deployment_is_made_with_nothing_is_admitted(group: str, part: str, strategy: str):
    wish: dict[str, Any] = {"strategy": strategy}
    if strategy == "disaggregated":
        wish |= {"prefill": {}, "decode": {}}
    elif strategy == "oci-volume":
        wish["source"] = {"uri": "oci://registry.example.com/models/a@sha256:" + "1" * 64}
    groups = {name: served for name, served in SERVED.items() if name != group}
    finding = the("cluster_missing", said(with_cluster(groups=groups), **wish))
    assert (finding.pointer, finding.is_error) == ("", True)
    assert part in finding.message
    assert "cluster_missing" not in codes(said(with_cluster(groups=SERVED), **wish))
    # Nobody refuses for what is not known, as while the cluster is away.
    unseen = said(with_cluster(groups={}, seen=False), **wish)
    assert "cluster_missing" not in codes(unseen)
    assert the("cluster_unseen", unseen).severity is Severity.WARNING


def test_the_runtime_of_a_deployment_takes_a_version_of_its_own():
    finding = the("cluster_version", said(with_cluster(groups={**SERVED, "serving.kserve.io": ("v1beta1",)})))
    assert finding.is_error
    assert "v1alpha1" in finding.message


def test_kserve_of_another_version_is_refused():
    finding = the("cluster_version", said(with_cluster(groups={**SERVED, "serving.kserve.io": ("v1alpha1",)})))
    assert finding.is_error
    assert "v1beta1" in finding.message


def test_disaggregation_needs_the_inference_extension():
    groups = {group: served for group, served in SERVED.items() if not group.startswith("inference.")}
    spec = DeploymentSpec.from_json(roles_json(args=EIGHT_K))
    finding = the("strategy_parts", check(spec, "chat", "search", with_cluster(groups=groups)))
    assert (finding.field, finding.value, finding.is_error) == ("strategy", "standard", True)
    assert "strategy_parts" not in codes(check(spec, "chat", "search", with_cluster()))


def test_without_keda_replicas_follow_the_processors():
    groups = {group: served for group, served in SERVED.items() if group != "keda.sh"}
    wish = {"replicas": {"min": 1, "max": 2}}
    assert the("scaling_by_load", said(with_cluster(groups=groups), **wish)).severity is Severity.INFO
    assert "scaling_by_load" not in codes(said(with_cluster(), **wish))


def test_more_than_the_cluster_has_is_a_warning_with_what_it_has():
    finding = the("more_than_there_is", said(replicas={"min": 1, "max": 6}))
    assert (finding.field, finding.value, finding.severity) == ("replicas_max", 4, Severity.WARNING)


def test_what_could_never_run_whole_is_refused_with_what_could():
    finding = the("never_whole", said(replicas={"min": 5, "max": 6}))
    assert (finding.field, finding.value, finding.is_error) == ("replicas_min", 4, True)
    grows = facts_of(cluster=ClusterFacts(sandbox=True, grows=True))
    assert the("more_than_there_is", said(grows, replicas={"min": 5, "max": 6})).severity is Severity.WARNING
    assert "never_whole" not in codes(said(replicas={"min": 4, "max": 4}))


def test_roles_that_could_never_run_whole_are_pointed_to_gpus_that_hold_them():
    def of_roles(size: int, count: int, context: int = 8192) -> Finding:
        role = {"replicas": {"min": count, "max": count}, "args": {"tensor-parallel-size": size}}
        spec = DeploymentSpec.from_json(roles_json(args={"max-model-len": context}, prefill=role, decode=role))
        return the("never_whole", check(spec, "chat", "search", facts_of()))

    # Of T4s there are too few as well, and one L4 does not hold the longer context.
    assert (of_roles(1, 4).field, of_roles(1, 4).value) == ("flavor", "l4")
    assert (of_roles(1, 4, 65_536).field, of_roles(1, 4, 65_536).value) == ("flavor", "a100")
    assert (of_roles(4, 4).field, of_roles(4, 4).value) == ("strategy", "standard")


def test_a_rollout_that_needs_gpus_on_top_says_so():
    spec = DeploymentSpec.from_json(roles_json(args=EIGHT_K))
    free = {slug: dataclasses.replace(item, free=3) for slug, item in FLAVORS.items()}
    finding = the("no_room_to_roll", check(spec, "chat", "search", facts_of(flavors=free)))
    assert finding.severity is Severity.WARNING
    assert "Recreate" in finding.remedy
    assert "2 more GPUs" in finding.message
    assert "no_room_to_roll" not in codes(check(spec, "chat", "search", facts_of()))
    assert "no_room_to_roll" not in codes(said(facts_of(flavors=free)))


@pytest.mark.parametrize("most", [1, 3, 4, 5])
def test_what_a_rollout_takes_on_top_is_what_the_objects_take(most: int):
    for least in (1, most):
        role = {"replicas": {"min": least, "max": most}, "args": {"tensor-parallel-size": 2}}
        spec = DeploymentSpec.from_json(roles_json(args=EIGHT_K, prefill=role, decode={}))
        wish = wish_of(spec)
        scaled = dataclasses.replace(wish, resolution=dataclasses.replace(wish.resolution, autoscaler="keda"))
        assert surge_of(spec) == gpus_of(build(scaled)) - spec.gpus
    plain = spec_of(args=EIGHT_K, replicas={"min": 1, "max": most})
    assert surge_of(plain) == gpus_of(build(wish_of(plain))) - plain.gpus == 0


def test_quota_must_hold_what_a_rollout_takes_on_top():
    spec = DeploymentSpec.from_json(roles_json(args=EIGHT_K))
    enough, short = (facts_of(quotas={"h100": QuotaFacts(limit=limit)}) for limit in (4, 3))
    assert "quota_exceeded" not in codes(check(spec, "chat", "search", enough))
    finding = the("quota_exceeded", check(spec, "chat", "search", short))
    assert "4 GPUs" in finding.message
    assert "2 of them while a new revision rolls out" in finding.message


def test_objects_of_roles_are_what_kserve_starts():
    spec = DeploymentSpec.from_json(roles_json(args={**EIGHT_K, "tensor-parallel-size": 2}))
    assert check_objects(build(wish_of(spec))) == []
    assert check_objects(build(wish_of(spec_of(args={**EIGHT_K, "tensor-parallel-size": 2})))) == []


def test_several_gpus_without_shared_memory_would_be_found_out():
    objects = build(wish_of(spec_of(args={**EIGHT_K, "tensor-parallel-size": 2})))
    runtime = next(obj for obj in objects if obj["kind"] == "ServingRuntime")
    runtime["spec"]["volumes"] = [volume for volume in runtime["spec"]["volumes"] if volume["name"] != "shm"]
    assert codes(check_objects(objects)) == {"object_shared_memory"}


def test_an_image_by_tag_would_be_found_out():
    objects = build(wish_of())
    runtime = next(obj for obj in objects if obj["kind"] == "ServingRuntime")
    runtime["spec"]["containers"][0]["image"] = "vllm/vllm-openai:latest"
    assert codes(check_objects(objects)) == {"object_image"}


def test_contexts_of_two_roles_that_differ_are_a_warning():
    wish = roles_json(args=EIGHT_K, decode={"args": {"max-model-len": 4096}})
    found = check(DeploymentSpec.from_json(wish), "chat", "search", facts_of())
    finding = the("context_differs", found)
    assert (finding.pointer, finding.severity) == ("/spec/decode/args/max-model-len", Severity.WARNING)


def test_two_roles_for_little_traffic_are_told_what_they_cost():
    few, many = (
        check(DeploymentSpec.from_json(roles_json(args=EIGHT_K, decode=decode)), "chat", "search", facts_of())
        for decode in ({}, {"replicas": {"min": 4, "max": 4}})
    )
    assert the("roles_for_load", few).severity is Severity.INFO
    assert "roles_for_load" not in codes(many)
