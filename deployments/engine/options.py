"""Other ways to run a model that does not fit as asked: shorter context, smaller cache, more or other GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployments.engine.facts import GpuFacts, ModelFacts
from deployments.engine.sizing import Fit, FitState, fit
from deployments.spec import ArgValue

FP8_CAPABILITY = 8.9
MIN_CONTEXT = 512


@dataclass(frozen=True)
class Option:
    """One change that makes the model fit: the form field, the value, and what that gives."""

    pointer: str
    value: int | str
    text: str
    fit: Fit


@dataclass(frozen=True)
class Choice:
    """A flavor that could be used instead."""

    slug: str
    gpu: GpuFacts
    gpus_per_node: int = 1


def options(
    model: ModelFacts,
    gpu: GpuFacts,
    args: Mapping[str, ArgValue],
    *,
    gpus_per_node: int = 8,
    others: Iterable[Choice] = (),
) -> list[Option]:
    """The changes that make it fit, smallest first; empty when none does."""
    found = [
        _shorter(model, gpu, args),
        _smaller_cache(model, gpu, args),
        _more_gpus(model, gpu, args, gpus_per_node),
        *(_other_flavor(model, args, choice) for choice in others),
    ]
    return [option for option in found if option is not None]


def splits(model: ModelFacts, most: int) -> list[int]:
    """Tensor-parallel sizes that this model can be split by, up to `most`."""
    return [size for size in range(1, most + 1) if splits_by(model, size)]


def splits_by(model: ModelFacts, size: int) -> bool:
    """True when attention heads and KV heads can be shared out over `size` GPUs."""
    if model.heads and model.heads % size:
        return False
    if model.is_mla or not model.kv_heads:
        return True
    return (model.kv_heads % size if size <= model.kv_heads else size % model.kv_heads) == 0


def round_context(tokens: int) -> int:
    """A round context length at most `tokens`: whole 1,024s from 4,096 up."""
    return tokens // 1024 * 1024 if tokens >= 4096 else tokens // 256 * 256


def _shorter(model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue]) -> Option | None:
    now = fit(model, gpu, args)
    length = round_context(min(now.max_context, now.max_model_len - 1))
    if length < MIN_CONTEXT:
        return None
    result = fit(model, gpu, {**args, "max-model-len": length})
    if result.state is FitState.NO:
        return None
    return Option("/spec/engine/args/max-model-len", length, f"max-model-len {length:,}", result)


def _smaller_cache(model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue]) -> Option | None:
    if gpu.compute_capability < FP8_CAPABILITY or str(args.get("kv-cache-dtype", "auto")) != "auto":
        return None
    result = fit(model, gpu, {**args, "kv-cache-dtype": "fp8"})
    if result.state is FitState.NO:
        return None
    return Option("/spec/engine/args/kv-cache-dtype", "fp8", "an fp8 KV cache", result)


def _more_gpus(model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue], gpus_per_node: int) -> Option | None:
    now = args.get("tensor-parallel-size", 1)
    stages = args.get("pipeline-parallel-size", 1)
    if not isinstance(now, int) or not isinstance(stages, int) or stages < 1:
        return None
    for size in splits(model, gpus_per_node // stages):
        if size <= now:
            continue
        result = fit(model, gpu, {**args, "tensor-parallel-size": size})
        if result.state is not FitState.NO:
            return Option("/spec/engine/args/tensor-parallel-size", size, f"{size} GPUs (tensor-parallel-size)", result)
    return None


def _other_flavor(model: ModelFacts, args: Mapping[str, ArgValue], choice: Choice) -> Option | None:
    result = fit(model, choice.gpu, args)
    if result.state is FitState.NO or result.gpus > choice.gpus_per_node:
        return None
    return Option("/spec/flavor", choice.slug, f"flavor {choice.slug}", result)
