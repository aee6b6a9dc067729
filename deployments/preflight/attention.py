"""Rules about attention kernels: those asked for by name, for which vLLM takes no others, and whether there are any."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from deployments.engine.attention import OWN, backends, checked_version, has_kernels, obstacles
from deployments.engine.dtypes import dtype_of
from deployments.engine.facts import ModelFacts
from deployments.engine.flags import flags_of, versions
from deployments.engine.gpus import FP8_CAPABILITY
from deployments.engine.kv_layers import cache_dtype
from deployments.findings import Finding, arg_pointer, error, warning
from deployments.preflight.formats import cache_kind
from deployments.preflight.quantised import cache_of_scales, possible_dtypes, word_of
from deployments.preflight.rules import Case, Rules

rules = Rules()

FLAG, CACHE, DTYPE = "attention-backend", "kv-cache-dtype", "dtype"
# What the KV cache may be kept in where what was asked for cannot be, the smallest first.
CACHES = ("fp8", "auto", "bfloat16", "float16")
MOST_NAMED = 4
FP4_CAPABILITY = 10.0


@rules.rule
def attention_backend(case: Case) -> Iterator[Finding]:
    """Kernels are made for some GPUs, kinds of attention and formats of the KV cache."""
    name = case.arg(FLAG)
    if not isinstance(name, str) or case.version not in versions() or name not in flags_of(case.version)[FLAG].choices:
        return
    stops = obstacles(name, *kernels_asked(case))
    if not stops or (_none(case) and not backends()[name].never):
        return
    ways = [
        other
        for other in flags_of(case.version)[FLAG].choices
        if other in backends() and not obstacles(other, *kernels_asked(case))
    ]
    ways.sort(key=list(backends()).index)
    pointer = arg_pointer(FLAG)
    value = next((other for other in ways if case.admits is None or case.admits([(pointer, other)])), None)
    say, said = weight(case)
    yield say(
        "attention_backend",
        pointer,
        f"{name} cannot be used{_here(case)}: it {', and '.join(stops)}{said}",
        f"Leave it out: vLLM chooses by itself. {_named(ways)}".strip(),
        value,
    )


@rules.rule
def any_kernels(case: Case) -> Iterator[Finding]:
    """Some kernels must be made for all of it at once: the GPU, the kind of attention, the KV cache, the arithmetic."""
    if not _none(case) or any(found.is_error for rule in (cache_kind, cache_of_scales) for found in rule(case)):
        return
    model, capability, cache, dtype = kernels_asked(case)
    say, said = weight(case)
    what = f"for {case.model.id if case.model else 'this model'}{_here(case)}"
    if ways := _caches(case):
        remedy = " or ".join(way for way in ways if way != "auto")
        remedy = f"Use {remedy}, or leave it out." if remedy and "auto" in ways else f"Use {remedy or 'auto'}."
        message = f"None of vLLM's attention kernels {what} keeps a KV cache in {cache}{said}"
        yield say("cache_kernels", arg_pointer(CACHE), message, remedy, ways[0])
    elif ways := [word_of(each) for each in possible_dtypes(case) if has_kernels(model, capability, cache, each)]:
        message = f"None of vLLM's attention kernels {what} computes in {dtype}{said}"
        yield say("dtype_kernels", arg_pointer(DTYPE), message, f"Use {ways[0]}.", ways[0])
    else:
        others = [
            flavor
            for flavor in case.facts.flavors.values()
            if flavor.compute_capability and has_kernels(model, flavor.compute_capability, cache, dtype)
        ]
        remedy = " or ".join(flavor.label for flavor in others[:MOST_NAMED]) or "another GPU, or another model"
        message = f"vLLM has no attention kernels {what}{said}"
        yield say("model_kernels", "/spec/flavor", message, f"Choose {remedy}.", others[0].slug if others else None)


@rules.rule
def narrow_cache(case: Case) -> Iterator[Finding]:
    """A KV cache in fp8 or fp4 is at home on GPUs that compute in it."""
    flavor, kind = case.flavor, str(case.arg(CACHE) or "auto")
    if flavor is None or not flavor.compute_capability or not kind.startswith(("fp8", "nvfp4")) or _none(case):
        return
    depends = "depends on the attention backend."
    if kind.startswith("fp8") and flavor.compute_capability < FP8_CAPABILITY:
        yield warning(
            "fp8_cache",
            arg_pointer(CACHE),
            f"{flavor.label} has no fp8 arithmetic: whether an fp8 KV cache works {depends}",
            "Leave kv-cache-dtype at auto if the engine does not start.",
            "auto",
        )
    elif kind.startswith("nvfp4") and flavor.compute_capability < FP4_CAPABILITY:
        yield warning(
            "cache_fp4",
            arg_pointer(CACHE),
            f"{flavor.label} has no fp4 arithmetic: whether such a KV cache works {depends}",
            "Use fp8, or leave it out.",
            "auto",
        )


def _none(case: Case) -> bool:
    """True where there are no kernels for all of it; what families have of their own the table does not know."""
    model, _, cache, _ = kernels_asked(case)
    if model is not None and (model.architecture.startswith(OWN) or (model.has_shape and not model.attending)):
        return False
    if case.version in versions() and cache not in flags_of(case.version)[CACHE].choices:
        return False  # Refused as a name that the flag does not know.
    return not has_kernels(*kernels_asked(case))


def _caches(case: Case) -> list[str]:
    """What the KV cache may be kept in instead."""
    model, capability, _, dtype = kernels_asked(case)
    known = flags_of(case.version)[CACHE].choices if case.version in versions() else CACHES
    found = []
    for kind in CACHES:
        taken = cache_dtype(model, {CACHE: kind}) if model else kind
        slow = kind == "fp8" and 0 < capability < FP8_CAPABILITY
        if kind in known and not slow and has_kernels(model, capability, taken, dtype):
            found.append(kind)
    return found[:2]


def weight(case: Case) -> tuple[Callable[..., Finding], str]:
    """How much it weighs, and the end of what is said: of other releases the kernels may differ."""
    if case.version == checked_version():
        return error, ": the engine would not start."
    return warning, f" in vLLM {checked_version()}, and maybe here."


def _here(case: Case) -> str:
    return f" on {case.flavor.label}" if case.flavor else ""


def _named(ways: list[str]) -> str:
    return f"Possible here: {', '.join(ways[:MOST_NAMED])}." if ways else ""


def kernels_asked(case: Case) -> tuple[ModelFacts | None, float, str, str]:
    """What kernels must be made for: model, compute capability (0: not known), format of the KV cache, arithmetic."""
    flavor, model, args = case.flavor, case.model, case.spec.engine.args
    capability = flavor.compute_capability if flavor else 0.0
    dtype = dtype_of(model, capability, args) if model else str(args.get(DTYPE, "auto"))
    cache = cache_dtype(model, args) if model else str(args.get(CACHE, "auto"))
    if model is not None and args.get("disable-sliding-window") is True:
        model = dataclasses.replace(model, sliding_layers=0)
    return model, capability, cache, dtype
