"""Numbers of one flag that bound another, as vLLM 0.32.0 does at its start."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.engine.flags import flags_of, versions
from deployments.engine.gpus import gpu_facts
from deployments.engine.render import render_args
from deployments.engine.sizing import sequences
from deployments.preflight import check
from deployments.spec import DeploymentSpec
from tests.deployments.preflighting import codes, said, the, with_model
from tests.deployments.wishes import facts_of, roles_json, spec_json

ADAPTER = [{"name": "legal", "uri": "hf://org/legal-lora"}]


@pytest.mark.parametrize("batch", [16, 512, 1023])
def test_a_small_step_alone_lets_fewer_requests_run(batch: int):
    assert "batch_below_requests" not in codes(said(args={"max-num-batched-tokens": batch}))
    assert sequences(gpu_facts("NVIDIA-H100-80GB-HBM3"), {}, batch) == batch


def test_a_prompt_is_not_long_beyond_the_context():
    args = {"max-model-len": 8192, "long-prefill-token-threshold": 16384}
    finding = the("long_prefill", said(args=args))
    assert (finding.field, finding.value, finding.is_error) == ("long_prefill_token_threshold", 8192, True)
    assert "long_prefill" not in codes(said(args={**args, "long-prefill-token-threshold": 8192}))


def test_what_is_more_than_the_model_has_makes_nothing_else_grow():
    short = with_model(max_position=32_768, weights_bytes=8 << 30)
    found = said(short, flavor="l4", args={"max-model-len": 1_000_000})
    assert [finding.code for finding in found if finding.is_error] == ["context_over_model"]
    # Of a model that does not fit with its own context either, it is said with that.
    large = with_model(max_position=32_768)
    finding = the("memory", said(large, flavor="l4", args={"max-model-len": 1_000_000}))
    assert "one request of 32,768 tokens" in finding.message
    whole = {"enable-chunked-prefill": False, "max-num-batched-tokens": 512, "max-num-seqs": 8}
    finding = the("batch_below_context", said(short, args={**whole, "max-model-len": 1_000_000}))
    assert "fewer than 32,768" in finding.message
    assert dict([(finding.pointer, finding.value), *finding.also])["/spec/engine/args/max-num-batched-tokens"] == 32_768
    window = with_model(sliding_window=4096, sliding_layers=32)
    flags = {"disable-sliding-window": True, "max-model-len": 65_536, "long-prefill-token-threshold": 8192}
    assert "the context is 4,096" in the("long_prefill", said(window, args=flags)).message


def test_a_threshold_that_the_flag_does_not_take_is_said_once_with_one_that_is_right():
    found = said(args={"long-prefill-token-threshold": 2_000_000})
    finding = the("flag_range", found)
    assert (finding.field, finding.value) == ("long_prefill_token_threshold", 8192)
    assert "long_prefill" not in codes(found)
    assert not codes(said(args={"long-prefill-token-threshold": 8192})) & {"flag_range", "long_prefill"}


def test_with_adapters_a_step_holds_what_is_proposed_for_each_request():
    # 1,024 requests at once on an H100, of 9 tokens each, in a step of 8,192.
    args: dict[str, Any] = {"spec-method": "ngram", "spec-tokens": 8}
    finding = the("speculation_adapters", said(args=args, adapters=ADAPTER))
    assert (finding.field, finding.value, finding.is_error) == ("max_num_seqs", 910, True)
    assert "9,216" in finding.message
    assert "speculation_adapters" not in codes(said(args={**args, "max-num-seqs": 910}, adapters=ADAPTER))
    assert "speculation_adapters" in codes(said(args={**args, "max-num-seqs": 911}, adapters=ADAPTER))
    assert "speculation_adapters" not in codes(said(args={**args, "max-num-batched-tokens": 9216}, adapters=ADAPTER))
    assert "speculation_adapters" not in codes(said(args=args))


@pytest.mark.parametrize(("kind", "refused"), [("nvfp4", True), ("nvfp4_4over6", True), ("fp8", False)])
def test_latent_attention_has_no_nvfp4_cache(kind: str, refused: bool):
    latent = with_model(kv_lora_rank=512, rope_head_dim=64, architecture="DeepseekV2ForCausalLM")
    found = said(latent, args={"kv-cache-dtype": kind})
    assert ("cache_nvfp4" in codes(found)) is refused
    assert "cache_nvfp4" not in codes(said(args={"kv-cache-dtype": kind}))


def test_more_blocks_than_memory_holds_are_refused():
    finding = the("cache_blocks_memory", said(args={"num-gpu-blocks-override": 1_000_000}))
    assert (finding.field, finding.is_error) == ("num_gpu_blocks_override", True)
    # Of an H100 about 62 GiB stay, at 128 KiB a token in blocks of 16.
    assert isinstance(finding.value, int)
    assert 25_000 < finding.value < 33_000
    assert "cache_blocks_memory" not in codes(said(args={"num-gpu-blocks-override": finding.value}))
    assert "cache_blocks_memory" in codes(said(args={"num-gpu-blocks-override": finding.value + 1}))


@pytest.mark.parametrize("version", versions())
def test_not_to_disable_the_manager_leaves_it_to_the_engine(version: str):
    # Said outright, the engine does not start where it would have done without.
    assert render_args(version, {"disable-hybrid-kv-cache-manager": False}) == []
    assert render_args(version, {"disable-hybrid-kv-cache-manager": True}) == ["--disable-hybrid-kv-cache-manager"]


@pytest.mark.parametrize("version", versions())
def test_no_server_is_asked_of_a_draft(version: str):
    assert flags_of(version)["runner"].choices == ("auto", "generate", "pooling")


def test_engines_over_several_nodes_are_not_counted_in_one():
    spec = {"nodes": 2, "args": {"max-model-len": 8192, "data-parallel-size": 8, "tensor-parallel-size": 3}}
    found = check(DeploymentSpec.from_json(spec_json(**spec)), "chat", "search", facts_of())
    finding = the("gpus_per_node", found)
    assert "On each of its 2 nodes a replica needs 12 GPUs" in finding.message


def test_what_a_role_sets_by_itself_is_mended_there():
    args = {"max-model-len": 8192, "enable-dbo": True}
    spec = DeploymentSpec.from_json(roles_json(args={}, prefill={"args": args}, decode={"args": args}))
    found = [finding for finding in check(spec, "chat", "search", facts_of()) if finding.field.endswith("enable_dbo")]
    assert {finding.pointer for finding in found if finding.is_error} == {
        "/spec/prefill/args/enable-dbo",
        "/spec/decode/args/enable-dbo",
    }


@pytest.mark.parametrize(
    ("architecture", "runner", "code"),
    [
        ("BertModel", "generate", "runner_pooling"),
        ("BertModel", None, "no_text"),
        ("BertModel", "pooling", None),
        # Their names end otherwise, and they write.
        ("ChatGLMModel", None, None),
        ("InternVLChatModel", "generate", None),
        ("LlamaForCausalLM", "generate", None),
    ],
)
def test_what_writes_is_told_by_the_engines_own_tables(architecture: str, runner: str | None, code: str | None):
    found = codes(said(with_model(architecture=architecture), args={"runner": runner} if runner else {}))
    assert found & {"runner_pooling", "no_text"} == ({code} if code else set())
