"""Rules about the KV cache: its blocks, how many of them, and layers that keep none."""

from __future__ import annotations

import math
from collections.abc import Iterator

from deployments.engine.attention import checked_version
from deployments.engine.facts import ModelFacts
from deployments.engine.host import OFFLOADED_CACHE
from deployments.engine.kv import block_of
from deployments.engine.kv_layers import Keeps, layers_of, one_cache
from deployments.findings import Finding, arg_pointer, error, warning
from deployments.preflight.model import gives_embeddings
from deployments.preflight.rules import Case, Rules, plural

rules = Rules()

# Block sizes that the attention kernels of NVIDIA GPUs take.
BLOCKS = (16, 32, 64, 128, 256)
# Families that vLLM lets see whole prompts whatever their configuration says (model_executor/models/config.py).
BOTH_WAYS = ("EmbeddingGemma2", "LlamaBidirectional", "LlamaNemotronVL", "Siglip", "VoyageQwen3Bidirectional")


@rules.rule
def caches_of_a_kind(case: Case) -> Iterator[Finding]:
    """Layers that keep a state cannot be given the cache of those that keep tokens."""
    model = case.model
    if one_cache(case.spec.engine.args) and model is not None and model.linear_layers:
        yield error(
            "cache_hybrid",
            arg_pointer("disable-hybrid-kv-cache-manager"),
            f"{plural(model.linear_layers, 'layer')} of {model.id} keep a state in place of a KV cache: without the "
            "manager of different caches the engine would not start.",
            "Leave disable-hybrid-kv-cache-manager out.",
            False,
        )


@rules.rule
def cache_in_main_memory(case: Case) -> Iterator[Finding]:
    """Main memory stands behind a KV cache that a connector can move, in blocks that are found again."""
    model, pointer = case.model, arg_pointer(OFFLOADED_CACHE)
    if OFFLOADED_CACHE not in case.spec.engine.args or model is None:
        return
    if model.encoder_decoder:
        yield error(
            "offload_encoder",
            pointer,
            f"{model.id} has an encoder and a decoder: vLLM moves no KV cache of such models to main memory, and would "
            "not start.",
            f"Leave {OFFLOADED_CACHE} out.",
        )
    elif _keeps_none(case, model):
        yield error(
            "offload_no_cache",
            pointer,
            f"{model.id} reads each prompt whole and keeps no KV cache: there is nothing to move to main memory, and "
            "the engine would not start.",
            f"Leave {OFFLOADED_CACHE} out.",
        )
    elif model.linear_layers and model.attending and case.arg("enable-prefix-caching") is False:
        # Blocks of both kinds are cut alike for prefix caching alone, and main memory is filled by its keys.
        checked = case.version == checked_version()
        yield (error if checked else warning)(
            "offload_unaligned",
            arg_pointer("enable-prefix-caching"),
            f"{plural(model.linear_layers, 'layer')} of {model.id} keep a state beside the KV cache of the others: "
            f"without prefix caching their blocks do not match, and with {OFFLOADED_CACHE} the engine "
            f"{'would not start' if checked else 'may not start'}.",
            f"Leave enable-prefix-caching on, or {OFFLOADED_CACHE} out.",
            True,
        )


def _keeps_none(case: Case, model: ModelFacts) -> bool:
    """True where every layer sees the whole prompt at once: encoders, and decoders made both ways for embeddings."""
    both_ways = model.both_ways or model.architecture.startswith(BOTH_WAYS)
    return model.is_encoder or (both_ways and gives_embeddings(case))


@rules.rule
def cache_blocks(case: Case) -> Iterator[Finding]:
    """So many blocks of KV cache must hold one request of full length."""
    count, length = case.whole("num-gpu-blocks-override"), case.context
    if count is None or count < 1 or not length:
        return
    block = block_of(case.spec.engine.args) * (case.whole("decode-context-parallel-size") or 1)
    needed = math.ceil(length / block)
    if count < needed:
        yield error(
            "cache_blocks",
            arg_pointer("num-gpu-blocks-override"),
            f"{plural(count, 'block')} of {block} tokens hold {count * block:,}; one request of {length:,} tokens "
            f"needs {needed:,}.",
            f"Leave it out: the engine measures what it has. Or use at least {needed:,}.",
            needed,
        )
    elif (most := _most_blocks(case)) and count > most:
        yield error(
            "cache_blocks_memory",
            arg_pointer("num-gpu-blocks-override"),
            f"{count:,} blocks of {block} tokens take more memory than weights and engine leave: about {most:,} do "
            "fit, and the engine takes as many as it is told to.",
            "Leave it out: the engine measures what it has.",
            most,
        )


def _most_blocks(case: Case) -> int | None:
    """Blocks of KV cache that the whole GPU holds beside weights and engine; None where that is not known."""
    estimate, model, args = case.estimate, case.model, case.spec.engine.args
    if estimate is None or model is None or any(kind.keeps is not Keeps.ALL for kind in layers_of(model, args)):
        return None  # With caches of several kinds a block is not one size.
    each = estimate.kv_bytes_per_token * block_of(args)
    return estimate.most_bytes // each if each else None


@rules.rule
def blocks(case: Case) -> Iterator[Finding]:
    """Attention kernels take blocks of a few sizes."""
    size = case.whole("block-size")
    if size is not None and 1 <= size <= BLOCKS[-1] and size not in BLOCKS:
        near = min(BLOCKS, key=lambda item: abs(item - size))
        yield warning(
            "block_size",
            arg_pointer("block-size"),
            f"Blocks of {size} tokens: most attention kernels take {', '.join(map(str, BLOCKS))} only.",
            f"Use {near}, or leave it out.",
            near,
        )
