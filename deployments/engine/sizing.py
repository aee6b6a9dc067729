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

from deployments.engine.defaults import NEWEST, Defaults, as_asked, as_taken
from deployments.engine.dtypes import dtype_of
from deployments.engine.facts import GIB, GpuFacts, ModelFacts
from deployments.engine.kv import pool_of
from deployments.engine.kv_layers import DTYPE_BYTES, as_served, whole, width_of
from deployments.engine.lora import Slots, lora_gib
from deployments.engine.measured import Measured
from deployments.engine.stages import heaviest_stage
from deployments.engine.weights import (
    USUAL_VOCABULARY,
    copied_bytes,
    expert_bytes,
    mtp_bytes,
    quantised,
    table_bytes,
    weights_bytes,
)
from deployments.spec import ArgValue

BIG_GPU_GIB, LARGEST_GPU_GIB = 70.0, 160.0
BAND_GIB = 1.0
# Replicated norms, padded vocabularies: what splitting does not split.
SPLIT_LOSS = 1.015
NON_TORCH_GIB = 0.25
NON_TORCH_SPLIT_GIB = 0.6
GRAPHS_GIB = 0.5
SAMPLER_BYTES = 18
FEW_SEQUENCES = 256
# The largest context that is spoken of where a model does not say its own.
ANY_LENGTH = 10_000_000
# Of an estimate, what only remedies need.
EXACT = frozenset({"needed_bytes", "most_bytes"})


class FitState(StrEnum):
    """The answer in one word."""

    FITS = "fits"
    TIGHT = "tight"
    NO = "no"


class UnknownShapeError(ValueError):
    """The model's shape or weights are not known well enough; `missing` names the numbers that would tell."""

    def __init__(self, message: str, missing: tuple[str, ...] = ()) -> None:
        self.missing = missing
        super().__init__(message)


@dataclass(frozen=True)
class Fit:
    """How a model sits on one GPU. `free_gib` is what is left after one request of full length."""

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
    # Engines of a replica, each with such a cache of its own.
    engines: int = 1
    # What the weights take before they are quantised; None where they are loaded as they are stored.
    stored_gib: float | None = None
    # To the byte: the KV cache of one request, and the most that weights and engine leave of the whole GPU.
    needed_bytes: int = 0
    most_bytes: int = 0

    @property
    def at_once(self) -> float:
        """Requests of full length that a replica holds, over all its engines."""
        return self.concurrency * self.engines

    @property
    def bar(self) -> dict[str, float]:
        """The memory of one GPU from bottom to top, in GiB; what vLLM leaves to others is `left`."""
        parts = {
            "weights": self.weights_gib,
            "activation": self.activation_gib,
            "overhead": self.overhead_gib,
            "kv": max(0.0, self.kv_gib),
        }
        return {**parts, "left": round(max(0.0, self.total_gib - sum(parts.values())), 2)}

    def as_json(self) -> dict[str, Any]:
        """This estimate as plain JSON values."""
        shown = {name: value for name, value in asdict(self).items() if name not in EXACT}
        return {**shown, "state": self.state.value, "bar": self.bar}


def fit(
    model: ModelFacts,
    gpu: GpuFacts,
    args: Mapping[str, ArgValue],
    *,
    defaults: Defaults = NEWEST,
    measured: Measured | None = None,
    slots: Slots | None = None,
) -> Fit:
    """Estimate how `model` fits on `gpu` with these engine flags; raises UnknownShapeError when it cannot tell.

    What an engine of the same shape reported at its start (`measured`) takes the place of what is computed. `slots`
    is the room that it makes for adapters.
    """
    seen, model = measured or Measured(), as_asked(as_taken(model, defaults), args)
    args = {**args, "dtype": dtype_of(model, gpu.compute_capability, args)}
    weights = weights_bytes(model)
    if missing := missing_numbers(model):
        raise UnknownShapeError(f"Of {model.id or 'this model'} is not known: {', '.join(missing)}.", missing)
    tp, pp = whole(args, "tensor-parallel-size", 1), whole(args, "pipeline-parallel-size", 1)
    split, engines = tp * pp, whole(args, "data-parallel-size", 1)
    length = whole(args, "max-model-len", 0) or model.usual_context or 4096
    budget = gpu.visible_gib * _float(args, "gpu-memory-utilization", defaults.utilization)
    offload = _float(args, "cpu-offload-gb", 0.0)
    stored = _as_computed(model, args, _loaded(model, args, weights or 0))
    held = quantised(model, args.get("quantization"), stored, width_of(model, args))
    rank_gib = max(0.0, _on_rank(model, args, stored, held) / GIB - offload)
    if seen.weights_gib is not None:
        rank_gib = seen.weights_gib
    if (model.is_encoder and args.get("enable-chunked-prefill") is not True) or model.encoder_decoder:
        # Of these no prompt is cut in parts.
        args["enable-chunked-prefill"] = False
    batch = batched_tokens(gpu, args, length, defaults)
    activation = _activation_gib(model, gpu, args, tp, batch, defaults)
    if seen.activation_gib is not None:
        activation = seen.activation_gib
    overhead = _overhead_gib(args, split * engines, defaults, seen) + (lora_gib(model, slots, args) if slots else 0.0)
    forced = _float(args, "kv-cache-memory-bytes", 0.0)
    available = forced / GIB if forced else budget - rank_gib - activation - overhead
    if seen.kv_gib is not None and not forced:
        # The engine measured the rest itself: what is not weights or cache is its own.
        available = seen.kv_gib
        activation = max(0.0, min(activation, budget - rank_gib - available))
        overhead = max(0.0, budget - rank_gib - available - activation)
    pool = pool_of(model, as_served(model, args, gpu.compute_capability, defaults), batch, defaults)
    needed_bytes = math.ceil(pool.request(length))
    needed, most = needed_bytes / GIB, gpu.visible_gib - rank_gib - activation - overhead
    headroom = available - needed
    if forced:
        headroom = min(headroom, most - available)
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
        kv_tokens=pool.tokens(available * GIB, length),
        kv_bytes_per_token=pool.token_bytes,
        concurrency=round(max(0.0, available / needed), 2) if needed else 0.0,
        max_model_len=length,
        max_context=pool.longest(available * GIB, model.max_position or ANY_LENGTH),
        gpus=split * engines,
        engines=engines,
        stored_gib=round(_on_rank(model, args, stored, stored) / GIB, 2) if held < stored else None,
        needed_bytes=needed_bytes,
        most_bytes=max(0, math.floor(most * GIB)),
    )


def _loaded(model: ModelFacts, args: Mapping[str, ArgValue], weights: float) -> float:
    """Bytes of weights that the engine loads: layers that propose tokens only where they are asked to."""
    return weights if args.get("spec-method") == "mtp" else weights - mtp_bytes(model, weights)


def _on_rank(model: ModelFacts, args: Mapping[str, ArgValue], stored: float, held: float) -> float:
    """Bytes of weights on one GPU, of `held` in all; `stored` is what they were before they were quantised."""
    tp, pp = whole(args, "tensor-parallel-size", 1), whole(args, "pipeline-parallel-size", 1)
    group = tp * whole(args, "data-parallel-size", 1)
    smaller = held / stored if stored else 1.0
    # All GPUs of a replica share out its experts, whole ones or parts of each; the rest each engine has for itself.
    experts = expert_bytes(model, stored) * smaller
    part = 1 / group
    if args.get("enable-expert-parallel") is True and model.experts:
        part = math.ceil(model.experts / group) / model.experts
    # Of several stages the first has the embeddings, and the last the output layer, or a copy of them.
    table = table_bytes(model, width_of(model, args)) if pp > 1 else 0.0
    tables = min(held - experts, table * (1 if model.tied else 2))
    dense, copied = held - experts - tables, copied_bytes(model)
    if copied is None or tp == 1:
        loss = SPLIT_LOSS if group > 1 or (pp > 1 and not table) else 1.0
        body, table = (dense / tp + experts * part) * loss, table / tp * loss
    else:
        copied = min(copied * smaller, dense)
        body, table = copied + (dense - copied) / tp + experts * part, table / tp
    return heaviest_stage(body, table, model.layers or 1, pp) if pp > 1 else body


def missing_numbers(model: ModelFacts) -> tuple[str, ...]:
    """The facts without which nothing can be said of this model's memory, by name; empty when all are known."""
    missing = [] if weights_bytes(model) is not None else ["weights_bytes"]
    return (*missing, *model.missing_shape)


def batched_tokens(gpu: GpuFacts, args: Mapping[str, ArgValue], length: int, defaults: Defaults = NEWEST) -> int:
    """Tokens of one engine step: the flag, or vLLM's default for this size of GPU."""
    given = whole(args, "max-num-batched-tokens", 0)
    if given:
        return given
    default = _usual_step(gpu, defaults) * _doubled(args)
    chunked = args.get("enable-chunked-prefill", defaults.chunked)
    return max(default, length) if chunked is False else default


def _usual_step(gpu: GpuFacts, defaults: Defaults) -> int:
    if not defaults.chunked:
        return 2048
    if defaults.largest_steps and gpu.visible_gib >= LARGEST_GPU_GIB:
        return 16_384
    return 8192 if _is_big(gpu) else 2048


def sequences(gpu: GpuFacts, args: Mapping[str, ArgValue], batch: int, defaults: Defaults = NEWEST) -> int:
    """Requests that run at once: the flag, or vLLM's default for this size of GPU, at most the `batch` of a step."""
    usual = defaults.most_sequences if _is_big(gpu) else FEW_SEQUENCES
    return whole(args, "max-num-seqs", 0) or min(usual * _doubled(args), batch)


def _doubled(args: Mapping[str, ArgValue]) -> int:
    """How much more of everything vLLM takes at once where throughput is what counts."""
    return 2 if args.get("performance-mode") == "throughput" else 1


def _is_big(gpu: GpuFacts) -> bool:
    return gpu.visible_gib >= BIG_GPU_GIB and "A100" not in gpu.product.upper()


def _activation_gib(
    model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue], tp: int, batch: int, defaults: Defaults
) -> float:
    hidden = model.hidden or (model.heads or 32) * (model.head_dim or 128)
    intermediate = model.intermediate or 4 * hidden
    width = width_of(model, args)
    forward = batch * width * (3 * intermediate / tp + 4 * hidden)
    sampler = sequences(gpu, args, batch, defaults) * (model.vocab or USUAL_VOCABULARY) * SAMPLER_BYTES
    return max(forward, sampler) / GIB


def _as_computed(model: ModelFacts, args: Mapping[str, ArgValue], stored: float) -> float:
    """Bytes of weights on the GPU: those that are not quantised are held in the numbers that the engine computes in."""
    if model.quantization is not None:
        return stored
    width = width_of(model, args)
    # Of a configuration that could not be read nobody knows what its weights are stored in: there the files say.
    params = model.params or 0 if model.architecture or not model.weights_bytes else 0
    return max(stored * width / DTYPE_BYTES.get(model.dtype, 2.0), params * min(width, 2.0))


def _overhead_gib(args: Mapping[str, ArgValue], split: int, defaults: Defaults, seen: Measured) -> float:
    """NCCL, CUDA and other libraries outside PyTorch's own memory; CUDA graphs where they count."""
    non_torch = NON_TORCH_GIB if split == 1 else NON_TORCH_SPLIT_GIB
    if seen.non_torch_gib is not None:
        non_torch = seen.non_torch_gib
    if args.get("enforce-eager") is True or not defaults.graphs_counted:
        return non_torch
    return non_torch + (GRAPHS_GIB if seen.graphs_gib is None else seen.graphs_gib)


def _state(headroom: float) -> FitState:
    if headroom < 0:
        return FitState.NO
    return FitState.TIGHT if headroom < BAND_GIB else FitState.FITS


def _float(args: Mapping[str, ArgValue], name: str, default: float) -> float:
    value = args.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return default
    return float(value)


class Sizer:
    """The estimates of one model by one engine: each is worked out once, however often it is asked for."""

    def __init__(self, model: ModelFacts, defaults: Defaults = NEWEST, slots: Slots | None = None) -> None:
        self.model = model
        self._defaults = defaults
        self._slots = slots
        self._known: dict[tuple[GpuFacts, str], Fit] = {}

    def fit(self, gpu: GpuFacts, args: Mapping[str, ArgValue]) -> Fit:
        """How the model sits on this GPU with these flags (see `fit`)."""
        # As text: 1 and true are one key of a dict, and are not one value of a flag.
        key = gpu, repr(args)
        if key not in self._known:
            self._known[key] = fit(self.model, gpu, args, defaults=self._defaults, slots=self._slots)
        return self._known[key]
