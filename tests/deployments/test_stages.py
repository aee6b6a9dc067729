"""Stages: which layers each has, and the weights of the one that has most."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.gpus import gpu_facts
from deployments.engine.sizing import FitState, fit
from deployments.engine.stages import heaviest_stage, layers_of_stages
from deployments.sources.huggingface import model_facts

L4 = gpu_facts("NVIDIA-L4")
# Llama 3.1 70B.
LLAMA = ModelFacts(
    id="meta-llama/Llama-3.1-70B-Instruct",
    weights_bytes=141_107_520_520,
    layers=80,
    heads=64,
    kv_heads=8,
    head_dim=128,
    hidden=8192,
    intermediate=28_672,
    vocab=128_256,
    max_position=131_072,
)
TABLE = 128_256 * 8192 * 2
BODY = LLAMA.weights_bytes - 2 * TABLE if LLAMA.weights_bytes else 0


@pytest.mark.parametrize(
    ("layers", "stages", "counts"),
    # vLLM, distributed/utils.py: get_pp_indices.
    [(80, 8, [10] * 8), (62, 4, [15, 16, 16, 15]), (61, 2, [31, 30]), (5, 4, [1, 1, 2, 1]), (32, 1, [32])],
)
def test_layers_are_shared_out_as_the_engine_does(layers: int, stages: int, counts: list[int]):
    assert layers_of_stages(layers, stages) == counts


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        # Ten layers and the embeddings: 17.9 GiB, where an even share is 16.4.
        ({"pipeline-parallel-size": 8}, BODY / 8 + TABLE),
        ({"pipeline-parallel-size": 2, "tensor-parallel-size": 4}, (BODY / 2 + TABLE) / 4 * 1.015),
        # Without stages embeddings and output layer lie on every GPU of the split.
        ({"tensor-parallel-size": 8}, (BODY + 2 * TABLE) / 8 * 1.015),
    ],
)
def test_the_first_stage_has_the_embeddings_besides(args: dict[str, Any], expected: float):
    assert fit(LLAMA, L4, {"max-model-len": 4096, **args}).weights_gib == pytest.approx(expected / GIB, abs=0.01)


def test_seventy_billion_on_eight_stages_of_l4_are_tight():
    # Said to fit with more than 1 GiB to spare, where hardly anything is left.
    result = fit(LLAMA, L4, {"pipeline-parallel-size": 8, "max-model-len": 16_384})
    assert result.state is FitState.TIGHT
    assert result.free_gib < 0.3


def test_a_middle_stage_is_the_heaviest_where_it_has_more_layers_than_tables_weigh():
    assert heaviest_stage(620, 1, 62, 4) == 160
    assert heaviest_stage(620, 30, 62, 4) == 180


def test_tied_embeddings_lie_on_both_ends():
    tied = dataclasses.replace(LLAMA, tied=True)
    assert fit(tied, L4, {"max-model-len": 4096, "pipeline-parallel-size": 8}).weights_gib == pytest.approx(
        ((LLAMA.weights_bytes or 0) - TABLE) / 8 / GIB + TABLE / GIB, abs=0.01
    )


def test_where_the_shape_of_the_tables_is_not_known_stages_share_evenly():
    unknown = dataclasses.replace(LLAMA, vocab=None)
    result = fit(unknown, L4, {"max-model-len": 4096, "pipeline-parallel-size": 8})
    assert result.weights_gib == pytest.approx((LLAMA.weights_bytes or 0) / 8 * 1.015 / GIB, abs=0.01)


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"model_type": "llama"}, False),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, True),
        ({"model_type": "gemma2"}, True),
        ({"model_type": "gemma2", "tie_word_embeddings": False}, False),
        ({"model_type": "llama", "tie_word_embeddings": True}, True),
    ],
)
def test_what_a_configuration_leaves_out_is_what_its_family_does(config: dict[str, Any], tied: bool):
    assert model_facts("org/model", {}, config).tied is tied
