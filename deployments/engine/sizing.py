"""Does a model fit on a GPU: weights, activations, overheads and KV cache, as vLLM accounts for them.

Everything is per GPU and in GiB (2^30). vLLM takes `gpu-memory-utilization` of what the GPU shows, loads the
weights, measures the activation peak, and gives the rest to the KV cache; that rest must hold one request of
`max-model-len` tokens. Heuristics are fitted to logs of real engines; the answer is good to about 1 GiB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from deployments.engine.facts import GIB, GpuFacts, ModelFacts
from deployments.engine.weights import weights_bytes
from deployments.spec import ArgValue

DEFAULT_UTILIZATION = 0.92
BLOCK = 16
BIG_GPU_GIB = 70.0
BAND_GIB = 1.0
# Replicated norms, padded vocabularies: what splitting does not split.
SPLIT_LOSS = 1.015
NON_TORCH_GIB = 0.25
NON_TORCH_SPLIT_GIB = 0.6
GRAPHS_GIB = 0.5
SAMPLER_BYTES = 18

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


class FitState(StrEnum):
    """The answer in one word."""

    FITS = "fits"
    TIGHT = "tight"
    NO = "no"


class UnknownShapeError(ValueError):
    """The model's shape or weights are not known well enough to say anything."""


@dataclass(frozen=True)
class Fit:
    """How a model sits on one GPU. `headroom_gib` is what is left after one request of full length."""

    state: FitState
    total_gib: float
    budget_gib: float
    weights_gib: float
    activation_gib: float
    overhead_gib: float
    kv_gib: float
    kv_needed_gib: float
    free_gib: float
    kv_tokens: int
    kv_bytes_per_token: int
    concurrency: float
    max_model_len: int
    max_context: int
    gpus: int

    @property
    def headroom_gib(self) -> float:
        """KV memory beyond one request of full length; negative when it does not fit."""
        return self.free_gib

    def as_json(self) -> dict[str, Any]:
        """This estimate as plain JSON values."""
        return {**asdict(self), "state": self.state.value}


def fit(model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue]) -> Fit:
    """Estimate how `model` fits on `gpu` with these engine flags; raises UnknownShapeError when it cannot tell."""
    weights = weights_bytes(model)
    if weights is None or not model.has_shape:
        raise UnknownShapeError(f"The shape of {model.id or 'this model'} is not known.")
    tp, pp = _int(args, "tensor-parallel-size", 1), _int(args, "pipeline-parallel-size", 1)
    split = tp * pp
    length = _int(args, "max-model-len", 0) or model.max_position or 4096
    budget = gpu.visible_gib * _float(args, "gpu-memory-utilization", DEFAULT_UTILIZATION)
    offload = _float(args, "cpu-offload-gb", 0.0)
    rank_gib = max(0.0, weights / split * (SPLIT_LOSS if split > 1 else 1.0) / GIB - offload)
    batch = batched_tokens(gpu, args, length)
    activation = _activation_gib(model, gpu, args, tp, batch)
    overhead = _overhead_gib(args, split)
    forced = _float(args, "kv-cache-memory-bytes", 0.0)
    available = forced / GIB if forced else budget - rank_gib - activation - overhead
    needed = kv_bytes(model, args, length, batch) / GIB
    tokens = _tokens(model, args, available, length, batch)
    headroom = available - needed
    if forced:
        headroom = min(headroom, gpu.visible_gib - rank_gib - activation - overhead - available)
    return Fit(
        state=_state(headroom),
        total_gib=round(gpu.visible_gib, 2),
        budget_gib=round(budget, 2),
        weights_gib=round(rank_gib, 2),
        activation_gib=round(activation, 2),
        overhead_gib=round(overhead, 2),
        kv_gib=round(available, 2),
        kv_needed_gib=round(needed, 2),
        free_gib=round(headroom, 2),
        kv_tokens=tokens,
        kv_bytes_per_token=kv_bytes_per_token(model, args),
        concurrency=round(max(0.0, available / needed), 2) if needed else 0.0,
        max_model_len=length,
        max_context=_max_context(model, args, available, batch),
        gpus=split,
    )


def kv_bytes_per_token(model: ModelFacts, args: Mapping[str, ArgValue]) -> int:
    """KV cache bytes of one token on one GPU, over all layers of the rank that has most."""
    return round(_layers_on_rank(model, args) * _layer_bytes(model, args))


def kv_bytes(model: ModelFacts, args: Mapping[str, ArgValue], length: int, batch: int) -> float:
    """KV cache bytes of one request of `length` tokens on one GPU; sliding layers keep only their window."""
    layers = _layers_on_rank(model, args)
    sliding = 0
    if model.sliding_window and model.sliding_layers and model.layers:
        sliding = math.floor(layers * model.sliding_layers / model.layers)
    window = min(length, (model.sliding_window or length) + batch)
    return _layer_bytes(model, args) * ((layers - sliding) * length + sliding * window)


def batched_tokens(gpu: GpuFacts, args: Mapping[str, ArgValue], length: int) -> int:
    """Tokens of one engine step: the flag, or vLLM's default for this size of GPU."""
    given = _int(args, "max-num-batched-tokens", 0)
    if given:
        return given
    default = 8192 if _is_big(gpu) else 2048
    return max(default, length) if args.get("enable-chunked-prefill") is False else default


def sequences(gpu: GpuFacts, args: Mapping[str, ArgValue]) -> int:
    """Requests that run at once: the flag, or vLLM's default for this size of GPU."""
    return _int(args, "max-num-seqs", 0) or (1024 if _is_big(gpu) else 256)


def _is_big(gpu: GpuFacts) -> bool:
    return gpu.visible_gib >= BIG_GPU_GIB and "A100" not in gpu.product.upper()


def _activation_gib(model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue], tp: int, batch: int) -> float:
    hidden = model.hidden or (model.heads or 32) * (model.head_dim or 128)
    intermediate = model.intermediate or 4 * hidden
    width = DTYPE_BYTES.get(str(args.get("dtype", "auto")), DTYPE_BYTES.get(model.dtype, 2.0))
    forward = batch * width * (3 * intermediate / tp + 4 * hidden)
    sampler = sequences(gpu, args) * (model.vocab or 128_000) * SAMPLER_BYTES
    return max(forward, sampler) / GIB


def _overhead_gib(args: Mapping[str, ArgValue], split: int) -> float:
    non_torch = NON_TORCH_GIB if split == 1 else NON_TORCH_SPLIT_GIB
    return non_torch + (0.0 if args.get("enforce-eager") is True else GRAPHS_GIB)


def _layers_on_rank(model: ModelFacts, args: Mapping[str, ArgValue]) -> int:
    return math.ceil((model.layers or 0) / _int(args, "pipeline-parallel-size", 1))


def _layer_bytes(model: ModelFacts, args: Mapping[str, ArgValue]) -> float:
    kind = str(args.get("kv-cache-dtype", "auto"))
    width = KV_BYTES.get(kind, 0.0) or DTYPE_BYTES.get(model.dtype, 2.0)
    if model.kv_lora_rank is not None:
        # One latent for all heads: the same on every rank, so a larger tensor-parallel size saves nothing.
        if kind == "fp8_ds_mla":
            return 656.0
        return (model.kv_lora_rank + (model.rope_head_dim or 64)) * width
    tp = _int(args, "tensor-parallel-size", 1)
    heads = max(1, (model.kv_heads or 1) // tp)
    extra = 8.0 * heads if kind.endswith("_per_token_head") else 0.0
    return 2 * heads * (model.head_dim or 0) * width + extra


def _tokens(model: ModelFacts, args: Mapping[str, ArgValue], available_gib: float, length: int, batch: int) -> int:
    """Tokens the cache holds, in whole blocks; with sliding layers, those of full-length requests."""
    if available_gib <= 0:
        return 0
    if model.sliding_layers:
        return int(available_gib * GIB / kv_bytes(model, args, length, batch) * length)
    block = _int(args, "block-size", BLOCK)
    return int(available_gib * GIB // (block * kv_bytes_per_token(model, args))) * block


def _max_context(model: ModelFacts, args: Mapping[str, ArgValue], available_gib: float, batch: int) -> int:
    """The largest context that one request can have, at most what the model was made for."""
    low, high = 0, model.max_position or 10_000_000
    while low < high:
        middle = (low + high + 1) // 2
        if kv_bytes(model, args, middle, batch) <= max(0.0, available_gib) * GIB:
            low = middle
        else:
            high = middle - 1
    return low // BLOCK * BLOCK


def _state(headroom: float) -> FitState:
    if headroom < 0:
        return FitState.NO
    return FitState.TIGHT if headroom < BAND_GIB else FitState.FITS


def _int(args: Mapping[str, ArgValue], name: str, default: int) -> int:
    value = args.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        return default
    return int(value)


def _float(args: Mapping[str, ArgValue], name: str, default: float) -> float:
    value = args.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return default
    return float(value)
