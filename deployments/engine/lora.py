"""LoRA adapters as vLLM holds them: the ranks it takes, how many fit a step, and the memory they take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.kv_layers import whole, width_of
from deployments.spec import ArgValue

# What --max-lora-rank takes.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
USUAL_RANK = 16
# Adapters that one step of the engine may use; more take turns.
MOST_AT_ONCE = 4
# Families of which adapters may change the embeddings and the output layer, too (`embedding_modules`).
WITH_TABLES = (
    *("Apertus", "Exaone", "FalconH1", "Granite", "HyperCLOVAX", "Jamba", "K2Horizon", "Lfm2", "Llama", "MiniCPM"),
    *("Mixtral", "Nemotron", "Param2MoE", "PhiMoE", "PhiMoe", "Qwen3", "Solar"),
)
# Families whose experts have one matrix before the activation, where others have a gate beside it
# (`is_non_gated_moe`), and those that are stored with both in one (`is_3d_moe_weight`).
UNGATED = ("NemotronH",)
JOINED = ("GptOss", "InternS1Pro", "Qwen3OmniMoe", "Qwen3VLMoe", "Qwen3_5Moe")


def rank_for(rank: int) -> int | None:
    """The least rank that vLLM can be told of and that covers this one; None beyond the largest."""
    return next((item for item in RANKS if item >= rank), None)


class Ranked(Protocol):
    """An adapter of which the rank may be known."""

    @property
    def rank(self) -> int | None:
        """The width of its matrices."""


@dataclass(frozen=True)
class Slots:
    """The room that an engine makes for adapters: for how many, and how wide each may be."""

    adapters: int
    rank: int = USUAL_RANK


def lora_rank(adapters: Mapping[str, Ranked]) -> int:
    """The rank that the engine makes room for: the largest of the adapters, as far as they are known."""
    ranks = [each.rank for each in adapters.values() if each.rank is not None]
    return rank_for(max(ranks, default=USUAL_RANK)) or RANKS[-1]


def at_once(adapters: int) -> int:
    """How many adapters one step may use."""
    return min(max(adapters, 1), MOST_AT_ONCE)


def lora_gib(model: ModelFacts, slots: Slots, args: Mapping[str, ArgValue]) -> float:
    """GPU memory of the slots for adapters, in GiB per GPU; 0 where the shape is not known.

    As `create_lora_weights` in vLLM's lora/layers: each slot has two narrow matrices for every linear layer, in the
    numbers that the engine computes in. Of GPUs that share a layer, each holds a part of its split side, and the other
    side whole.
    """
    shape = (model.layers, model.hidden, model.heads, model.intermediate or model.expert_intermediate)
    if not slots.adapters or not all(shape) or not (model.is_mla or model.head_dim):
        return 0.0
    layers, stages = model.layers or 0, whole(args, "pipeline-parallel-size", 1)
    sparse = max(0, layers - model.dense_layers) if _expert_width(model) else 0
    attention = _latent(model, args) if model.is_mla else _attention(model, args)
    dense = _mlp(model, model.intermediate or 0, whole(args, "tensor-parallel-size", 1))
    mlps = (layers - sparse) * dense + (sparse * _experts(model, args) if sparse else 0)
    widths = (layers * attention + mlps) * math.ceil(layers / stages) / layers + _tables(model)
    return at_once(slots.adapters) * slots.rank * widths * width_of(model, args) / GIB


def _expert_width(model: ModelFacts) -> int:
    return (model.expert_intermediate or model.intermediate or 0) if model.experts else 0


def _attention(model: ModelFacts, args: Mapping[str, ArgValue]) -> float:
    """Rows and columns of queries, keys, values and output; with more GPUs than KV heads each has a copy of one."""
    split, hidden, heads = whole(args, "tensor-parallel-size", 1), model.hidden or 0, model.heads or 0
    size, keys = model.head_dim or 0, max(1.0, (model.kv_heads or heads) / split)
    return 4 * hidden + 2 * heads * size / split + 2 * keys * size


def _latent(model: ModelFacts, args: Mapping[str, ArgValue]) -> float:
    """The same of latent attention: what leads to the latents is not split."""
    split, hidden, heads = whole(args, "tensor-parallel-size", 1), model.hidden or 0, (model.heads or 0)
    latent, rope = model.kv_lora_rank or 0, model.rope_head_dim or 0
    plain = model.nope_head_dim or model.head_dim or 0
    values = model.v_head_dim or plain
    rank = model.q_lora_rank
    before = hidden + rank + rank if rank else hidden
    queries = before + heads * (plain + rope) / split
    keys = hidden + latent + rope + latent + heads * (plain + values) / split
    return queries + keys + heads * values / split + hidden


def _mlp(model: ModelFacts, width: int, split: int) -> float:
    """Rows and columns of the three layers of one MLP."""
    return 3 * ((model.hidden or 0) + width / split)


def _experts(model: ModelFacts, args: Mapping[str, ArgValue]) -> float:
    """Those of a layer's experts on one GPU, of what every token meets beside them, and of the router.

    All GPUs of a replica share out its experts: whole ones with expert parallelism, else parts of each.
    """
    split, hidden, width = whole(args, "tensor-parallel-size", 1), model.hidden or 0, float(_expert_width(model))
    group, local = split * whole(args, "data-parallel-size", 1), model.experts
    if args.get("enable-expert-parallel") is True:
        local = math.ceil(local / group)
    else:
        width /= group
    sides = (3, 3)
    if model.architecture.startswith(UNGATED):
        sides = (2, 2)
    elif model.architecture.startswith(JOINED):
        sides = (2, 3)
    beside = _mlp(model, model.shared_intermediate, split) if model.shared_intermediate else 0
    return local * (sides[0] * hidden + sides[1] * width) + beside + hidden + model.experts


def _tables(model: ModelFacts) -> int:
    """Rows and columns of the embeddings and of the output layer, of which every GPU holds all."""
    if not model.architecture.startswith(WITH_TABLES):
        return 0
    return 2 * ((model.vocab or 0) + (model.hidden or 0))
