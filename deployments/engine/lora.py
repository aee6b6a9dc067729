"""LoRA adapters as vLLM holds them: the ranks it takes, how many fit a step, and the memory they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from deployments.engine.facts import GIB, ModelFacts

# What --max-lora-rank takes.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
USUAL_RANK = 16
# Adapters that one step of the engine may use; more take turns.
MOST_AT_ONCE = 4


def rank_for(rank: int) -> int | None:
    """The least rank that vLLM can be told of and that covers this one; None beyond the largest."""
    return next((item for item in RANKS if item >= rank), None)


class Ranked(Protocol):
    """An adapter of which the rank may be known."""

    @property
    def rank(self) -> int | None:
        """The width of its matrices."""


def lora_rank(adapters: Mapping[str, Ranked]) -> int:
    """The rank that the engine makes room for: the largest of the adapters, as far as they are known."""
    ranks = [each.rank for each in adapters.values() if each.rank is not None]
    return rank_for(max(ranks, default=USUAL_RANK)) or RANKS[-1]


def at_once(adapters: int) -> int:
    """How many adapters one step may use."""
    return min(max(adapters, 1), MOST_AT_ONCE)


def lora_gib(model: ModelFacts, rank: int, adapters: int) -> float:
    """GPU memory of the slots for adapters, in GiB per GPU; 0 where the shape is not known.

    Each slot has two narrow matrices for every linear layer, in 16 bits. GPUs that share the layers keep the first of
    them whole, so nothing is divided here.
    """
    shape = (model.layers, model.hidden, model.heads, model.head_dim, model.intermediate)
    if not adapters or any(value is None for value in shape):
        return 0.0
    layers, hidden, heads, head_dim, intermediate = (value or 0 for value in shape)
    queries, keys = heads * head_dim, (model.kv_heads or heads) * head_dim
    widths = 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + intermediate)
    return at_once(adapters) * rank * widths * layers * 2 / GIB
