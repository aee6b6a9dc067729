"""Attention kernels asked for by name, held against GPU, model and formats."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.attention import backends, obstacles
from deployments.engine.flags import flags_of
from deployments.engine.profiles import EngineProfile
from deployments.engine.sizing import fit
from deployments.findings import Finding, Severity
from deployments.sources.huggingface import model_facts
from tests.deployments.preflighting import codes, said, the
from tests.deployments.wishes import FLAVORS, H100, LLAMA, facts_of

B200 = dataclasses.replace(H100, slug="b200", compute_capability=10.0, title="B200")
GPUS = {**FLAVORS, "b200": B200}
MLA: dict[str, Any] = {"kv_lora_rank": 512, "rope_head_dim": 64, "architecture": "DeepseekV3ForCausalLM"}
OSS: dict[str, Any] = {"architecture": "GptOssForCausalLM", "head_dim": 64, "sliding_window": 128, "sliding_layers": 16}


def asked(name: str, flavor: str = "h100", version: str = "0.32.0", model: Any = (), **args: Any) -> list[Finding]:
    known = dataclasses.replace(LLAMA, weights_bytes=6 << 30, **dict(model))
    engine = EngineProfile("vllm", version, "vllm/vllm-openai@sha256:" + "0" * 64)
    flags = {"max-model-len": 2048, "attention-backend": name, **args}
    facts = facts_of(flavors=GPUS, model=known, profiles={"vllm": engine})
    return said(facts, flavor=flavor, engine={"profile": "vllm", "args": flags})


def test_the_table_names_what_the_flag_takes():
    assert set(backends()) <= set(flags_of("0.32.0")["attention-backend"].choices)


@pytest.mark.parametrize(
    ("name", "flavor", "model", "args", "said_of_it", "value"),
    [
        ("FLASH_ATTN", "t4", {}, {"dtype": "half"}, "8.0 or more", "TRITON_ATTN"),
        ("FLASHINFER", "t4", {}, {"dtype": "half"}, "8.0 to 12.1", "TRITON_ATTN"),
        ("FLASHMLA", "h100", {}, {}, "latent attention", "FLASH_ATTN"),
        ("FLASH_ATTN", "h100", MLA, {}, "no latent attention", "FLASH_ATTN_MLA"),
        ("FLASH_ATTN_MLA", "b200", MLA, {}, "9.0 to 9.9", "FLASHMLA"),
        ("CUTLASS_MLA", "h100", MLA, {}, "10.0 to 10.9", "FLASH_ATTN_MLA"),
        ("FLASHMLA_SPARSE", "h100", MLA, {}, "a choice of tokens", "FLASH_ATTN_MLA"),
        ("FLASHMLA", "h100", {**MLA, "architecture": "DeepseekV32ForCausalLM"}, {}, "all tokens", "FLASHMLA_SPARSE"),
        ("FLASHINFER", "h100", {"head_dim": 96}, {}, "heads of size 96", "FLASH_ATTN"),
        ("FLASH_ATTN", "h100", {"head_dim": 100}, {}, "heads of size 100", "TRITON_ATTN"),
        ("FLASH_ATTN", "a100", {"head_dim": 256, "full_head_dim": 512}, {}, "heads of size 512", "FLASHINFER"),
        ("FLASH_ATTN", "a100", OSS, {}, "attention sinks", "TRITON_ATTN"),
        ("FLEX_ATTENTION", "h100", OSS, {}, "attention sinks", "FLASH_ATTN"),
        ("FLASH_ATTN", "l4", {}, {"kv-cache-dtype": "fp8"}, "from compute capability 9.0", "FLASHINFER"),
        ("FLEX_ATTENTION", "h100", {}, {"kv-cache-dtype": "fp8"}, "no KV cache in fp8", "FLASH_ATTN"),
        ("FLASH_ATTN", "h100", {}, {"dtype": "float32"}, "float32", "TRITON_ATTN"),
        ("TURBOQUANT", "h100", {}, {}, "turboquant_k8v4", "FLASH_ATTN"),
        ("TORCH_SDPA", "h100", {}, {}, "image encoders", "FLASH_ATTN"),
    ],
)
def test_what_cannot_work_is_refused_with_what_can(
    name: str, flavor: str, model: dict[str, Any], args: dict[str, Any], said_of_it: str, value: str
):
    finding = the("attention_backend", asked(name, flavor, model=model, **args))
    assert (finding.field, finding.value, finding.is_error) == ("attention_backend", value, True), finding
    assert said_of_it in finding.message
    assert value in finding.remedy
    assert "attention_backend" not in codes(asked(value, flavor, model=model, **args))


@pytest.mark.parametrize(
    ("name", "flavor", "model", "args"),
    [
        ("FLASH_ATTN", "a100", {}, {}),
        ("FLASH_ATTN", "h100", OSS, {}),
        ("FLASH_ATTN", "h100", {}, {"kv-cache-dtype": "fp8"}),
        ("TRITON_ATTN", "t4", {}, {"dtype": "half"}),
        ("FLASHMLA", "h100", MLA, {"kv-cache-dtype": "fp8"}),
        ("FLASHINFER", "a100", {"head_dim": 256}, {}),
        ("TRITON_MLA", "a100", MLA, {}),
    ],
)
def test_what_works_is_not(name: str, flavor: str, model: dict[str, Any], args: dict[str, Any]):
    assert "attention_backend" not in codes(asked(name, flavor, model=model, **args))


def test_of_a_release_that_was_not_read_it_is_a_warning():
    assert the("attention_backend", asked("FLASHMLA", version="0.20.0")).severity is Severity.WARNING


def test_what_nobody_knows_is_not_refused():
    assert obstacles("FLASHMLA", None, 0.0, "auto", "auto") == []
    assert obstacles("SOMETHING_NEW", LLAMA, 7.5, "fp8", "float32") == []


# What the weights say of the cache


@pytest.mark.parametrize(
    ("section", "cache"),
    [
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "fp8"),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": None}, ""),
        ({"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}, ""),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"}, "fp8"),
        ({"quant_method": "modelopt", "quantization": {"kv_cache_quant_algo": "NVFP4"}}, "nvfp4"),
        ({"quant_method": "modelopt", "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False}}, "fp8"),
        ({"quant_method": "modelopt", "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": True}}, ""),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": ["FP8"]}, ""),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": "fp8"}, ""),
    ],
)
def test_the_cache_that_quantised_weights_ask_for_is_read(section: dict[str, Any], cache: str):
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": section}
    assert model_facts("org/model", {}, config).cache_dtype == cache


def test_a_cache_that_the_weights_ask_for_takes_half_and_gives_way_to_the_flag():
    declared = dataclasses.replace(LLAMA, cache_dtype="fp8")
    args: dict[str, Any] = {"max-model-len": 8192}
    own, halved = (fit(model, H100.gpu, args).kv_tokens for model in (LLAMA, declared))
    assert halved == pytest.approx(2 * own, rel=0.01)
    assert fit(declared, H100.gpu, {**args, "kv-cache-dtype": "bfloat16"}).kv_tokens == own
    assert "attention_backend" in codes(asked("FLEX_ATTENTION", model={"cache_dtype": "fp8"}))
    assert "attention_backend" not in codes(
        asked("FLEX_ATTENTION", model={"cache_dtype": "fp8"}, **{"kv-cache-dtype": "bfloat16"})
    )
