"""What a model's configuration says of its attention layers: heads, windows, chunks, and which of them keep a cache.

Each family is read as its implementation in vLLM reads it, with the defaults of its configuration in transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deployments.sources.checks import plain

MAX_LAYERS = 10_000
MOST = 10**15
STATE_LAYERS = frozenset({"linear_attention", "mamba", "mamba2", "conv", "recurrent"})
# Heads with keys and values of their own, as families call their number; and those that may have one for all others.
KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
ONE_HEAD = frozenset({"falcon", "RefinedWeb", "RefinedWebModel", "gpt_bigcode"})
FULL, SLIDING = "full_attention", "sliding_attention"
# Which models have one full layer in so many, where the configuration leaves it out.
_FULL_EVERY = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gemma3n_text": 5}
# Families by what the configurations of their language models are called.
_GEMMA_4, _GEMMA_3N, _LLAMA_4, _MIMO = "gemma4", "gemma3n", "llama4", "mimo_v2"
_GEMMA_4_EVERY, _GEMMA_4_HEAD, _GEMMA_3N_SHARED, _SMALL_WINDOW = 6, 512, 15, 512
_LLAMA_4_CHUNK, _LLAMA_4_EVERY = 8192, 4
_INDEX_OFFSET = 2
# Models without any attention.
_STATES_ALONE = frozenset({"mamba", "mamba2", "falcon_mamba"})
# Keys by which families say what single layers keep, each read for the families that this module knows.
_TELLING = frozenset(
    {
        "attention_other_setting",
        "attn_type_list",
        "block_configs",
        "compress_ratios",
        "hybrid_layer_pattern",
        "index_head_dim",
        "linear_attn_config",
        "per_layer_config",
        "swa_num_key_value_heads",
        "use_cla",
    }
)


def attention(text: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the attention layers, by their names in `ModelFacts`; those that nobody says are left out or None."""
    layers = number(text, "num_hidden_layers", "n_layer")
    heads = number(text, "num_attention_heads", "n_head")
    hidden = number(text, "hidden_size", "n_embd", "d_model")
    shared = _shared(text, layers)
    kinds = _kinds(text, layers)
    own = kinds[: len(kinds) - shared]
    window = _window(text)
    sliding = own.count(SLIDING) if window else 0
    chunk, chunked = _chunks(text, layers)
    facts: dict[str, Any] = {
        "layers": layers,
        "heads": heads,
        "kv_heads": _kv_heads(text, heads),
        "head_dim": number(text, "head_dim") or (hidden // heads if hidden and heads else None),
        "kv_lora_rank": number(text, "kv_lora_rank"),
        "rope_head_dim": number(text, "qk_rope_head_dim"),
        "sliding_window": window if sliding else None,
        "sliding_layers": sliding,
        "attention_chunk": chunk,
        "chunked_layers": chunked,
        "linear_layers": _linear(text, layers),
        "shared_layers": shared,
        **_indexer(text, layers),
    }
    facts |= _heads_of_kinds(text, facts)
    return {**facts, "unread": _unread(text, facts)}


def number(section: Mapping[str, Any], *names: str) -> int | None:
    """The first of the names that holds a whole number that makes sense."""
    for name in names:
        value = section.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST:
            return value
    return None


def _family(text: Mapping[str, Any]) -> str:
    return plain(text.get("model_type"))


def _kv_heads(text: Mapping[str, Any], heads: int | None) -> int | None:
    """Heads that keep keys and values: as many as there are, unless the configuration names fewer."""
    if (
        _family(text) in ONE_HEAD
        and text.get("multi_query") is True
        and text.get("new_decoder_architecture") is not True
    ):
        return 1
    own = text.get("attn_config")
    found = number(text, *KV_HEADS) or (number(own, "kv_n_heads") if isinstance(own, Mapping) else None)
    return found or heads


def _window(text: Mapping[str, Any]) -> int | None:
    """Tokens that layers with a window attend to."""
    if text.get("use_sliding_window") is False:
        return None
    family = _family(text)
    usual = _SMALL_WINDOW if family.startswith((_GEMMA_4, _GEMMA_3N)) and "sliding_window" not in text else None
    return number(text, "sliding_window", *(("sliding_window_size",) if family.startswith(_MIMO) else ())) or usual


def _kinds(text: Mapping[str, Any], layers: int | None) -> list[str]:
    """What each layer attends to, in order, as far as windows go; empty while their number is not known."""
    if not layers or layers > MAX_LAYERS:
        return []
    family, named = _family(text), text.get("layer_types")
    if isinstance(named, list):
        kinds = [plain(kind) for kind in named[:layers]]
        kinds += [FULL] * (layers - len(kinds))
        return [*kinds[:-1], FULL] if family.startswith(_GEMMA_4) else kinds
    pattern = text.get("hybrid_layer_pattern")
    if family.startswith(_MIMO) and isinstance(pattern, list):
        return [SLIDING if kind == 1 else FULL for kind in pattern[:layers]]
    every = number(text, "sliding_window_pattern") or _FULL_EVERY.get(family)
    if family.startswith(_GEMMA_4):
        every = _GEMMA_4_EVERY
    kinds = [SLIDING if not every or (at + 1) % every else FULL for at in range(layers)]
    return [*kinds[:-1], FULL] if family.startswith(_GEMMA_4) else kinds


def _shared(text: Mapping[str, Any], layers: int | None) -> int:
    """The last layers that read the cache of layers before them (Gemma 3n and 4)."""
    family = _family(text)
    if not layers or not family.startswith((_GEMMA_4, _GEMMA_3N)):
        return 0
    usual = _GEMMA_3N_SHARED if family.startswith(_GEMMA_3N) and "num_kv_shared_layers" not in text else 0
    # Where all layers would read that of others there is none to read.
    return min(number(text, "num_kv_shared_layers") or usual, layers - 1)


def _chunks(text: Mapping[str, Any], layers: int | None) -> tuple[int | None, int]:
    """The chunk within which layers with rotary positions attend, and how many do (Llama 4).

    Other families name such a chunk and do not use it.
    """
    if not layers or not _family(text).startswith(_LLAMA_4):
        return None, 0
    chunk = number(text, "attention_chunk_size") if "attention_chunk_size" in text else _LLAMA_4_CHUNK
    rotary = text.get("no_rope_layers")
    if isinstance(rotary, list) and rotary:
        count = sum(1 for kind in rotary[:layers] if kind)
    else:
        count = layers - layers // (number(text, "no_rope_layer_interval") or _LLAMA_4_EVERY)
    return (chunk, count) if chunk and count else (None, 0)


def _linear(text: Mapping[str, Any], layers: int | None) -> int:
    """How many layers keep a constant state in place of a cache: linear attention, Mamba and the like."""
    if _family(text) in _STATES_ALONE:
        return layers or 0
    named = _state_layers(text)
    if named is not None and layers:
        return sum(1 for at in range(min(layers, MAX_LAYERS)) if named(at))
    kinds = text.get("layer_types") or text.get("layers_block_type")
    if isinstance(kinds, list):
        count = sum(1 for kind in kinds[:MAX_LAYERS] if plain(kind) in STATE_LAYERS)
        return min(count, layers) if layers else count
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str) and layers:
        # As Nemotron-H writes it: a star is a layer with attention, anything else has no cache.
        return max(0, layers - pattern[:MAX_LAYERS].count("*"))
    every = number(text, "full_attention_interval", "attn_layer_period")
    return layers - layers // every if layers and every else 0


def _state_layers(text: Mapping[str, Any]) -> Callable[[int], bool] | None:
    """Which layers keep a state, where a configuration names them one by one (Kimi Linear, MiniMax Text)."""
    own = text.get("linear_attn_config")
    if isinstance(own, Mapping) and isinstance(own.get("kda_layers"), list):
        listed = {at for at in own["kda_layers"][:MAX_LAYERS] if isinstance(at, int)}
        return lambda at: at + 1 in listed
    kinds = text.get("attn_type_list")
    if isinstance(kinds, list):
        return lambda at: at < len(kinds) and kinds[at] == 0
    return None


def _unread(text: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys that say more of single layers than was understood."""
    known = {
        "attention_other_setting": _other_setting(text) is not None and facts["sliding_layers"],
        "attn_type_list": facts["linear_layers"],
        "hybrid_layer_pattern": _family(text).startswith(_MIMO),
        "index_head_dim": facts.get("index_layers"),
        "linear_attn_config": facts["linear_layers"],
        "swa_num_key_value_heads": _family(text).startswith(_MIMO),
    }
    return tuple(sorted(name for name in _TELLING if text.get(name) and not known.get(name)))


def _indexer(text: Mapping[str, Any], layers: int | None) -> dict[str, int]:
    """Layers that choose tokens by a key of their own, and its width; the others take over what these chose."""
    width = number(text, "index_head_dim")
    if not layers or layers > MAX_LAYERS or not width or not number(text, "index_topk") or not text.get("kv_lora_rank"):
        return {}
    pattern = text.get("index_topk_pattern")
    if isinstance(pattern, str | list):
        count = layers - sum(1 for kind in pattern[:layers] if kind == "S")
    else:
        every = number(text, "index_topk_freq") or 1
        offset = text.get("index_skip_topk_offset", _INDEX_OFFSET)
        begin = offset if isinstance(offset, int) and abs(offset) < MOST else _INDEX_OFFSET
        count = sum(1 for at in range(layers) if max(at - begin + 1, 0) % every == 0)
    return {"index_layers": count, "index_head_dim": width}


def _heads_of_kinds(text: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, int | None]:
    """Heads of layers that attend to everything, and of those with a window, where they are not the same."""
    family = _family(text)
    if family.startswith(_GEMMA_4):
        heads = number(text, "num_global_key_value_heads") if text.get("attention_k_eq_v") is True else None
        return _unlike(facts, heads, number(text, "global_head_dim") or _GEMMA_4_HEAD)
    if family.startswith(_MIMO) and facts["sliding_layers"]:
        values, full_values = number(text, "swa_v_head_dim"), number(text, "v_head_dim")
        small = {
            "kv_heads": number(text, "swa_num_key_value_heads") or facts["kv_heads"],
            "head_dim": number(text, "swa_head_dim") or facts["head_dim"],
            "value_head_dim": values,
        }
        return {**small, **_unlike(small, facts["kv_heads"], facts["head_dim"], full_values)}
    other = _other_setting(text)
    if other is not None and facts["sliding_layers"]:
        small = {
            "kv_heads": number(other, "num_attention_groups") or facts["kv_heads"],
            "head_dim": number(other, "head_dim") or facts["head_dim"],
        }
        return {**small, **_unlike(small, facts["kv_heads"], facts["head_dim"])}
    return {}


def _other_setting(text: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Heads of layers with a window (Step 3.5)."""
    other = text.get("attention_other_setting")
    return other if isinstance(other, Mapping) and other.get("attention_type") == SLIDING else None


def _unlike(
    others: Mapping[str, Any], heads: int | None, width: int | None, values: int | None = None
) -> dict[str, int | None]:
    """Heads of full layers as far as they are not those of the others."""
    found: dict[str, int | None] = {}
    if heads and heads != others["kv_heads"]:
        found["full_kv_heads"] = heads
    if (width and width != others["head_dim"]) or values != others.get("value_head_dim"):
        found["full_head_dim"] = width
        found["full_value_head_dim"] = values
    return found
