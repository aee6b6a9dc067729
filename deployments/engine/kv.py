"""The KV cache in bytes: of a token, of a request, and what a given memory holds of them.

Everything is per GPU. Layers with a sliding window keep only their window, layers without attention (linear
attention, Mamba) a constant that is left out here, and latent attention (DeepSeek) one latent for all heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from deployments.engine.facts import ModelFacts
from deployments.spec import ArgValue

BLOCK = 16
ONE_CACHE = "disable-hybrid-kv-cache-manager"
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
# One layer of DeepSeek's own fp8 layout.
FP8_LATENT = 656.0


def kv_bytes_per_token(model: ModelFacts, args: Mapping[str, ArgValue]) -> int:
    """KV cache bytes of one token on one GPU, over all layers of the rank that has most."""
    return round(_layers_on_rank(model, args) * _layer_bytes(model, args))


def kv_bytes(model: ModelFacts, args: Mapping[str, ArgValue], length: int, batch: int) -> float:
    """KV cache bytes of one request of `length` tokens on one GPU, in whole blocks; `batch` tokens are one step."""
    layers, sliding = _layers_on_rank(model, args), 0
    if model.sliding_window and windows(model, args):
        sliding = min(layers, math.floor(layers * model.sliding_layers / attending(model)))
    block = block_of(args)
    full = math.ceil(length / block) * block
    kept = min(length, (model.sliding_window or length) - 1 + batch)
    window = min(full, (math.ceil(kept / block) + 1) * block)
    return _layer_bytes(model, args) * ((layers - sliding) * full + sliding * window)


def tokens_held(model: ModelFacts, args: Mapping[str, ArgValue], available: float, length: int, batch: int) -> int:
    """Tokens that `available` bytes hold, in whole blocks; with sliding layers, those of full-length requests."""
    if available <= 0 or not attending(model):
        return 0
    if windows(model, args):
        return int(available / kv_bytes(model, args, length, batch) * length)
    block = block_of(args)
    return int(available // (block * kv_bytes_per_token(model, args))) * block


def largest_context(model: ModelFacts, args: Mapping[str, ArgValue], available: float, batch: int) -> int:
    """The largest context of one request in `available` bytes, at most what the model was made for."""
    block, most = block_of(args), model.max_position or 10_000_000
    if not windows(model, args):
        each = block * _layers_on_rank(model, args) * _layer_bytes(model, args)
        return min(int(max(0.0, available) // each) if each else most, most // block) * block
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if kv_bytes(model, args, middle, batch) <= max(0.0, available):
            low = middle
        else:
            high = middle - 1
    return low // block * block


def attending(model: ModelFacts) -> int:
    """Layers whose cache grows with the context."""
    return max(0, (model.layers or 0) - model.linear_layers)


def windows(model: ModelFacts, args: Mapping[str, ArgValue]) -> bool:
    """True where some layers keep their window alone.

    Without the manager of different caches, layers with a window keep as much as the others beside them.
    """
    count = attending(model)
    return model.sliding_layers > 0 and count > 0 and (model.sliding_layers >= count or not one_cache(args))


def one_cache(args: Mapping[str, ArgValue]) -> bool:
    """True where all layers are told to keep the same kind of cache."""
    return args.get(ONE_CACHE) is True


def block_of(args: Mapping[str, ArgValue]) -> int:
    """Tokens in one block of the cache."""
    return whole(args, "block-size", BLOCK)


def whole(args: Mapping[str, ArgValue], name: str, default: int) -> int:
    """A flag as a whole number from 1 up; the default for anything else."""
    value = args.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        return default
    return int(value)


def cache_dtype(model: ModelFacts, args: Mapping[str, ArgValue]) -> str:
    """The format of the KV cache: the one asked for, else the one that the weights ask for, else auto."""
    asked = str(args.get("kv-cache-dtype", "auto"))
    return model.cache_dtype or asked if asked == "auto" else asked


def width_of(model: ModelFacts, args: Mapping[str, ArgValue]) -> float:
    """Bytes of a number as the engine computes; what is stored in 32 bits it takes in 16, unless it is told to."""
    asked = DTYPE_BYTES.get(str(args.get("dtype", "auto")))
    return asked or min(2.0, DTYPE_BYTES.get(model.dtype, 2.0))


def _layers_on_rank(model: ModelFacts, args: Mapping[str, ArgValue]) -> int:
    return math.ceil(attending(model) / whole(args, "pipeline-parallel-size", 1))


def _layer_bytes(model: ModelFacts, args: Mapping[str, ArgValue]) -> float:
    # GPUs that share the context hold a part of each request's tokens.
    return _whole_layer_bytes(model, args) / whole(args, "decode-context-parallel-size", 1)


def _whole_layer_bytes(model: ModelFacts, args: Mapping[str, ArgValue]) -> float:
    kind = cache_dtype(model, args)
    width = KV_BYTES.get(kind, 0.0) or width_of(model, args)
    if model.kv_lora_rank is not None:
        # One latent for all heads: the same on every rank, so a larger tensor-parallel size saves nothing.
        if kind == "fp8_ds_mla":
            return FP8_LATENT
        return (model.kv_lora_rank + (model.rope_head_dim or 64)) * width
    heads = max(1, (model.kv_heads or 1) // whole(args, "tensor-parallel-size", 1))
    scales = SCALES * heads if kind.endswith("_per_token_head") else 0.0
    return 2 * heads * (model.head_dim or 0) * width + scales
