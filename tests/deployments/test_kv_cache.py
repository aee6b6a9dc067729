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
from deployments.engine.gpus import gpu_facts
from deployments.engine.kv import in_flight, pool_of
from deployments.engine.options import splits
from deployments.engine.sizing import FitState, batched_tokens, fit
from deployments.sources.huggingface import model_facts
from tests.deployments.preflighting import codes, said, the
from tests.deployments.wishes import facts_of

ONE_CACHE = {"disable-hybrid-kv-cache-manager": True}
TEXT: dict[str, Any] = {"hidden_size": 5120, "intermediate_size": 20480, "vocab_size": 200_000}
GEMMA_4 = {
    "architectures": ["Gemma4ForConditionalGeneration"],
    "model_type": "gemma4",
    "text_config": {
        **TEXT,
        "model_type": "gemma4_text",
        "num_hidden_layers": 60,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "num_global_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "attention_k_eq_v": True,
        "sliding_window": 1024,
        "max_position_embeddings": 262_144,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10,
    },
}
GEMMA_4_SMALL = {
    "model_type": "gemma4",
    "text_config": {
        **TEXT,
        "model_type": "gemma4_text",
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "num_kv_shared_layers": 20,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
    },
}
GEMMA_3N = {
    "model_type": "gemma3n",
    "text_config": {
        **TEXT,
        "model_type": "gemma3n_text",
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "sliding_window": 512,
    },
}
LLAMA_4 = {
    "model_type": "llama4",
    "text_config": {
        **TEXT,
        "model_type": "llama4_text",
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_chunk_size": 8192,
        "no_rope_layers": [1, 1, 1, 0] * 12,
    },
}
MIMO = {
    **TEXT,
    "model_type": "mimo_v2_flash",
    "num_hidden_layers": 48,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 192,
    "v_head_dim": 128,
    "swa_num_key_value_heads": 8,
    "swa_head_dim": 192,
    "swa_v_head_dim": 128,
    # It names a chunk and does not use it.
    "attention_chunk_size": 128,
    "sliding_window_size": 128,
    "hybrid_layer_pattern": [0, *([1] * 5 + [0]) * 7, *[1] * 4, 0],
}
STEP = {
    **TEXT,
    "model_type": "step3p5",
    "num_hidden_layers": 4,
    "num_attention_heads": 64,
    "num_attention_groups": 8,
    "head_dim": 128,
    "sliding_window": 512,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"],
    "attention_other_setting": {
        "attention_type": "sliding_attention",
        "num_attention_heads": 96,
        "num_attention_groups": 4,
        "head_dim": 128,
    },
}
DEEPSEEK = {
    "architectures": ["DeepseekV32ForCausalLM"],
    "model_type": "deepseek_v32",
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "vocab_size": 129_280,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "index_topk": 2048,
    "index_head_dim": 128,
}
GEMMA_3 = ModelFacts(
    id="google/gemma-3-27b-it",
    layers=62,
    heads=32,
    kv_heads=16,
    head_dim=128,
    sliding_window=1024,
    sliding_layers=52,
)
OSS = ModelFacts(
    id="openai/gpt-oss-20b", layers=24, heads=64, kv_heads=8, head_dim=64, sliding_window=128, sliding_layers=12
)
QWEN = ModelFacts(id="Qwen/Qwen2.5-7B-Instruct", layers=28, heads=28, kv_heads=4, head_dim=128)
L4, H100, H200, B200 = map(gpu_facts, ("NVIDIA-L4", "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-B200"))


def read(config: dict[str, Any], **changes: Any) -> ModelFacts:
    return dataclasses.replace(model_facts("org/model", {}, config), **changes)


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


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"full_kv_heads": 4, "full_head_dim": 512, "sliding_layers": 50, "shared_layers": 0}),
        # transformers, configuration_gemma4.py: 512 where nothing is said, and other KV heads only with equal values.
        ({"global_head_dim": None}, {"full_head_dim": 512}),
        ({"attention_k_eq_v": False}, {"full_kv_heads": None}),
        # One of six attends to everything where nothing is said, and the last one always.
        ({"layer_types": None, "num_hidden_layers": 61}, {"sliding_layers": 50}),
        ({"num_kv_shared_layers": 12}, {"sliding_layers": 40, "shared_layers": 12}),
    ],
)
def test_what_gemma_4_leaves_out_is_what_transformers_takes(changes: dict[str, Any], expected: dict[str, Any]):
    text = {name: value for name, value in {**GEMMA_4["text_config"], **changes}.items() if value is not None}
    found = read({**GEMMA_4, "text_config": text})
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "chunk", "layers"),
    [
        ({}, 8192, 36),
        ({"no_rope_layers": []}, 8192, 36),
        ({"no_rope_layer_interval": 2, "no_rope_layers": None}, 8192, 24),
        ({"no_rope_layers": [1] * 48}, 8192, 48),
        # Said to be none, and not said at all.
        ({"attention_chunk_size": None}, None, 0),
        ({"attention_chunk_size": 4096}, 4096, 36),
    ],
)
def test_chunks_are_read_as_llama_4_reads_them(changes: dict[str, Any], chunk: int | None, layers: int):
    found = read({**LLAMA_4, "text_config": {**LLAMA_4["text_config"], **changes}})
    assert (found.attention_chunk, found.chunked_layers) == (chunk, layers)
    assert read(MIMO).attention_chunk is None


def test_heads_of_layers_with_a_window_are_read_where_they_are_others():
    step = read(STEP)
    assert (step.kv_heads, step.full_kv_heads, step.sliding_layers) == (4, 8, 3)
    assert pool_of(step, {}).token_bytes == 3 * 4 * 512 + 8 * 512
    mimo = read(MIMO)
    assert (mimo.kv_heads, mimo.full_kv_heads, mimo.sliding_layers) == (8, 4, 39)
    assert pool_of(mimo, {}).token_bytes == (39 * 8 + 9 * 4) * (192 + 128) * 2
    assert pool_of(mimo, {"kv-cache-dtype": "fp8"}).token_bytes == (39 * 8 + 9 * 4) * (192 + 128)


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


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({}, 61),
        # models/deepseek_v2.py: a layer takes over the choice unless max(layer - offset + 1, 0) is a multiple.
        ({"index_topk_freq": 4}, 16),
        ({"index_topk_freq": 4, "index_skip_topk_offset": 3}, 17),
        ({"index_topk_pattern": "FSSS" * 15 + "F"}, 16),
        ({"index_topk": None}, 0),
    ],
)
def test_layers_that_take_over_a_choice_keep_no_key(changes: dict[str, Any], layers: int):
    found = read({**DEEPSEEK, **changes})
    assert found.index_layers == layers
    assert found.is_sparse is bool(layers)


def test_facts_that_were_stored_before_are_read_as_they_were():
    old = {name: value for name, value in read(GEMMA_4).as_json().items() if not name.startswith(("full_", "shared"))}
    found = ModelFacts.from_json({**old, "full_heads_of_tomorrow": 1})
    assert (found.full_kv_heads, found.shared_layers, found.kv_heads) == (None, 0, 16)
    assert ModelFacts.from_json(read(MIMO).as_json()) == read(MIMO)


KIMI = {
    "architectures": ["KimiLinearForCausalLM"],
    "model_type": "kimi_linear",
    "num_hidden_layers": 27,
    "num_attention_heads": 32,
    "hidden_size": 2304,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "linear_attn_config": {
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
        "kda_layers": [at for at in range(1, 28) if at not in {4, 8, 12, 16, 20, 24, 27}],
    },
}


@pytest.mark.parametrize(
    ("config", "linear", "bytes_per_token"),
    [
        # transformers_utils/configs/kimi_linear.py: is_kda_layer counts from one.
        (KIMI, 20, 7 * 1152),
        # MiniMax Text (config/model.py: attn_type_list): 1 attends, 0 keeps a state.
        (
            {
                **TEXT,
                "num_hidden_layers": 8,
                "num_attention_heads": 8,
                "head_dim": 128,
                "attn_type_list": [0] * 7 + [1],
            },
            7,
            8 * 2 * 128 * 2,
        ),
        ({**TEXT, "model_type": "mamba2", "num_hidden_layers": 64}, 64, 0),
    ],
)
def test_layers_that_keep_a_state_are_read_where_they_are_named(
    config: dict[str, Any], linear: int, bytes_per_token: int
):
    found = read(config)
    assert (found.linear_layers, found.unread) == (linear, ())
    assert pool_of(found, {}).token_bytes == bytes_per_token


def test_a_model_without_attention_is_asked_for_no_heads():
    model = read({**TEXT, "model_type": "mamba2", "num_hidden_layers": 64}, weights_bytes=5 * GIB)
    assert model.missing_shape == ()
    result = fit(model, L4, {"max-model-len": 8192})
    assert (result.state, result.kv_bytes_per_token, result.kv_needed_gib) == (FitState.FITS, 0, 0.0)
    assert read({"model_type": "mamba2"}).missing_shape == ("layers", "heads", "kv_heads", "head_dim")


@pytest.mark.parametrize(
    ("config", "unread"),
    [
        ({**DEEPSEEK, "compress_ratios": [4, 128] * 30}, ("compress_ratios",)),
        ({**TEXT, "num_hidden_layers": 8, "num_attention_heads": 8, "block_configs": [{}]}, ("block_configs",)),
        ({**DEEPSEEK, "kv_lora_rank": None, "head_dim": 128}, ("index_head_dim",)),
        ({**STEP, "attention_other_setting": {"attention_type": "full_attention"}}, ("attention_other_setting",)),
        *(({**config}, ()) for config in (GEMMA_4, GEMMA_4_SMALL, GEMMA_3N, LLAMA_4, MIMO, STEP, DEEPSEEK, KIMI)),
    ],
)
def test_what_is_not_understood_of_attention_is_told(config: dict[str, Any], unread: tuple[str, ...]):
    model = read(config, weights_bytes=4 * GIB)
    assert model.unread == unread
    assert ModelFacts.from_json(model.as_json()) == model
    found = said(facts_of(model=model), flavor="h100", args={"max-model-len": 2048})
    assert ("cache_uncertain" in codes(found)) is bool(unread)
    if unread:
        finding = the("cache_uncertain", found)
        assert unread[0] in finding.message
        assert not finding.is_error


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


def test_four_bits_with_a_scale_for_each_32_are_counted():
    # v1/attention/ops/ultraquant/format.py: 136 bytes for a head of 128.
    assert (
        pool_of(dataclasses.replace(QWEN, linear_layers=27), {"kv-cache-dtype": "ultraquant_4bit"}).token_bytes == 544
    )


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
