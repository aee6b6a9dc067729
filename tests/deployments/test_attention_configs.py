"""What configurations say of layers that are not all alike: windows, chunks, states, and heads of their own."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.kv import pool_of
from deployments.engine.sizing import FitState, fit
from tests.deployments.attentions import (
    DEEPSEEK,
    GEMMA_3N,
    GEMMA_4,
    GEMMA_4_SMALL,
    KIMI,
    L4,
    LLAMA_4,
    MIMO,
    STEP,
    TEXT,
    read,
)
from tests.deployments.preflighting import codes, said, the
from tests.deployments.wishes import facts_of


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
