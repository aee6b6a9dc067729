"""Rules about formats, splits, speculation, shares of memory, and what the cluster can do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments import spec as spec_module
from deployments.engine.profiles import EngineProfile
from deployments.findings import Finding, Severity
from deployments.manifests import build, gpus_of
from deployments.preflight import RULES, ClusterFacts, Facts, FlavorFacts, QuotaFacts, check
from deployments.preflight.cluster import surge_of
from deployments.preflight.objects import check_objects
from deployments.spec import DeploymentSpec, Strategy
from tests.deployments.wishes import FLAVORS, H100, LLAMA, facts_of, roles_json, spec_of, wish_of

EIGHT_K = {"max-model-len": 8192}
SERVED = {
    "serving.kserve.io": ("v1beta1", "v1alpha1", "v1alpha2"),
    "gateway.networking.k8s.io": ("v1",),
    "monitoring.coreos.com": ("v1",),
    "inference.networking.k8s.io": ("v1",),
    "keda.sh": ("v1alpha1",),
}


def said(
    facts: Facts | None = None, name: str = "chat", args: dict[str, Any] | None = None, **spec: Any
) -> list[Finding]:
    return check(spec_of(args=EIGHT_K | (args or {}), **spec), name, "search", facts or facts_of())


def the(code: str, found: list[Finding]) -> Finding:
    matching = [finding for finding in found if finding.code == code]
    assert len(matching) == 1, [finding.code for finding in found]
    return matching[0]


def codes(found: list[Finding]) -> set[str]:
    return {finding.code for finding in found}


def with_model(**changes: Any) -> Facts:
    return facts_of(model=dataclasses.replace(LLAMA, **changes))


def with_cluster(**changes: Any) -> Facts:
    return facts_of(cluster=ClusterFacts(sandbox=True, **{"groups": SERVED, **changes}))


@pytest.fixture
def every_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_module, "AVAILABLE_STRATEGIES", frozenset(Strategy))


def test_there_are_about_forty_rules_each_with_a_sentence_of_what_it_holds():
    assert len(RULES) >= 40
    assert all((rule.__doc__ or "").strip().endswith(".") for rule in RULES)


# Names


def test_a_name_that_would_set_variables_of_vllm_is_refused():
    finding = the("name_environment", said(name="vllm-chat"))
    assert (finding.field, finding.value, finding.is_error) == ("name", "chat", True)
    assert "name_environment" not in codes(said(name="my-vllm"))


# Sources and strategies


@pytest.mark.parametrize(
    ("strategy", "uri", "instead"),
    [
        ("disaggregated", "gs://bucket/m", "standard"),
        ("disaggregated", "https://host/m", "standard"),
        ("oci-volume", "s3://bucket/m", "standard"),
        ("standard", "oci://registry/m", "disaggregated"),
    ],
)
def test_a_source_that_a_strategy_cannot_load_is_refused(every_strategy: None, strategy: str, uri: str, instead: str):
    roles = {"prefill": {}, "decode": {}} if strategy == "disaggregated" else {}
    finding = the("source_strategy", said(strategy=strategy, source={"uri": uri}, **roles))
    assert (finding.field, finding.value, finding.is_error) == ("strategy", instead, True)


@pytest.mark.parametrize(
    ("strategy", "uri"),
    [("disaggregated", "hf://a/b"), ("disaggregated", "s3://bucket/m"), ("oci-volume", "oci://registry/m")],
)
def test_a_source_that_a_strategy_loads_is_taken(every_strategy: None, strategy: str, uri: str):
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


def test_a_missing_part_is_named_by_what_brings_it():
    groups = {group: served for group, served in SERVED.items() if group != "gateway.networking.k8s.io"}
    finding = the("cluster_missing", said(with_cluster(groups=groups)))
    assert finding.severity is Severity.WARNING
    assert "Gateway API" in finding.message


def test_kserve_of_another_version_is_refused():
    finding = the("cluster_version", said(with_cluster(groups={**SERVED, "serving.kserve.io": ("v1alpha1",)})))
    assert finding.is_error
    assert "v1beta1" in finding.message


def test_disaggregation_needs_the_inference_extension(every_strategy: None):
    groups = {group: served for group, served in SERVED.items() if not group.startswith("inference.")}
    spec = DeploymentSpec.from_json(roles_json(args=EIGHT_K))
    finding = the("strategy_parts", check(spec, "chat", "search", with_cluster(groups=groups)))
    assert (finding.field, finding.value, finding.is_error) == ("strategy", "standard", True)
    assert "strategy_parts" not in codes(check(spec, "chat", "search", with_cluster()))


def test_an_older_kubernetes_mounts_no_images(every_strategy: None):
    wish = {"strategy": "oci-volume", "source": {"uri": "oci://registry/m"}}
    finding = the("image_volumes", said(with_cluster(version="v1.34.1"), **wish))
    assert finding.severity is Severity.WARNING
    assert "1.35" in finding.message
    for version in ("v1.35.0", "v1.36.3", ""):
        assert "image_volumes" not in codes(said(with_cluster(version=version), **wish))


def test_without_keda_replicas_follow_the_processors():
    groups = {group: served for group, served in SERVED.items() if group != "keda.sh"}
    wish = {"replicas": {"min": 1, "max": 2}}
    assert the("scaling_by_load", said(with_cluster(groups=groups), **wish)).severity is Severity.INFO
    assert "scaling_by_load" not in codes(said(with_cluster(), **wish))


def test_more_than_the_cluster_has_is_a_warning_with_what_it_has():
    finding = the("more_than_there_is", said(replicas={"min": 1, "max": 6}))
    assert (finding.field, finding.value, finding.severity) == ("replicas_max", 4, Severity.WARNING)


def test_a_rollout_that_needs_gpus_on_top_says_so(every_strategy: None):
    spec = DeploymentSpec.from_json(roles_json(args=EIGHT_K))
    free = {slug: dataclasses.replace(item, free=3) for slug, item in FLAVORS.items()}
    finding = the("no_room_to_roll", check(spec, "chat", "search", facts_of(flavors=free)))
    assert finding.severity is Severity.WARNING
    assert "Recreate" in finding.remedy
    assert "2 more GPUs" in finding.message
    assert "no_room_to_roll" not in codes(check(spec, "chat", "search", facts_of()))
    assert "no_room_to_roll" not in codes(said(facts_of(flavors=free)))


@pytest.mark.parametrize("most", [1, 3, 4, 5])
def test_what_a_rollout_takes_on_top_is_what_the_objects_take(every_strategy: None, most: int):
    for least in (1, most):
        role = {"replicas": {"min": least, "max": most}, "args": {"tensor-parallel-size": 2}}
        spec = DeploymentSpec.from_json(roles_json(args=EIGHT_K, prefill=role, decode={}))
        assert surge_of(spec) == max(0, gpus_of(build(wish_of(spec))) - spec.gpus)
    plain = spec_of(args=EIGHT_K, replicas={"min": 1, "max": most})
    assert surge_of(plain) == gpus_of(build(wish_of(plain))) - plain.gpus == 0


def test_quota_must_hold_what_a_rollout_takes_on_top(every_strategy: None):
    spec = DeploymentSpec.from_json(roles_json(args=EIGHT_K))
    enough, short = (facts_of(quotas={"h100": QuotaFacts(limit=limit)}) for limit in (4, 3))
    assert "quota_exceeded" not in codes(check(spec, "chat", "search", enough))
    finding = the("quota_exceeded", check(spec, "chat", "search", short))
    assert "4 GPUs" in finding.message
    assert "2 of them while a new revision rolls out" in finding.message


def test_objects_of_roles_are_what_kserve_starts(every_strategy: None):
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


# The engine and its flags


def test_gpus_of_another_vendor_are_refused():
    other = FlavorFacts("mi300x", "AMD-MI300X", 196_608, 9.4, 8, resource_name="amd.com/gpu")
    facts = facts_of(flavors={"mi300x": other}, quotas={"mi300x": QuotaFacts(8)})
    assert the("gpu_vendor", said(facts, flavor="mi300x")).field == "flavor"


@pytest.mark.parametrize(
    ("args", "code", "field"),
    [
        ({"spec-method": "ngram"}, "speculation_tokens", "spec_method"),
        ({"spec-tokens": 3}, "speculation_method", "spec_tokens"),
    ],
)
def test_speculation_takes_a_method_and_a_number(args: dict[str, Any], code: str, field: str):
    finding = the(code, said(args=args))
    assert (finding.field, finding.is_error) == (field, True)
    both = said(args={"spec-method": "ngram", "spec-tokens": 3})
    assert codes(both) == {"flag_guarded"}


@pytest.mark.parametrize(("size", "near"), [(24, 16), (100, 128), (1, 16)])
def test_blocks_of_odd_sizes_are_a_warning(size: int, near: int):
    finding = the("block_size", said(args={"block-size": size}))
    assert (finding.value, finding.severity) == (near, Severity.WARNING)
    assert "block_size" not in codes(said(args={"block-size": 32}))


def test_a_parser_alone_lets_no_model_call_tools():
    assert the("tool_parser_alone", said(args={"tool-call-parser": "hermes"})).severity is Severity.INFO


def test_defaults_follow_the_version_of_the_engine():
    old = EngineProfile("old", "0.19.0", "vllm/vllm-openai@sha256:" + "0" * 64)
    facts = facts_of(profiles={"old": old})
    found = check(spec_of(engine={"profile": "old", "args": {"max-num-queued-reqs": 4}}), "chat", "search", facts)
    assert "flag_newer" in codes(found)


# Splits


def test_sharing_the_context_takes_a_divisor():
    args = {"tensor-parallel-size": 4, "decode-context-parallel-size": 3}
    finding = the("context_parallel", said(args=args))
    assert (finding.field, finding.is_error) == ("decode_context_parallel_size", True)
    assert "context_parallel" not in codes(said(args={**args, "decode-context-parallel-size": 2}))


def test_quantised_blocks_are_not_cut():
    # As Qwen3-235B-FP8: 1,536 split by 8 leaves 192, which is no multiple of 128.
    facts = facts_of(
        model=dataclasses.replace(
            LLAMA, quantization="fp8", quant_block=128, experts=128, expert_intermediate=1536, heads=64, kv_heads=4
        )
    )
    found = said(facts, flavor="l4", args={"tensor-parallel-size": 8})
    finding = the("quantised_blocks", found)
    assert (finding.field, finding.value, finding.is_error) == ("tensor_parallel_size", 4, True)
    assert "enable-expert-parallel" in finding.remedy
    whole = said(facts, flavor="l4", args={"tensor-parallel-size": 8, "enable-expert-parallel": True})
    assert "quantised_blocks" not in codes(whole)
    assert "quantised_blocks" not in codes(said(facts, flavor="l4", args={"tensor-parallel-size": 4}))


def test_experts_on_one_gpu_have_nowhere_to_go():
    facts = with_model(experts=8, expert_intermediate=1024)
    assert the("experts_alone", said(facts, args={"enable-expert-parallel": True})).severity is Severity.INFO


# Formats


@pytest.mark.parametrize("architecture", ["Gemma2ForCausalLM", "Gemma3ForConditionalGeneration", "Glm4ForCausalLM"])
def test_families_that_overflow_in_half_precision_are_refused_in_it(architecture: str):
    facts = with_model(architecture=architecture)
    finding = the("dtype_half", said(facts, args={"dtype": "half"}))
    assert (finding.field, finding.value, finding.is_error) == ("dtype", "bfloat16", True)
    assert "dtype_half" not in codes(said(facts))
    assert "dtype_half" in codes(said(with_model(architecture=architecture, dtype="float16")))


def test_a_quantization_that_is_not_the_models_is_refused():
    facts = with_model(quantization="fp8")
    finding = the("quantization_mismatch", said(facts, args={"quantization": "awq"}))
    assert (finding.field, finding.is_error) == ("quantization", True)
    assert "quantization_mismatch" not in codes(said(facts, args={"quantization": "fp8"}))
    kin = with_model(quantization="awq", dtype="float16")
    assert "quantization_mismatch" not in codes(said(kin, args={"quantization": "awq_marlin"}))
    assert "quantization_mismatch" not in codes(said(args={"quantization": "fp8"}))


def test_a_latent_cache_is_for_latent_attention():
    finding = the("cache_latent", said(args={"kv-cache-dtype": "fp8_ds_mla"}))
    assert (finding.value, finding.is_error) == ("fp8", True)
    assert "cache_latent" not in codes(said(with_model(kv_lora_rank=512), args={"kv-cache-dtype": "fp8_ds_mla"}))


def test_an_fp4_cache_on_an_older_gpu_is_a_warning():
    assert the("cache_fp4", said(args={"kv-cache-dtype": "nvfp4"})).severity is Severity.WARNING


# The model


def test_without_windows_the_context_is_the_window():
    facts = with_model(sliding_window=4096, sliding_layers=16)
    finding = the("context_over_window", said(facts, args={"disable-sliding-window": True}))
    assert (finding.field, finding.value, finding.is_error) == ("max_model_len", 4096, True)
    assert "context_over_window" not in codes(said(facts))


def test_an_encoder_writes_no_text():
    facts = with_model(architecture="BertModel")
    assert the("no_text", said(facts)).severity is Severity.WARNING
    assert "no_text" not in codes(said(facts, args={"runner": "pooling"}))
    assert "no_text" not in codes(said(with_model(architecture="LlamaForCausalLM")))


# Memory


@pytest.mark.parametrize(
    ("share", "code", "value"), [(0.97, "utilization_high", 0.95), (0.95, "", None), (0.5, "", None)]
)
def test_a_share_of_nearly_everything_is_a_warning(share: float, code: str, value: float | None):
    found = [item for item in said(args={"gpu-memory-utilization": share}) if item.code.startswith("utilization")]
    assert [(item.code, item.value) for item in found] == ([(code, value)] if code else [])


def test_on_a_gpu_shared_by_time_a_large_share_is_a_warning():
    shared = dataclasses.replace(H100, product="NVIDIA-H100-80GB-HBM3-SHARED")
    facts = facts_of(flavors={"h100": shared})
    finding = the("utilization_shared", said(facts, args={"gpu-memory-utilization": 0.9}))
    assert (finding.value, finding.severity) == (0.4, Severity.WARNING)
    assert "utilization_shared" not in codes(said(facts, args={"gpu-memory-utilization": 0.4}))


def test_bytes_of_cache_take_the_place_of_the_share():
    args = {"gpu-memory-utilization": 0.9, "kv-cache-memory-bytes": 2**33}
    assert the("utilization_unused", said(args=args)).severity is Severity.INFO


def test_a_model_of_unknown_shape_is_asked_about_by_number():
    finding = the("not_checked", said(with_model(layers=None, head_dim=None)))
    assert finding.severity is Severity.INFO
    assert "its layers, the width of a head" in finding.message
    assert not [item for item in said(with_model(layers=None)) if item.is_error]


def test_flags_of_both_roles_are_checked_for_each(every_strategy: None):
    wish = roles_json(args=EIGHT_K, prefill={"args": {"tensor-parallel-size": 3}})
    finding = the("heads_not_divisible", check(DeploymentSpec.from_json(wish), "chat", "search", facts_of()))
    assert finding.pointer == "/spec/prefill/args/tensor-parallel-size"
