"""The KV cache of layers that are not all alike, held against vLLM 0.32.0.

Where a comment says *vLLM says*, the numbers came from its own functions (v1/core/kv_cache_utils.py:
`get_kv_cache_groups`, `_pool_bytes_per_block`, `_max_memory_usage_bytes_from_groups`, `get_kv_cache_capacity`) over the
specs that its attention layers return (v1/kv_cache_interface.py), with layout LBNHC.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.defaults import defaults_of
from deployments.engine.facts import GIB, MIB, ModelFacts
from deployments.engine.kv import in_flight, pool_of
from deployments.engine.options import splits
from deployments.engine.sizing import FitState, batched_tokens, fit
from tests.deployments.attentions import (
    B200,
    GEMMA_3,
    GEMMA_3N,
    GEMMA_4,
    GEMMA_4_SMALL,
    H100,
    H200,
    L4,
    LLAMA_4,
    MIMO,
    OSS,
    QWEN,
    read,
)

ONE_CACHE = {"disable-hybrid-kv-cache-manager": True}

# In each case below the tokens under way are those of two steps, but where one is said.


@pytest.mark.parametrize(
    ("model", "length", "step", "gib", "block", "groups", "needed", "tokens"),
    [
        # vLLM says: full and sliding layers in groups of ten; of 52 sliding ones six groups, with 8 empty places.
        (GEMMA_3, 65_536, 4096, 20, 1_310_720, 7, 9_906_421_760, 142_066),
        (read(GEMMA_4), 131_072, 8192, 20, 2_621_440, 6, 25_011_159_040, 112_539),
        (read(GEMMA_4), 32_768, 8192, 20, 2_621_440, 6, 16_958_095_360, 41_495),
        # Of 35 layers 15 have a cache, of which 3 attend to everything.
        (read(GEMMA_4_SMALL), 32_768, 2048, 5, 98_304, 5, 258_342_912, 680_958),
        (read(GEMMA_3N), 32_768, 2048, 5, 131_072, 5, 419_954_688, 418_906),
        (read(LLAMA_4), 1_000_000, 8192, 100, 786_432, 4, 52_775_878_656, 2_034_526),
        (read(MIMO), 131_072, 8192, 30, 737_280, 6, 6_827_950_080, 618_349),
        (OSS, 131_072, 8192, 10, 393_216, 2, 3_627_417_600, 387_973),
        # One more of a kind is put into the same group, with an empty place in the other.
        (dataclasses.replace(OSS, layers=25), 131_072, 8192, 10, 425_984, 2, 3_929_702_400, 358_135),
    ],
)
def test_layers_of_several_kinds_take_blocks_in_equal_groups(
    model: ModelFacts, length: int, step: int, gib: int, block: int, groups: int, needed: int, tokens: int
):
    pool = pool_of(model, {}, step)
    assert (pool.block_bytes, sum(group.count for group in pool.groups)) == (block, groups)
    assert pool.request(length) == needed
    assert pool.tokens(gib * GIB, length) == tokens


@pytest.mark.parametrize(
    ("model", "length", "gib", "block", "needed", "tokens"),
    [
        # vLLM says: one group of all layers, which each keep what they keep of a token.
        (GEMMA_3, 65_536, 20, 8_126_464, 33_285_996_544, 42_272),
        (read(GEMMA_4), 131_072, 20, 14_417_920, 118_111_600_640, 23_824),
        (read(LLAMA_4), 1_000_000, 100, 3_145_728, 196_608_000_000, 546_128),
    ],
)
def test_without_the_manager_every_layer_keeps_everything(
    model: ModelFacts, length: int, gib: int, block: int, needed: int, tokens: int
):
    pool = pool_of(model, ONE_CACHE, 8192)
    assert (pool.block_bytes, pool.request(length), pool.tokens(gib * GIB, length)) == (block, needed, tokens)


@pytest.mark.parametrize("model", [GEMMA_3, read(GEMMA_4), read(GEMMA_4_SMALL), read(LLAMA_4), read(MIMO), OSS, QWEN])
@pytest.mark.parametrize("mib", [1, 40, 300, 1500, 5000, 40_000])
def test_the_largest_context_is_the_last_that_the_blocks_hold(model: ModelFacts, mib: int):
    pool, most = pool_of(model, {}, 2048), 262_144
    longest = pool.longest(mib * MIB, most)
    assert longest % 16 == 0
    assert pool.request(longest) <= mib * MIB or longest == 0
    assert longest == most or pool.request(longest + 16) > mib * MIB


@pytest.mark.parametrize(
    ("args", "steps"),
    [
        ({}, 2),
        ({"async-scheduling": False}, 1),
        # Proposals that the processor makes leave no step ahead (config/vllm.py: async_scheduling).
        ({"spec-method": "ngram", "spec-tokens": 3}, 1),
        ({"spec-method": "mtp", "spec-tokens": 3}, 2),
        ({"runner": "pooling"}, 1),
        ({"pipeline-parallel-size": 4}, 5),
        ({"pipeline-parallel-size": 4, "async-scheduling": False}, 4),
    ],
)
def test_windows_are_kept_for_every_step_under_way(args: dict[str, Any], steps: int):
    assert in_flight(args, 2048) == steps * 2048
    # Up to 0.25 one step counted, whatever was under way (v1/kv_cache_interface.py: SlidingWindowSpec).
    assert in_flight(args, 2048, defaults_of("0.20.0")) == 2048


def test_older_engines_report_what_each_group_could_hold():
    # 0.20 (v1/core/kv_cache_utils.py): blocks ÷ groups × tokens of a block.
    assert pool_of(OSS, {}, 8192, defaults_of("0.20.0")).tokens(10 * GIB, 131_072) == 27_306 // 2 * 16
    # 0.17 made equal groups of 12 and 13 layers (1.25 times), and not of 10 and 14.
    uneven = dataclasses.replace(OSS, sliding_layers=10)
    blocks = [pool_of(uneven, {}, 0, defaults_of(version)).block_bytes for version in ("0.17.0", "0.18.0")]
    assert blocks == [10 * 16 * 2048, 14 * 16 * 2048]


def test_stages_share_out_each_group():
    assert pool_of(GEMMA_3, {"pipeline-parallel-size": 2}, 2048).block_bytes == 5 * 16 * 8192


def test_a_request_of_gemma_4_takes_half_for_layers_that_attend_to_everything():
    # gemma4.py:578 takes both numbers of heads from the configuration of the layer: 4 × 512 beside 16 × 256.
    model = read(GEMMA_4, weights_bytes=62_500_000_000)
    result = fit(model, H200, {"max-model-len": 32_768})
    assert result.kv_bytes_per_token == 50 * 16_384 + 10 * 8_192
    assert result.kv_needed_gib == pytest.approx(16_958_095_360 / GIB, abs=0.01)
    # Heads of both kinds must be shared out: 16 and 4.
    assert splits(read(GEMMA_4, heads=24), 8) == [1, 2, 4, 8]
    assert splits(read(GEMMA_4, heads=24, full_kv_heads=3), 8) == [1]


@pytest.mark.parametrize(("window", "tokens"), [(None, 32_768), (4096, 4096)])
def test_without_windows_the_context_is_the_window_and_all_layers_keep_it(window: int | None, tokens: int):
    # config/model.py: the window is the longest context, and no layer has one any more.
    mistral = dataclasses.replace(
        QWEN, layers=32, heads=32, kv_heads=8, weights_bytes=14 * GIB, max_position=32_768, hidden=4096,
        sliding_window=window, sliding_layers=32 if window else 0,
    )  # fmt: skip
    result = fit(mistral, H100, {"disable-sliding-window": True})
    assert (result.max_model_len, result.max_context) == (tokens, tokens)
    assert result.kv_needed_gib == pytest.approx(tokens * 131_072 / GIB, abs=0.01)
    assert result.kv_tokens == pytest.approx(result.kv_gib * GIB / 131_072, rel=0.01)
    assert fit(mistral, H100, {}).max_model_len == 32_768


@pytest.mark.parametrize(
    ("gpu", "version", "tokens"),
    # engine/arg_utils.py: 16,384 from 160 GiB on; 0.25 knows no such GPUs.
    [(B200, "0.32.0", 16_384), (B200, "0.20.0", 8192), (H200, "0.32.0", 8192), (L4, "0.32.0", 2048)],
)
def test_the_largest_gpus_take_the_largest_steps(gpu: Any, version: str, tokens: int):
    assert batched_tokens(gpu, {}, 8192, defaults_of(version)) == tokens
    assert batched_tokens(gpu, {"performance-mode": "throughput"}, 8192, defaults_of(version)) == 2 * tokens


def test_encoders_alone_keep_nothing_and_hold_a_whole_prompt_in_a_step():
    # model_executor/layers/attention/encoder_only_attention.py: get_kv_cache_spec is None.
    bge = dataclasses.replace(
        QWEN, architecture="XLMRobertaModel", layers=24, heads=16, kv_heads=16, head_dim=64, hidden=1024,
        intermediate=4096, vocab=250_002, weights_bytes=GIB, max_position=8194,
    )  # fmt: skip
    result = fit(bge, L4, {})
    assert (result.kv_bytes_per_token, result.kv_tokens, result.state) == (0, 0, FitState.FITS)
    decoder = dataclasses.replace(bge, architecture="LlamaForCausalLM")
    assert fit(decoder, L4, {}).kv_bytes_per_token == 24 * 2 * 16 * 64 * 2
    # 256 requests at once weigh more than a step of 2,048 tokens; of 8,194 the step weighs more where few run.
    few = {"max-num-seqs": 8}
    assert fit(bge, L4, few).activation_gib == fit(bge, L4, {**few, "max-num-batched-tokens": 8194}).activation_gib
    assert fit(bge, L4, few).activation_gib > 3 * fit(decoder, L4, few).activation_gib
    whisper = dataclasses.replace(decoder, encoder_decoder=True)
    assert fit(whisper, L4, few).activation_gib == fit(bge, L4, few).activation_gib
