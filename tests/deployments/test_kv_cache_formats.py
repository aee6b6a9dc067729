"""What a token takes in caches that keep other things than plain keys and values, held against vLLM.

Packed formats, and latent attention that keeps a key to choose tokens by. Where a comment says *vLLM says*, the numbers
came from its own functions, as in `test_kv_cache`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.defaults import defaults_of
from deployments.engine.facts import GIB
from deployments.engine.kv import pool_of
from deployments.engine.sizing import FitState, fit
from tests.deployments.attentions import B200, DEEPSEEK, H200, L4, QWEN, read


@pytest.mark.parametrize(
    ("kind", "block", "tokens"),
    [
        # vLLM says (model_executor/layers/quantization/turboquant/config.py: slot_size_aligned), for four heads of 128:
        # the first and the last two of 28 layers stay in 16 bits, 2 KiB a token.
        ("turboquant_k8v4", 432_128, 198_768),
        ("turboquant_4bit_nc", 336_896, 254_960),
        ("turboquant_k3v4_nc", 312_320, 275_024),
        ("turboquant_3bit_nc", 287_744, 298_512),
    ],
)
def test_packed_caches_take_their_slots_but_for_the_layers_at_the_ends(kind: str, block: int, tokens: int):
    args = {"kv-cache-dtype": kind}
    pool = pool_of(QWEN, args)
    assert pool.block_bytes == 16 * pool.token_bytes == block
    assert pool.tokens(5 * GIB, 32_768) == tokens
    # Hybrid models have no layers to spare: all that attend are packed.
    slot = (pool.token_bytes - 4 * 2048) // 24
    assert pool_of(dataclasses.replace(QWEN, linear_layers=21), args).token_bytes == 7 * slot


def test_a_packed_cache_is_seen_in_the_estimate():
    model = dataclasses.replace(QWEN, weights_bytes=15 * GIB, hidden=3584, intermediate=18944, vocab=152_064)
    plain, packed = (
        fit(model, L4, {"max-model-len": 32_768, "kv-cache-dtype": kind}) for kind in ("auto", "turboquant_3bit_nc")
    )
    assert (plain.kv_bytes_per_token, packed.kv_bytes_per_token) == (57_344, 17_984)
    assert packed.max_context > 3 * plain.max_context or packed.state is FitState.FITS


def test_four_bits_with_a_scale_for_each_32_are_counted():
    # v1/attention/ops/ultraquant/format.py: 136 bytes for a head of 128.
    assert (
        pool_of(dataclasses.replace(QWEN, linear_layers=27), {"kv-cache-dtype": "ultraquant_4bit"}).token_bytes == 544
    )


@pytest.mark.parametrize(
    ("gpu", "args", "layer"),
    [
        # models/deepseek_v2.py: a key of 128 bytes and its scale beside each latent; mla_attention.py: 656 bytes of it
        # wherever FLASHMLA_SPARSE serves fp8, which Hopper takes; Blackwell takes FlashInfer, which keeps it plain.
        (H200, {}, 1152 + 132),
        (H200, {"kv-cache-dtype": "fp8"}, 656 + 132),
        (B200, {}, 1152 + 132),
        (B200, {"kv-cache-dtype": "fp8"}, 576 + 132),
        (B200, {"kv-cache-dtype": "fp8", "attention-backend": "FLASHMLA_SPARSE"}, 656 + 132),
        (B200, {"kv-cache-dtype": "nvfp4_ds_mla"}, 352 + 132),
        # What is not divided by it.
        (H200, {"tensor-parallel-size": 8, "kv-cache-dtype": "fp8"}, 656 + 132),
        # The context is shared out, and both with it.
        (H200, {"tensor-parallel-size": 8, "decode-context-parallel-size": 4}, (1152 + 132) / 4),
    ],
)
def test_latent_attention_to_a_choice_of_tokens_keeps_a_key_to_choose_by(gpu: Any, args: dict[str, Any], layer: float):
    model = read(DEEPSEEK, weights_bytes=8 * GIB)
    assert fit(model, gpu, {"max-model-len": 8192, **args}).kv_bytes_per_token == 61 * layer


@pytest.mark.parametrize(
    ("version", "gpu", "layer"),
    [("0.17.0", B200, 656), ("0.18.0", B200, 656), ("0.20.0", B200, 576), ("0.20.0", H200, 656), ("0.32.0", H200, 656)],
)
def test_its_fp8_is_that_of_the_version(version: str, gpu: Any, layer: int):
    # 0.17 (models/config.py: DeepseekV32ForCausalLM) on every GPU; later by kernels (platforms/cuda.py), of which 0.18
    # and 0.19 take FLASHMLA_SPARSE first.
    args = {"max-model-len": 8192, "kv-cache-dtype": "fp8"}
    result = fit(read(DEEPSEEK, weights_bytes=8 * GIB), gpu, args, defaults=defaults_of(version))
    assert result.kv_bytes_per_token == 61 * (layer + 132)


def test_glm_keeps_fp8_on_blackwell_where_nothing_is_asked_for():
    # models/config.py: GlmMoeDsaForCausalLM.
    model = read({**DEEPSEEK, "architectures": ["GlmMoeDsaForCausalLM"]}, weights_bytes=8 * GIB)
    args = {"max-model-len": 8192}
    assert [fit(model, gpu, args).kv_bytes_per_token for gpu in (B200, H200)] == [61 * 708, 61 * 1284]
    assert fit(model, B200, args, defaults=defaults_of("0.20.0")).kv_bytes_per_token == 61 * 1284
