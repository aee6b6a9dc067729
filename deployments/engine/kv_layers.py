"""What each layer keeps of a token in the KV cache: by the kind of layer, the format of the cache and the split.

Bytes are those of one token in one layer on one GPU, as vLLM's KVCacheSpec counts them (v1/kv_cache_interface.py, and
`customize_spec` of its attention backends for packed formats).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from deployments.engine.defaults import Defaults
from deployments.engine.facts import ModelFacts
from deployments.spec import ArgValue

KV_BYTES = {
    "auto": 0.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "fp8_inc": 1.0,
    "fp8_ds_mla": 1.0,
    "int8_per_token_head": 1.0,
    "fp8_per_token_head": 1.0,
    "int4_per_token_head": 0.5,
    "nvfp4": 0.5625,
    "nvfp4_4over6": 0.5625,
    "nvfp4_ds_mla": 0.5625,
}
DTYPE_BYTES = {"float32": 4.0, "float": 4.0, "float16": 2.0, "half": 2.0, "bfloat16": 2.0}
# Beside each token and head of these formats stand two scales of four bytes.
SCALES = 8.0
# Of latent attention: layouts with scales and the rotary part within.
FP8_LATENT = "fp8_ds_mla"
LATENT_BYTES = {FP8_LATENT: 656.0, "nvfp4_ds_mla": 352.0}
# Keys to choose by are kept in 8 bits, with a scale of four bytes for so many numbers.
INDEX_BLOCK, INDEX_SCALE = 128, 4
# Packed keys and values of one head: bits of a key and of a value, and the bytes of their norms and scales.
PACKED: dict[str, tuple[float, float, int]] = {
    "turboquant_k8v4": (8, 4, 0 + 4),
    "turboquant_4bit_nc": (4, 4, 2 + 4),
    "turboquant_k3v4_nc": (3, 4, 2 + 4),
    "turboquant_3bit_nc": (3, 3, 2 + 4),
    # A scale of one byte for 32 numbers.
    "ultraquant_4bit": (4.25, 4.25, 0),
}
# So many layers at each end are not packed.
ENDS = 2
ONE_CACHE = "disable-hybrid-kv-cache-manager"


class Keeps(StrEnum):
    """Of which tokens a layer keeps keys and values."""

    ALL = "all"
    WINDOW = "window"
    CHUNK = "chunk"


@dataclass(frozen=True)
class Layers:
    """Layers that keep the same: how many, the bytes of a token in each, and the reach of those that keep a part."""

    count: int
    each: float
    keeps: Keeps = Keeps.ALL
    reach: int = 0


def layers_of(model: ModelFacts, args: Mapping[str, ArgValue]) -> list[Layers]:
    """The layers with a cache, by what they keep; those with most reach first."""
    kinds = _latents(model, args) if model.is_mla else _heads(model, args)
    found = [kind for kind in kinds if kind.count]
    if one_cache(args) and any(kind.keeps is Keeps.ALL for kind in found):
        # Without the manager of different caches, layers with a window keep as much as the others beside them.
        found = [Layers(kind.count, kind.each) for kind in found]
    return found


def one_cache(args: Mapping[str, ArgValue]) -> bool:
    """True where all layers are told to keep the same kind of cache."""
    return args.get(ONE_CACHE) is True


def whole(args: Mapping[str, ArgValue], name: str, default: int) -> int:
    """A flag as a whole number from 1 up; the default for anything else."""
    value = args.get(name)
    # Flags that are left out come first: an estimate asks for twenty.
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        return default
    return int(value)


def cache_dtype(model: ModelFacts, args: Mapping[str, ArgValue]) -> str:
    """The format of the KV cache: the one asked for, else the one that the weights ask for, else auto."""
    asked = str(args.get("kv-cache-dtype", "auto"))
    return model.cache_dtype or asked if asked == "auto" else asked


def as_served(
    model: ModelFacts, args: Mapping[str, ArgValue], capability: float, defaults: Defaults
) -> Mapping[str, ArgValue]:
    """The flags with the format that kernels for a choice of tokens make of the one asked for.

    As `_canonicalize_sparse_mla_kv_cache_dtype` (model_executor/layers/attention/mla_attention.py) and the order of
    kernels in platforms/cuda.py; 0 as capability: not known.
    """
    kind = cache_dtype(model, args)
    if not model.is_sparse or kind in LATENT_BYTES:
        return args
    generation, asked = int(capability), args.get("attention-backend")
    if defaults.glm_fp8 and kind == "auto" and generation == 10 and model.architecture.startswith("GlmMoeDsa"):
        kind = "fp8_e4m3"
    if generation == 12 and kind == "auto":
        kind = FP8_LATENT
    if kind.startswith("fp8") and (
        defaults.deepseek_fp8
        or asked == "FLASHMLA_SPARSE"
        or generation in {9, 12}
        or (generation == 10 and asked is None and not defaults.flashinfer_fp8)
    ):
        kind = FP8_LATENT
    return {**args, "kv-cache-dtype": kind}


def width_of(model: ModelFacts, args: Mapping[str, ArgValue]) -> float:
    """Bytes of a number as the engine computes; what is stored in 32 bits it takes in 16, unless it is told to."""
    asked = DTYPE_BYTES.get(str(args.get("dtype", "auto")))
    return asked or min(2.0, DTYPE_BYTES.get(model.dtype, 2.0))


def _latents(model: ModelFacts, args: Mapping[str, ArgValue]) -> Iterator[Layers]:
    """One latent for all heads: the same on every rank, so a larger tensor-parallel size saves nothing."""
    kind, shared = cache_dtype(model, args), whole(args, "decode-context-parallel-size", 1)
    width = KV_BYTES.get(kind, 0.0) or width_of(model, args)
    rope = 64 if model.rope_head_dim is None else model.rope_head_dim
    latent = LATENT_BYTES.get(kind) or ((model.kv_lora_rank or 0) + rope) * width
    yield Layers(model.attending, latent / shared)
    if model.index_head_dim:
        key = model.index_head_dim + model.index_head_dim // INDEX_BLOCK * INDEX_SCALE
        yield Layers(min(model.attending, model.index_layers), key / shared)


def _heads(model: ModelFacts, args: Mapping[str, ArgValue]) -> Iterator[Layers]:
    kind, total = cache_dtype(model, args), model.attending
    window, chunk = model.sliding_window or 0, model.attention_chunk or 0
    sliding = min(total, model.sliding_layers) if window else 0
    chunked = min(total - sliding, model.chunked_layers) if chunk else 0
    full = total - sliding - chunked
    plain = min(full, _ends(model)) if kind in PACKED else 0
    if full > plain:
        yield Layers(full - plain, _head_bytes(model, args, kind, full=True))
    if plain:
        yield Layers(plain, _head_bytes(model, args, "auto", full=True))
    if sliding:
        yield Layers(sliding, _head_bytes(model, args, kind), Keeps.WINDOW, window)
    if chunked:
        yield Layers(chunked, _head_bytes(model, args, kind), Keeps.CHUNK, chunk)


def _ends(model: ModelFacts) -> int:
    """Layers with a cache that stays as it is where others are packed: the outermost, but for hybrid models none.

    As `TurboQuantConfig.get_boundary_skip_layers` (model_executor/layers/quantization/turboquant/config.py).
    """
    if model.linear_layers:
        return 0
    ends = min(ENDS, (model.layers or 0) // 2)
    return ends + max(0, ends - model.shared_layers)


def _head_bytes(model: ModelFacts, args: Mapping[str, ArgValue], kind: str, *, full: bool = False) -> float:
    """Keys and values of one token in a layer, over the heads of one GPU."""
    there, keys, values = model.kv_heads or 1, model.head_dim or 0, model.value_head_dim
    if full:
        there, keys = model.full_kv_heads or there, model.full_head_dim or keys
        values = model.full_value_head_dim or (values if model.full_head_dim is None else None)
    # GPUs that share the context hold a part of each request's tokens.
    heads = max(1, there // whole(args, "tensor-parallel-size", 1)) / whole(args, "decode-context-parallel-size", 1)
    if kind in PACKED:
        return heads * _packed(kind, keys, values or keys)
    width = KV_BYTES.get(kind, 0.0) or width_of(model, args)
    scales = SCALES if kind.endswith("_per_token_head") else 0.0
    return heads * ((keys + (values or keys)) * width + scales)


def _packed(kind: str, keys: int, values: int) -> int:
    """Bytes of one head's slot, as `TurboQuantConfig.slot_size_aligned` counts them."""
    key_bits, value_bits, beside = PACKED[kind]
    slot = math.ceil(keys * key_bits / 8) + math.ceil(values * value_bits / 8) + beside
    return slot + slot % 2
