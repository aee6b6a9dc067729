"""Rules about formats, splits, speculation, shares of memory, and what the cluster can do."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from deployments.engine.plugins import Plugin
from deployments.engine.profiles import EngineProfile, seeded_profiles
from deployments.findings import Severity
from deployments.preflight import RULES, CredentialFacts, FlavorFacts, QuotaFacts, check
from deployments.sources import SourceCheck, SourceCode
from deployments.spec import DeploymentSpec
from tests.deployments.preflighting import EIGHT_K, codes, said, the, with_model
from tests.deployments.wishes import H100, LLAMA, facts_of, roles_json, spec_of

ROOT = Path(__file__).parents[2]


def test_there_are_about_forty_rules_each_with_a_sentence_of_what_it_holds():
    assert len(RULES) >= 40
    assert all((rule.__doc__ or "").strip().endswith(".") for rule in RULES)


# Names


def test_a_name_that_would_set_variables_of_vllm_is_refused():
    finding = the("name_environment", said(name="vllm-chat"))
    assert (finding.field, finding.value, finding.is_error) == ("name", "chat", True)
    assert "name_environment" not in codes(said(name="my-vllm"))


# The engine and its flags


def test_gpus_of_another_vendor_are_refused():
    other = FlavorFacts("mi300x", "AMD-MI300X", 196_608, 9.4, 8, resource_name="amd.com/gpu")
    facts = facts_of(flavors={"mi300x": other}, quotas={"mi300x": QuotaFacts(8)})
    assert the("gpu_vendor", said(facts, flavor="mi300x")).field == "flavor"


@pytest.mark.parametrize(
    ("args", "code", "field"),
    [
        ({"spec-method": "ngram"}, "speculation_tokens", "spec_tokens"),
        ({"spec-tokens": 3}, "speculation_method", "spec_method"),
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
    finding = the("tool_parser_alone", said(args={"tool-call-parser": "hermes"}))
    assert (finding.severity, finding.field, finding.value) == (Severity.INFO, "enable_auto_tool_choice", True)


def test_defaults_follow_the_version_of_the_engine():
    old = EngineProfile("old", "0.19.0", "vllm/vllm-openai@sha256:" + "0" * 64)
    facts = facts_of(profiles={"old": old})
    found = check(spec_of(engine={"profile": "old", "args": {"max-num-queued-reqs": 4}}), "chat", "search", facts)
    assert "flag_newer" in codes(found)


# Splits


@pytest.mark.parametrize(
    ("model", "args", "refused"),
    [
        ({"architecture": "XLMRobertaModel"}, {}, True),
        ({"architecture": "XLMRobertaModel"}, {"max-model-len": 2048}, False),
        # What is asked for is done, though the engine warns of it.
        ({"architecture": "XLMRobertaModel"}, {"enable-chunked-prefill": True}, False),
        ({"architecture": "Qwen2Model"}, {}, False),
        ({"architecture": "Qwen2Model", "both_ways": True}, {}, True),
        ({"architecture": "Qwen2ForCausalLM", "both_ways": True}, {}, False),
        ({"architecture": "Qwen2ForCausalLM", "both_ways": True}, {"runner": "pooling"}, True),
        ({"architecture": "WhisperForConditionalGeneration", "encoder_decoder": True}, {}, True),
        (
            {"architecture": "WhisperForConditionalGeneration", "encoder_decoder": True},
            {"enable-chunked-prefill": True},
            True,
        ),
    ],
)
def test_a_step_holds_the_prompts_of_models_that_read_them_whole(
    model: dict[str, Any], args: dict[str, Any], refused: bool
):
    facts, few = with_model(**model), {"max-num-batched-tokens": 2048, "max-num-seqs": 64}
    found = [item for item in said(facts, args=few | args) if item.code == "batch_below_context"]
    assert [(item.field, item.value) for item in found] == ([("max_num_batched_tokens", 8192)] if refused else [])
    assert "batch_below_context" not in codes(said(facts, args={"max-num-seqs": 64} | args))


def test_sharing_the_context_takes_a_divisor():
    args = {"tensor-parallel-size": 4, "decode-context-parallel-size": 3}
    finding = the("context_parallel", said(args=args))
    assert (finding.field, finding.is_error) == ("decode_context_parallel_size", True)
    latent = with_model(kv_lora_rank=512)
    assert "context_parallel" not in codes(said(latent, args={**args, "decode-context-parallel-size": 2}))


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


def test_groups_of_quantised_weights_are_not_cut():
    # As Qwen2-72B-AWQ was: 29,568 split by 8 leaves 3,696, which is no multiple of 128.
    narrow = {"quantization": "awq", "quant_block": 128, "intermediate": 29_568, "heads": 64, "weights_bytes": 38 << 30}
    split = {"flavor": "l4", "args": {"tensor-parallel-size": 8}}
    finding = the("quantised_blocks", said(with_model(**narrow), **split))
    assert (finding.field, finding.is_error) == ("tensor_parallel_size", True)
    assert "quantised_blocks" not in codes(said(with_model(**{**narrow, "intermediate": 29_696}), **split))
    # Kernels for experts take narrower groups.
    experts = {"experts": 128, "expert_intermediate": 768}
    assert "quantised_blocks" not in codes(said(with_model(**narrow, **experts), **split))


def test_a_cache_is_not_handed_over_between_stages():
    for role in ("prefill", "decode"):
        stages = {role: {"args": {"pipeline-parallel-size": 2}}}
        spec = DeploymentSpec.model_validate(roles_json(**stages))
        finding = the("roles_in_stages", check(spec, "chat", "search", facts_of()))
        assert (finding.pointer, finding.value) == (f"/spec/{role}/args/pipeline-parallel-size", 1)
        assert finding.is_error
    assert "roles_in_stages" not in codes(said(flavor="l4", args={"pipeline-parallel-size": 2}))


def test_a_method_that_reads_stored_scales_needs_a_model_that_has_them():
    plain = with_model(architecture="LlamaForCausalLM")
    finding = the("quantization_absent", said(plain, args={"quantization": "awq"}))
    assert (finding.field, finding.is_error) == ("quantization", True)
    assert "quantization_absent" not in codes(said(plain, args={"quantization": "fp8"}))
    # Nobody knows how the weights of a model are stored whose configuration could not be read.
    assert "quantization_absent" not in codes(said(with_model(architecture=""), args={"quantization": "awq"}))


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
    # Stored in it and left to itself the engine takes bfloat16.
    assert "dtype_half" not in codes(said(with_model(architecture=architecture, dtype="float16")))


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


def test_flags_of_both_roles_are_checked_for_each():
    wish = roles_json(args=EIGHT_K, prefill={"args": {"tensor-parallel-size": 3}})
    finding = the("heads_not_divisible", check(DeploymentSpec.from_json(wish), "chat", "search", facts_of()))
    assert finding.pointer == "/spec/prefill/args/tensor-parallel-size"


# Credentials


@pytest.mark.parametrize(
    ("known", "uri", "code"),
    [
        (CredentialFacts(refused=True), "hf://a/b", "credential_refused"),
        (CredentialFacts(kind=""), "pvc://weights/m", "credential_of_no_use"),
        (CredentialFacts(kind="s3"), "hf://a/b", "credential_kind"),
        (CredentialFacts(stored=False), "hf://a/b", "credential_not_stored"),
    ],
)
def test_a_credential_that_opens_nothing_is_refused(known: CredentialFacts, uri: str, code: str):
    found = said(facts_of(credentials={"mine": known}), source={"uri": uri, "credential": "mine"})
    finding = the(code, found)
    assert (finding.field, finding.is_error) == ("credential", True)


def test_a_token_that_the_hub_refuses_is_told_at_the_credential():
    checked = SourceCheck(SourceCode.BAD_TOKEN, "Refused.", "Enter it again.", None)
    finding = the("source_bad_token", said(facts_of(source_check=checked)))
    assert (finding.field, finding.remedy) == ("credential", "Enter it again.")


# Values


def test_a_value_that_would_be_expanded_is_refused_even_past_the_spec():
    spec = spec_of(args=EIGHT_K)
    engine = spec.engine.model_copy(update={"args": {**EIGHT_K, "dtype": "$(HOME)"}})
    found = check(spec.model_copy(update={"engine": engine}), "chat", "search", facts_of())
    assert the("value_unsafe", found).is_error


def test_every_code_of_a_rule_is_named_in_a_test():
    calls = [
        node
        for path in [*(ROOT / "deployments/preflight").glob("*.py"), ROOT / "deployments/engine/flags.py"]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"error", "warning", "info"}
    ]
    written = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    tests = "".join(path.read_text() for path in (ROOT / "tests/deployments").glob("test_*.py"))
    assert len(written) > 60
    assert sorted(code for code in written if f'"{code}"' not in tests) == []


def test_weights_quantised_at_load_count_as_they_will_be():
    args = {"tensor-parallel-size": 1, "max-model-len": 2048, "dtype": "half"}
    assert "memory" in codes(said(flavor="t4", args=args))
    one = seeded_profiles()["vllm-0.32.0"]
    having = facts_of(profiles={one.slug: dataclasses.replace(one, plugins=(Plugin.BITSANDBYTES,))})
    found = said(having, flavor="t4", args={**args, "quantization": "bitsandbytes"})
    assert [finding.code for finding in found if finding.is_error] == []
    # 15 GiB of 14 would not have fitted as they are stored: that is said, since nobody knows what loading takes.
    assert the("quantised_at_load", found).severity is Severity.WARNING
    assert "quantised_at_load" not in codes(said(having, flavor="l4", args={**args, "quantization": "bitsandbytes"}))


# Sizes of the cache that somebody gives, and layers that a model lacks


@pytest.mark.parametrize(("given", "words"), [(1, "hold no request of 8,192 tokens"), (2**36, "are more than")])
def test_a_cache_of_given_bytes_holds_a_request_and_leaves_room_for_the_weights(given: int, words: str):
    found = said(flavor="l4", args={"kv-cache-memory-bytes": given})
    finding = the("cache_bytes", found)
    assert (finding.field, finding.is_error) == ("kv_cache_memory_bytes", True)
    assert words in finding.message
    assert "memory" not in codes(found)
    again = said(flavor="l4", args={"kv-cache-memory-bytes": finding.value})
    assert [item.code for item in again if item.is_error] == []


def test_where_no_size_of_the_cache_would_do_it_is_the_model_that_does_not_fit():
    assert "memory" in codes(said(flavor="l4", args={"kv-cache-memory-bytes": 2**30, "max-model-len": 131_072}))


@pytest.mark.parametrize(("args", "needed"), [({}, 512), ({"block-size": 32}, 256), ({"max-model-len": 100}, 7)])
def test_blocks_of_the_cache_hold_one_request(args: dict[str, Any], needed: int):
    finding = the("cache_blocks", said(args={**args, "num-gpu-blocks-override": 1}))
    assert (finding.field, finding.value, finding.is_error) == ("num_gpu_blocks_override", needed, True)
    assert "cache_blocks" in codes(said(args={**args, "num-gpu-blocks-override": needed - 1}))
    assert "cache_blocks" not in codes(said(args={**args, "num-gpu-blocks-override": needed}))


def test_layers_that_propose_tokens_are_the_models_own():
    args = {"spec-method": "mtp", "spec-tokens": 1}
    finding = the("speculation_mtp", said(with_model(mtp_layers=0), args=args))
    assert (finding.field, finding.value, finding.is_error) == ("spec_method", "ngram", True)
    for known in (with_model(mtp_layers=1), with_model(mtp_layers=None)):
        assert "speculation_mtp" not in codes(said(known, args=args))
    # Its configuration does not count them.
    unsaid = with_model(mtp_layers=0, architecture="Qwen3NextForCausalLM")
    assert "speculation_mtp" not in codes(said(unsaid, args=args))
    assert "speculation_mtp" not in codes(said(with_model(mtp_layers=0), args={**args, "spec-method": "ngram"}))


@pytest.mark.parametrize(
    ("model", "split", "shared", "value"),
    [
        ({"kv_heads": 8}, 8, 2, 1),  # Nothing is copied.
        ({"kv_heads": 2}, 8, 8, 4),  # Four copies of each.
        ({"kv_heads": 2}, 8, 3, 1),  # No divisor.
        ({"kv_heads": 2}, 8, 4, None),
        ({"kv_lora_rank": 512, "kv_heads": 32}, 8, 8, None),  # One latent, the same on all.
    ],
)
def test_gpus_share_the_context_of_what_they_hold_copies_of(
    model: dict[str, Any], split: int, shared: int, value: int | None
):
    args = {"tensor-parallel-size": split, "decode-context-parallel-size": shared}
    found = [item for item in said(with_model(**model), flavor="l4", args=args) if item.code == "context_parallel"]
    assert [item.value for item in found] == ([] if value is None else [value])
    assert all(item.is_error and item.field == "decode_context_parallel_size" for item in found)


@pytest.mark.parametrize(
    ("args", "code", "field", "value"),
    [
        ({"max-num-batched-tokens": 64, "max-num-seqs": 128}, "batch_below_requests", "max_num_batched_tokens", 128),
        (
            {"max-num-batched-tokens": 2048, "max-num-seqs": 64, "enable-chunked-prefill": False},
            "batch_below_context",
            "max_num_batched_tokens",
            8192,
        ),
    ],
)
def test_a_step_holds_its_requests_and_without_chunks_a_whole_prompt(
    args: dict[str, Any], code: str, field: str, value: int
):
    finding = the(code, said(args=args))
    assert (finding.field, finding.value, finding.is_error) == (field, value, True)
    assert code not in codes(said(args={**args, "max-num-batched-tokens": value}))


@pytest.mark.parametrize(
    ("spec", "places"),
    [
        ({"args": {"kv-offloading-size": 8}}, ["/spec/engine/args/kv-offloading-size"]),
        ({"decode": {"args": {"kv-offloading-size": 8}}}, ["/spec/decode/args/kv-offloading-size"]),
    ],
)
def test_a_cache_that_is_handed_over_is_not_kept_in_main_memory(spec: dict[str, Any], places: list[str]):
    found = check(DeploymentSpec.from_json(roles_json(**spec)), "chat", "search", facts_of())
    assert [finding.pointer for finding in found if finding.code == "roles_offload"] == places
    assert "roles_offload" not in codes(said(args={"kv-offloading-size": 8}))


def test_much_in_main_memory_is_a_warning():
    found = the("main_memory", said(args={"kv-offloading-size": 500, "mm-processor-cache-gb": 8}))
    assert found.severity is Severity.WARNING
    assert found.field == "kv_offloading_size"
    assert "kv-offloading-size and mm-processor-cache-gb would keep 516 GiB in the main memory" in found.message
    assert "main_memory" not in codes(said(args={"kv-offloading-size": 100}))


def test_much_in_main_memory_of_one_role_is_told_there():
    spec = DeploymentSpec.from_json(roles_json(decode={"args": {"cpu-offload-gb": 400}}))
    found = the("main_memory", check(spec, "chat", "search", facts_of()))
    assert found.pointer == "/spec/decode/args/cpu-offload-gb"
    assert found.message.startswith("Decode: cpu-offload-gb would keep")


@pytest.mark.parametrize(
    "ending",
    [
        *("-kserve", "-kserve-prefill", "-kserve-mn", "-kserve-workload-svc", "-kserve-route"),
        *("-kserve-router-scheduler", "-inference-pool", "-epp-service"),
    ],
)
def test_names_of_parts_that_kserve_makes_are_refused(ending: str):
    found = the("name_reserved", said(name=f"chat{ending}"))
    assert found.message == f"Names that end in “{ending}” are those of parts that KServe makes."


@pytest.mark.parametrize("name", ["chat-slipway", "chat-slipway-api", "chat-slipway-prefill", "chat-predictor"])
def test_names_of_parts_beside_another_deployment_are_refused(name: str):
    assert the("name_reserved", said(name=name)).message.startswith(f"“{name}” is reserved")


def test_settings_of_scaling_that_do_nothing_are_told():
    found = the("scaling_idle", said(scaling={"percent": 60}))
    assert (found.severity, found.field) == (Severity.INFO, "scaling_concurrency")
    assert "scaling_idle" not in codes(said(scaling={"percent": 60}, replicas={"min": 1, "max": 2}))
    assert "scaling_idle" not in codes(said())
    several = {"decode": {"replicas": {"min": 1, "max": 2}}, "scaling": {"percent": 60}}
    roles = DeploymentSpec.from_json(roles_json(**several))
    assert "scaling_idle" not in codes(check(roles, "chat", "search", facts_of()))


def test_one_gpu_has_no_context_to_share():
    assert the("context_parallel", said(args={"decode-context-parallel-size": 2})).remedy == "Leave it out."
