"""Which layers of a model have experts, and what stands beside those, as families write it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Number = Callable[..., int | None]
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Experts:
    """Experts of one layer, the width of each, of those that every token meets, and layers without any."""

    count: int = 0
    width: int | None = None
    shared_width: int = 0
    dense_layers: int = 0


def experts(text: Mapping[str, Any], layers: int | None, number: Number) -> Experts:
    """What a configuration says of its experts; `number(where, key…)` reads a number from 1 up."""
    count = number(text, "num_experts", "num_local_experts", "n_routed_experts") or 0
    width = number(text, "moe_intermediate_size")
    if not count:
        return Experts(width=width)
    shared = number(text, "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size")
    if shared is None:
        shared = (number(text, "n_shared_experts", "num_shared_experts") or 0) * (width or 0)
    return Experts(count, width, shared, _dense(text, min(layers or 0, MOST_LAYERS), number))


def _dense(text: Mapping[str, Any], layers: int, number: Number) -> int:
    first = number(text, "first_k_dense_replace") or 0
    every = text.get("moe_layer_freq")
    if isinstance(every, list):
        return sum(1 for place in range(layers) if place < len(every) and every[place] in (0, False))
    step = number(text, "moe_layer_freq") or 1
    plain = text.get("mlp_only_layers")
    named = {place for place in plain if isinstance(place, int)} if isinstance(plain, list) else set()
    sparse = number(text, "decoder_sparse_step") or 1
    with_experts = (
        place >= first and place % step == 0 and place not in named and (place + 1) % sparse == 0
        for place in range(layers)
    )
    return layers - sum(with_experts)
