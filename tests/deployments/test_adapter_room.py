"""The room for LoRA adapters, held against the buffers that vLLM 0.32.0 makes (lora/layers, `create_lora_weights`)."""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import pytest

from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.lora import Slots, lora_gib
from deployments.engine.options import options
from deployments.engine.sizing import FitState, Sizer, fit
from tests.deployments.wishes import H100, LLAMA

QWEN = ModelFacts(
    "Qwen/Qwen3-30B-A3B",
    architecture="Qwen3MoeForCausalLM",
    layers=48,
    hidden=2048,
    heads=32,
    kv_heads=4,
    head_dim=128,
    intermediate=6144,
    experts=128,
    expert_intermediate=768,
    vocab=151_936,
    max_position=40_960,
    weights_bytes=61_064_245_248,
)
DEEPSEEK = ModelFacts(
    "deepseek-ai/DeepSeek-V2-Lite",
    architecture="DeepseekV2ForCausalLM",
    layers=27,
    hidden=2048,
    heads=16,
    kv_heads=16,
    head_dim=192,
    intermediate=10_944,
    experts=64,
    expert_intermediate=1408,
    shared_intermediate=2816,
    dense_layers=1,
    vocab=102_400,
    kv_lora_rank=512,
    rope_head_dim=64,
    nope_head_dim=128,
    v_head_dim=128,
)
TP, DP, EP = "tensor-parallel-size", "data-parallel-size", "enable-expert-parallel"


def size(shapes: list[tuple[int, ...]]) -> int:
    """Bytes of so many tensors in 16 bits."""
    return sum(2 * prod(shape) for shape in shapes)


def of_experts(slots: int, local: int, rank: int, hidden: int, width: int) -> list[tuple[int, ...]]:
    """`FusedMoEWithLoRA._create_lora_a_weights` and `_create_lora_b_weights`."""
    first = [(slots, local, rank, hidden), (slots, local, width, rank)] * 2
    return [*first, (slots, local, rank, width), (slots, local, hidden, rank)]


def of_qwen(slots: int, rank: int, split: int, local: int, width: int) -> int:
    """All buffers of Qwen3-30B-A3B: `width` of `local` experts on each GPU, of `split` that share the attention."""
    queries, keys = 32 * 128 // split, max(1, 4 // split) * 128
    layer = [
        *[(slots, 1, rank, 2048)] * 3,
        *[(slots, 1, out, rank) for out in (queries, keys, keys)],
        (slots, 1, rank, queries),
        (slots, 1, 2048, rank),
        (slots, 1, rank, 2048),
        (slots, 1, 128, rank),
        *of_experts(slots, local, rank, 2048, width),
    ]
    tables = [(slots, 151_936, rank), (slots, 1, 2048, rank), (slots, 1, rank, 2048), (slots, 1, 151_936, rank)]
    return 48 * size(layer) + size(tables)


@pytest.mark.parametrize(
    ("args", "split", "local", "width"),
    [
        ({}, 1, 128, 768),
        ({TP: 2}, 2, 128, 384),
        ({TP: 4}, 4, 128, 192),
        ({TP: 8}, 8, 128, 96),
        # Whole experts, fewer of them.
        ({TP: 2, EP: True}, 2, 64, 768),
        ({TP: 4, EP: True}, 4, 32, 768),
        # Engines of a replica share out the experts, and have the attention each.
        ({DP: 4, EP: True}, 1, 32, 768),
        ({TP: 2, DP: 2}, 2, 128, 192),
    ],
)
@pytest.mark.parametrize(("adapters", "rank"), [(4, 16), (1, 64), (8, 64)])
def test_every_expert_of_a_gpu_has_slots_of_its_own(
    args: dict[str, Any], split: int, local: int, width: int, adapters: int, rank: int
):
    expected = of_qwen(min(adapters, 4), rank, split, local, width)
    assert lora_gib(QWEN, Slots(adapters, rank), args) == pytest.approx(expected / GIB, rel=1e-9)


def test_slots_of_experts_are_most_of_it():
    experts = 48 * size(of_experts(4, 128, 16, 2048, 768)) / GIB
    assert (round(experts, 1), round(4 * experts, 1)) == (6.2, 24.8)
    assert lora_gib(QWEN, Slots(4, 16), {}) == pytest.approx(6.34, abs=0.005)
    assert lora_gib(QWEN, Slots(4, 64), {}) == pytest.approx(25.35, abs=0.01)
    # As the engine computes: twice as much in 32 bits.
    assert lora_gib(QWEN, Slots(4, 16), {"dtype": "float32"}) == 2 * lora_gib(QWEN, Slots(4, 16), {})


def test_what_has_no_room_for_adapters_does_not_fit_and_fits_where_it_is_spread():
    assert fit(QWEN, H100.gpu, {}).state is FitState.FITS
    sizer = Sizer(QWEN, slots=Slots(4, 64))
    assert sizer.fit(H100.gpu, {}).state is FitState.NO
    wider = next(way for way in options(sizer, H100.gpu, {}, gpus_per_node=8) if way.pointer.endswith(TP))
    assert wider.value == 2
    assert wider.fit.overhead_gib < sizer.fit(H100.gpu, {}).overhead_gib


@pytest.mark.parametrize("split", [1, 4])
def test_latent_attention_shared_experts_and_dense_layers(split: int):
    """DeepSeek-V2-Lite has no rank of its queries, one dense layer, and experts that every token meets."""
    heads = 16 // split
    attention = [
        *((1, 16, 2048), (1, heads * 192, 16)),
        *((1, 16, 2048), (1, 512 + 64, 16)),
        *((1, 16, 512), (1, heads * 256, 16)),
        *((1, 16, heads * 128), (1, 2048, 16)),
    ]

    def mlp(width: int) -> list[tuple[int, ...]]:
        return [*[(1, 16, 2048), (1, width, 16)] * 2, (1, 16, width), (1, 2048, 16)]

    sparse = [*of_experts(1, 64, 16, 2048, 1408 // split), *mlp(2816 // split), (1, 16, 2048), (1, 64, 16)]
    expected = 27 * size(attention) + size(mlp(10_944 // split)) + 26 * size(sparse)
    assert lora_gib(DEEPSEEK, Slots(1, 16), {TP: split}) == pytest.approx(expected / GIB, rel=1e-9)


def test_queries_with_a_rank_go_through_it():
    """One fused layer leads to both latents, `DeepSeekV2FusedQkvAProjLinear`, which no GPU has a part of."""
    ranked = dataclasses.replace(DEEPSEEK, q_lora_rank=1536)
    for split in (1, 4):
        added = [(1, 1536, 16), (1, 16, 1536)]  # Columns of the first layer, rows of the second.
        expected = 27 * size([*added, (1, 16, 2048)]) - 27 * size([(1, 16, 2048)])
        more = lora_gib(ranked, Slots(1, 16), {TP: split}) - lora_gib(DEEPSEEK, Slots(1, 16), {TP: split})
        assert more == pytest.approx(expected / GIB, rel=1e-6)


def test_stages_hold_their_own_layers():
    whole, halved = (lora_gib(DEEPSEEK, Slots(1), {"pipeline-parallel-size": count}) for count in (1, 2))
    assert halved / whole == pytest.approx(14 / 27)


@pytest.mark.parametrize(
    ("architecture", "first"),
    [
        ("MixtralForCausalLM", (2, 2)),
        # `FusedMoE3DWithLoRA`: one matrix leads to gate and up; without a gate there is up alone.
        ("GptOssForCausalLM", (1, 2)),
        ("NemotronHForCausalLM", (1, 1)),
    ],
)
def test_matrices_before_the_activation(architecture: str, first: tuple[int, int]):
    model = dataclasses.replace(QWEN, architecture=architecture, vocab=0)
    down, up = first
    shapes = [*[(1, 128, 16, 2048)] * down, *[(1, 128, 768, 16)] * up, (1, 128, 16, 768), (1, 128, 2048, 16)]
    without = dataclasses.replace(model, experts=0, intermediate=0, expert_intermediate=8)
    router = size([(1, 16, 2048), (1, 128, 16)])
    empty = 48 * size([*[(1, 16, 2048)] * 2, (1, 2048, 16)])
    found = lora_gib(model, Slots(1), {}) - lora_gib(without, Slots(1), {})
    assert found == pytest.approx((48 * (size(shapes) + router) - empty) / GIB, rel=1e-9)


def test_models_without_experts_share_out_one_side():
    """Of Llama 8B each of four GPUs holds the narrow side whole, and a quarter of the wide one."""
    qkv = [*[(1, 16, 4096)] * 3, (1, 1024, 16), (1, 256, 16), (1, 256, 16)]
    rest = [(1, 16, 1024), (1, 4096, 16), *[(1, 16, 4096), (1, 3584, 16)] * 2, (1, 16, 3584), (1, 4096, 16)]
    model = dataclasses.replace(LLAMA, vocab=0, architecture="Qwen2ForCausalLM")
    assert lora_gib(model, Slots(1, 16), {TP: 4}) == pytest.approx(32 * size(qkv + rest) / GIB, rel=1e-9)
    assert lora_gib(dataclasses.replace(model, layers=None), Slots(1), {}) == 0
