"""Attention kernels: for which GPUs, attention and KV caches each is made, as the newest vLLM checks at its start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from deployments.engine.facts import ModelFacts
from deployments.engine.profiles import DATA

UNTOUCHED = frozenset({"auto", "float16", "bfloat16"})
# Families whose heads attend to a sink, and families whose latent attention chooses tokens.
SINKS, SPARSE = ("GptOss",), ("DeepseekV32", "GlmMoeDsa")
# Families that bring kernels of their own: those of the table say nothing of them.
OWN = ("DeepseekV4", "MiMoV2", "MiniMaxM3", "OpenPangu", "Pangu", "Whisper")


@dataclass(frozen=True)
class Backend:
    """One kind of kernels; `data/attention.json` says what the fields mean."""

    name: str
    of: str
    capability: tuple[float, float] = (0.0, 99.0)
    sizes: tuple[int, ...] = ()
    multiple: int = 1
    least: int = 1
    most: int = 1 << 20
    most_from: tuple[float, int] | None = None
    caches: Mapping[str, float | tuple[float, float]] = field(default_factory=dict, hash=False)
    of_cache: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    only_caches: bool = False
    sinks: tuple[float, float] | None = None
    window: bool = True
    float32: bool = False
    heads_apart: bool = False
    never: str = ""
    dcp: Mapping[str, Any] | None = field(default=None, hash=False)


def checked_version() -> str:
    """The version that the table was read from."""
    return str(_document()["version"])


@cache
def backends() -> Mapping[str, Backend]:
    """The kernels of the table, those that vLLM prefers first."""
    rows: dict[str, dict[str, Any]] = _document()["backends"]
    return {name: _backend(name, row) for name, row in rows.items()}


def obstacles(name: str, model: ModelFacts | None, capability: float, cache_dtype: str, dtype: str) -> list[str]:
    """What keeps these kernels from running this model there, in words; 0 as capability: not known."""
    found = backends().get(name)
    return [] if found is None else list(_obstacles(found, model, capability, cache_dtype, dtype))


def _obstacles(
    found: Backend, model: ModelFacts | None, capability: float, cache_dtype: str, dtype: str
) -> Iterator[str]:
    if found.never:
        yield found.never
        return
    yield from _of_gpu(found, capability)
    yield from _of_model(found, model, capability)
    yield from _of_formats(found, capability, cache_dtype, dtype)
    yield from _of_cache(found, model, capability, cache_dtype)


def _runs(found: Backend, model: ModelFacts | None, capability: float, cache_dtype: str, dtype: str) -> bool:
    # The first thing in the way is enough: this is asked of all kernels in every check.
    return not found.never and next(_obstacles(found, model, capability, cache_dtype, dtype), None) is None


def has_kernels(model: ModelFacts | None, capability: float, cache_dtype: str, dtype: str) -> bool:
    """Whether vLLM finds any for all of it at once where none are named; mostly the first of them will do."""
    return any(_runs(found, model, capability, cache_dtype, dtype) for found in backends().values())


def keeps_heads_apart(name: str, cache_dtype: str) -> bool:
    """Whether the kernels that are named, or all that keep such a cache, have no layout with a block's heads in one."""
    named = backends().get(name)
    taking = [named] if named else [found for found in backends().values() if cache_dtype in found.caches]
    return bool(taking) and all(found.heads_apart for found in taking)


def shares_context(name: str, model: ModelFacts, capability: float, cache_dtype: str) -> bool:
    """Whether these kernels run where GPUs share the context while decoding; 0 as capability: not known."""
    dcp = backends()[name].dcp
    if dcp is None:
        return False
    if dcp.get("packed") and cache_dtype in UNTOUCHED:
        return False
    low, high = dcp.get("sinks", (0.0, 99.0))
    if model.architecture.startswith(SINKS) and capability and not low <= capability <= high:
        return False
    return not any(least <= capability <= most for least, most in dcp.get("without", {}).get(cache_dtype, ()))


def kernels_sharing(model: ModelFacts, capability: float, cache_dtype: str, dtype: str) -> list[str]:
    """The kernels that are made for all of it and can share the context, those that vLLM prefers first."""
    return [
        name
        for name, found in backends().items()
        if _runs(found, model, capability, cache_dtype, dtype) and shares_context(name, model, capability, cache_dtype)
    ]


def caches_without(version: str, choices: Iterable[str], model: ModelFacts | None, capability: float) -> frozenset[str]:
    """Choices of `kv-cache-dtype` that no kernels keep there; none where the release or the family is not known."""
    if version != checked_version() or (model is not None and model.architecture.startswith(OWN)):
        return frozenset()
    return frozenset(kind for kind in choices if not has_kernels(model, capability, kind, "auto"))


def _of_gpu(found: Backend, capability: float) -> Iterator[str]:
    low, high = found.capability
    if capability and not low <= capability <= high:
        most = f" to {high}" if high < 99 else " or more"
        yield f"needs compute capability {low}{most}"


def _of_model(found: Backend, model: ModelFacts | None, capability: float) -> Iterator[str]:
    if model is None or not model.has_shape:
        return
    latent = found.of != "heads"
    if latent != model.is_mla:
        yield "is for latent attention (DeepSeek), which the model has not" if latent else "has no latent attention"
        return
    if latent:
        sparse = model.is_sparse or model.architecture.startswith(SPARSE)
        if model.architecture and (found.of == "sparse") != sparse:
            yield "is for models that attend to a choice of tokens" if found.of == "sparse" else "attends to all tokens"
        return
    most = found.most
    if found.most_from and capability >= found.most_from[0]:
        most = found.most_from[1]
    for size in filter(None, (model.head_dim, model.full_head_dim)):
        if (found.sizes and size not in found.sizes) or size % found.multiple or not found.least <= size <= most:
            yield f"takes no heads of size {size}"
    sinks = found.sinks
    if model.architecture.startswith(SINKS) and (
        sinks is None or (capability and not sinks[0] <= capability <= sinks[1])
    ):
        yield "has no attention sinks there"
    if model.sliding_layers and not found.window:
        yield "has no sliding windows"


def _of_formats(found: Backend, capability: float, cache_dtype: str, dtype: str) -> Iterator[str]:
    if dtype == "float32" and not found.float32:
        yield "does not compute in float32"
    if cache_dtype in found.caches:
        least = found.caches[cache_dtype]
        low, high = least if isinstance(least, tuple) else (least, 99.0)
        if capability and not low <= capability <= high:
            most = f" to {high}" if high < 99 else " on"
            yield f"takes a KV cache in {cache_dtype} from compute capability {low}{most}"
    elif cache_dtype not in UNTOUCHED:
        yield f"takes no KV cache in {cache_dtype}"
    elif found.only_caches:
        yield f"takes a KV cache in {', '.join(found.caches)} only"


def _of_cache(found: Backend, model: ModelFacts | None, capability: float, cache_dtype: str) -> Iterator[str]:
    narrow = found.of_cache.get(cache_dtype)
    if narrow is None or model is None or not model.has_shape or model.is_mla:
        return
    apart = narrow.get("apart")
    if apart and (not capability or apart[0] <= capability <= apart[1]):
        return
    if (model.head_dim or 0) not in narrow["sizes"]:
        yield f"takes no KV cache in {cache_dtype} with heads of size {model.head_dim}"
    if not narrow.get("sinks", True) and model.architecture.startswith(SINKS):
        yield f"takes no KV cache in {cache_dtype} with attention sinks"


def _backend(name: str, row: Mapping[str, Any]) -> Backend:
    made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    made["caches"] = {
        cache: tuple(least) if isinstance(least, list) else least for cache, least in row.get("caches", {}).items()
    }
    return Backend(name, **made)


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / "attention.json").read_text(encoding="utf-8"))
    return document
