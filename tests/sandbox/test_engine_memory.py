"""Whether a model fits is real arithmetic on real sizes."""

import pytest

from sandbox.engine import memory
from sandbox.nodes import GIB, H100, L4
from tests.sandbox.engine_support import QWEN_7B, make_args, shape_of

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"


def test_kv_bytes_per_token_of_known_models():
    assert memory.kv_bytes_per_token(make_args(), shape_of(LLAMA_8B)) == 131072
    assert memory.kv_bytes_per_token(make_args(), shape_of(QWEN_7B)) == 57344
    assert memory.kv_bytes_per_token(make_args(), shape_of("Qwen/Qwen2.5-32B-Instruct")) == 262144


def test_tensor_parallel_beyond_the_kv_heads_saves_nothing_more():
    four = memory.kv_bytes_per_token(make_args("-tp=4"), shape_of(QWEN_7B))
    assert four == 57344 / 4
    assert memory.kv_bytes_per_token(make_args("-tp=7"), shape_of(QWEN_7B)) == four


def test_fp8_cache_halves_the_bytes():
    assert memory.kv_bytes_per_token(make_args("--kv-cache-dtype=fp8"), shape_of(QWEN_7B)) == 57344 / 2


def test_an_8b_model_on_an_l4_is_near_the_published_example():
    """memory-references ref13: 14.96 GiB of weights, 4.91 GiB of KV cache at utilisation 0.92, ±1 GiB."""
    plan = memory.plan(make_args(), shape_of(LLAMA_8B), L4, 131072)

    assert plan.weights / GIB == pytest.approx(14.96, abs=0.1)
    assert plan.kv_available / GIB == pytest.approx(4.91, abs=1.0)
    assert plan.tokens == pytest.approx(plan.kv_available / 131072, abs=16)


def test_defaults_follow_the_size_of_the_gpu():
    assert memory.limits(make_args(), H100) == memory.Limits(1024, 8192)
    assert memory.limits(make_args(), L4) == memory.Limits(256, 2048)


def test_the_largest_context_fits_and_one_block_more_does_not():
    args, model = make_args(), shape_of(LLAMA_8B)
    plan = memory.plan(args, model, L4, model.context)

    most = memory.largest_context(args, model, plan, 2048)

    assert memory.kv_bytes_needed(args, model, most, 2048) <= plan.kv_available
    assert memory.kv_bytes_needed(args, model, most + 16, 2048) > plan.kv_available


def test_sliding_window_layers_hold_only_their_window():
    args, gemma = make_args(), shape_of("google/gemma-3-27b-it")

    long = memory.kv_bytes_needed(args, gemma, 131072, 8192)

    assert long < memory.kv_bytes_per_token(args, gemma) * 131072 / 4


def test_parameter_counts_follow_from_the_configuration():
    assert shape_of(LLAMA_8B).parameters == pytest.approx(8_030_261_248, rel=0.001)
    moe = shape_of("Qwen/Qwen3-30B-A3B-Instruct-2507")
    assert moe.parameters == pytest.approx(30.5e9, rel=0.01)
    assert moe.active_parameters == pytest.approx(3.3e9, rel=0.15)
