"""GPUs that share the context while decoding: kernels that can join its parts, and layers that have one to share."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.attention import backends
from deployments.engine.profiles import EngineProfile
from deployments.findings import Finding
from deployments.preflight import check
from tests.deployments.preflighting import codes, the
from tests.deployments.wishes import A100, H100, L4, LLAMA, facts_of, spec_of

TP, DCP = "tensor-parallel-size", "decode-context-parallel-size"
SHARED = {TP: 8, DCP: 2, "max-model-len": 1024}
WIDE = {
    flavor.slug: dataclasses.replace(flavor, gpus_per_node=8, total=16, free=16, largest_free_block=8)
    for flavor in (A100, H100, L4, dataclasses.replace(H100, slug="b200", compute_capability=10.0))
}
FEW = dataclasses.replace(LLAMA, kv_heads=4, weights_bytes=6 << 30)
OSS = {"architecture": "GptOssForCausalLM", "head_dim": 64}
SPARSE = {
    **{"architecture": "DeepseekV32ForCausalLM", "kv_lora_rank": 512, "rope_head_dim": 64},
    **{"index_head_dim": 128, "index_layers": 32},
}
WINDOWS = {"sliding_window": 1024, "sliding_layers": 28}
TOLD = {"context_kernels", "context_windows"}


def found(
    args: dict[str, Any], flavor: str = "l4", version: str = "0.32.0", model: dict[str, Any] | None = None
) -> list[Finding]:
    engine = EngineProfile("vllm", version, "vllm/vllm-openai@sha256:" + "0" * 64)
    facts = facts_of(flavors=WIDE, model=dataclasses.replace(FEW, **model or {}), profiles={"vllm": engine})
    wish = spec_of(flavor=flavor, engine={"profile": "vllm", "args": SHARED | args}, replicas={"min": 1, "max": 1})
    return check(wish, "chat", "search", facts)


def test_the_kernels_are_those_whose_implementations_say_supports_dcp():
    assert {name for name, backend in backends().items() if backend.dcp is not None} == {
        *("FLASH_ATTN", "FLASHINFER", "FLASH_ATTN_MLA", "FLASHMLA", "FLASHINFER_MLA", "CUTLASS_MLA", "TRITON_MLA"),
        *("TOKENSPEED_MLA", "FLASHMLA_SPARSE", "FLASHINFER_MLA_SPARSE"),
    }


@pytest.mark.parametrize(
    ("args", "flavor", "model", "field", "value"),
    [
        # Kept by TURBOQUANT and by TRITON_ATTN alone, which hand out no sums.
        ({"kv-cache-dtype": "turboquant_4bit_nc"}, "l4", {}, "kv_cache_dtype", "fp8"),
        ({"kv-cache-dtype": "fp8_per_token_head"}, "l4", {}, "kv_cache_dtype", "fp8"),
        ({"kv-cache-dtype": "int8_per_token_head"}, "a100", {}, "kv_cache_dtype", "fp8"),
        ({"attention-backend": "TRITON_ATTN"}, "l4", {}, "attention_backend", "FLASH_ATTN"),
        ({"attention-backend": "FLEX_ATTENTION"}, "l4", {}, "attention_backend", "FLASH_ATTN"),
        # The wrapper for shared prompts reads no scales of FP4.
        ({"kv-cache-dtype": "nvfp4"}, "h100", {}, "kv_cache_dtype", "fp8"),
        # Attention sinks: FLASH_ATTN from 9.0 to 10.9, and before that TRITON_ATTN alone.
        ({}, "a100", OSS, "decode_context_parallel_size", 1),
        ({"attention-backend": "FLASHINFER"}, "h100", OSS, "attention_backend", "FLASH_ATTN"),
        # A choice of tokens in 16 bits; in fp8 it is packed.
        ({}, "h100", SPARSE, "kv_cache_dtype", "fp8"),
    ],
)
def test_kernels_must_join_the_parts_of_a_context(
    args: dict[str, Any], flavor: str, model: dict[str, Any], field: str, value: object
):
    finding = the("context_kernels", found(args, flavor, model=model))
    assert (finding.field, finding.value, finding.is_error) == (field, value, True)
    assert "context_kernels" not in codes(found({**args, field.replace("_", "-"): value}, flavor, model=model))
    assert "context_kernels" not in codes(found({**args, DCP: 1}, flavor, model=model))
    assert the("context_kernels", found(args, flavor, "0.31.0", model)).is_error is False


@pytest.mark.parametrize(
    ("args", "flavor", "model"),
    [
        ({}, "l4", {}),
        ({"kv-cache-dtype": "fp8"}, "l4", {}),
        ({"kv-cache-dtype": "nvfp4"}, "b200", {}),
        ({}, "h100", OSS),
        ({"kv-cache-dtype": "fp8"}, "h100", SPARSE),
        ({"attention-backend": "FLASHINFER"}, "b200", OSS),
        ({}, "h100", {"kv_lora_rank": 512, "rope_head_dim": 64, "architecture": "DeepseekV3ForCausalLM"}),
        # Families with kernels of their own.
        ({"kv-cache-dtype": "turboquant_4bit_nc"}, "l4", {"architecture": "MiMoV2ForCausalLM"}),
    ],
)
def test_where_some_kernels_can_nothing_is_said(args: dict[str, Any], flavor: str, model: dict[str, Any]):
    assert not codes(found(args, flavor, model=model)) & TOLD


def test_windows_are_no_context_to_share():
    finding = the("context_windows", found({}, model=WINDOWS))
    assert (finding.field, finding.value, finding.is_error) == ("disable_hybrid_kv_cache_manager", True, True)
    for way in ({"disable-hybrid-kv-cache-manager": True}, {"disable-sliding-window": True}, {DCP: 1}):
        assert "context_windows" not in codes(found(way, model=WINDOWS))


def test_what_helps_where_one_cache_does_not():
    # Every layer has a window: one kind of cache is what there is already.
    alike = the("context_windows", found({}, model=WINDOWS | {"sliding_layers": 32}))
    assert (alike.field, alike.value) == ("disable_sliding_window", True)
    # Beside layers that keep a state there must be several.
    states = the("context_windows", found({}, model=WINDOWS | {"linear_layers": 4, "sliding_layers": 20}))
    assert states.field == "disable_sliding_window"
    chunks = the("context_windows", found({}, model={"attention_chunk": 8192, "chunked_layers": 24}))
    assert (chunks.field, chunks.value) == ("disable_hybrid_kv_cache_manager", True)
    whole = {"attention_chunk": 8192, "chunked_layers": 32}
    assert the("context_windows", found({}, model=whole)).field == "decode_context_parallel_size"
