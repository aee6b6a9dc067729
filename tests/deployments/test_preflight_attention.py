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


def asked(
    name: str | None, flavor: str = "h100", version: str = "0.32.0", model: Any = (), **args: Any
) -> list[Finding]:
    known = dataclasses.replace(LLAMA, weights_bytes=6 << 30, **dict(model))
    engine = EngineProfile("vllm", version, "vllm/vllm-openai@sha256:" + "0" * 64)
    flags = {"max-model-len": 2048, **({"attention-backend": name} if name else {}), **args}
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
        (
            "FLASHMLA",
            "h100",
            {**MLA, "architecture": "DeepseekV32ForCausalLM"},
            {},
            "all tokens",
            "FLASH_ATTN_MLA_SPARSE",
        ),
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


# Whether there are kernels at all

V32: dict[str, Any] = {**MLA, "architecture": "DeepseekV32ForCausalLM"}
WINDOWS: dict[str, Any] = {"sliding_window": 4096, "sliding_layers": 16}


def cached(kind: str, flavor: str = "l4", model: Any = (), version: str = "0.32.0", **args: Any) -> list[Finding]:
    return asked(None, flavor, version, model, **{"kv-cache-dtype": kind}, **args)


@pytest.mark.parametrize(
    ("kind", "flavor", "model", "value"),
    [
        ("ultraquant_4bit", "l4", {}, "fp8"),
        ("ultraquant_4bit", "b200", {}, "fp8"),
        ("int8_per_token_head", "h100", MLA, "fp8"),
        ("turboquant_3bit_nc", "h100", MLA, "fp8"),
        ("fp8_ds_mla", "h100", MLA, "fp8"),
        ("nvfp4_ds_mla", "h100", V32, "fp8"),
        ("nvfp4_4over6", "l4", {}, "fp8"),
        ("nvfp4_4over6", "h100", {}, "fp8"),
        ("nvfp4", "l4", {"head_dim": 64}, "fp8"),
        ("nvfp4", "h100", OSS, "fp8"),
        ("turboquant_k8v4", "h100", OSS, "fp8"),
        ("turboquant_k8v4", "l4", WINDOWS, "fp8"),
        ("turboquant_3bit_nc", "l4", {"head_dim": 96}, "fp8"),
        ("fp8", "t4", {}, "auto"),
        ("fp8_per_token_head", "a100", {}, "auto"),
        ("bfloat16", "t4", {}, "auto"),
        ("fp8", "a100", MLA, "auto"),
    ],
)
def test_a_cache_that_no_kernels_keep_is_refused_with_one_that_some_do(
    kind: str, flavor: str, model: dict[str, Any], value: str
):
    finding = the("cache_kernels", cached(kind, flavor, model))
    assert (finding.field, finding.value, finding.is_error) == ("kv_cache_dtype", value, True), finding
    assert kind in finding.message
    assert {"fp8_cache", "cache_fp4"}.isdisjoint(codes(cached(kind, flavor, model)))
    assert "cache_kernels" not in codes(cached(value, flavor, model))


@pytest.mark.parametrize(
    ("kind", "flavor", "model"),
    [
        ("nvfp4", "l4", {}),
        ("nvfp4", "b200", OSS),
        ("nvfp4_4over6", "b200", {}),
        ("nvfp4_ds_mla", "b200", V32),
        ("fp8_ds_mla", "h100", V32),
        ("turboquant_3bit_nc", "l4", {}),
        ("turboquant_k8v4", "l4", {"head_dim": 96}),
        ("int8_per_token_head", "a100", OSS),
        ("fp8", "a100", {}),
        ("fp8_e5m2", "l4", {"head_dim": 96}),
        ("fp8", "l4", MLA),
        ("ultraquant_4bit", "l4", {"architecture": "DeepseekV4ForCausalLM"}),
    ],
)
def test_a_cache_that_some_kernels_keep_is_not(kind: str, flavor: str, model: dict[str, Any]):
    assert "cache_kernels" not in codes(cached(kind, flavor, model))


def test_without_its_windows_a_model_is_like_others():
    assert "cache_kernels" not in codes(cached("turboquant_k8v4", model=WINDOWS, **{"disable-sliding-window": True}))


def test_what_no_kernels_keep_is_said_of_the_cache_also_where_some_are_named():
    found = codes(cached("ultraquant_4bit", **{"attention-backend": "TRITON_ATTN"}))
    assert "cache_kernels" in found
    assert "attention_backend" not in found


def test_a_cache_that_the_weights_ask_for_and_no_kernels_keep_gives_way_to_one_by_name():
    finding = the("cache_kernels", cached("auto", model={"cache_dtype": "nvfp4", "head_dim": 64}))
    assert (finding.value, finding.remedy) == ("fp8", "Use fp8 or bfloat16.")


def test_arithmetic_that_no_kernels_have_is_refused():
    finding = the("dtype_kernels", asked(None, "h100", model=MLA, dtype="float32"))
    assert (finding.field, finding.value, finding.is_error) == ("dtype", "bfloat16", True)
    assert "dtype_kernels" not in codes(asked(None, "h100", dtype="float32"))


def test_a_model_that_no_kernels_of_the_gpu_run_is_refused():
    finding = the("model_kernels", asked(None, "a100", model=V32))
    assert (finding.field, finding.value, finding.is_error) == ("flavor", "h100", True)
    assert "H100 80 GB or B200" in finding.remedy
    assert "model_kernels" not in codes(asked(None, "h100", model=V32))
    # Whatever its family is called.
    chooses = {**MLA, "architecture": "SomethingNewForCausalLM", "index_head_dim": 128}
    assert "model_kernels" in codes(asked(None, "a100", model=chooses))


def test_of_a_release_that_was_not_read_no_kernels_are_a_warning():
    assert the("cache_kernels", cached("turboquant_k8v4", "h100", MLA, "0.20.0")).severity is Severity.WARNING


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
