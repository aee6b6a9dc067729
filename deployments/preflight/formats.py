"""Rules about number formats: those of arithmetic and of the KV cache, against what the GPU can do."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.dtypes import (
    BFLOAT16,
    FLOAT16,
    asked_dtype,
    bears_half,
    dtype_of,
    has_bfloat16,
)
from deployments.findings import Finding, arg_pointer, error, warning
from deployments.preflight.quantised import possible_dtypes, word_of
from deployments.preflight.rules import Case, Rules

rules = Rules()

LATENT_CACHES = frozenset({"fp8_ds_mla", "nvfp4_ds_mla"})


@rules.rule
def number_formats(case: Case) -> Iterator[Finding]:
    """Older GPUs lack bfloat16: vLLM refuses it by name, and takes another format where it may choose."""
    flavor, model = case.flavor, case.model
    if flavor is None or has_bfloat16(flavor.compute_capability):
        return
    asked, pointer = asked_dtype(case.spec.engine.args), arg_pointer("dtype")
    lacks = f"{flavor.label} (compute capability {flavor.compute_capability}) cannot compute in bfloat16"
    possible = possible_dtypes(case)
    if asked == BFLOAT16:
        instead = word_of(possible[0]) if possible else None
        remedy = f"Use {instead}." if instead else "Choose a GPU of compute capability 8.0 or more."
        yield error("dtype_bfloat16", pointer, f"{lacks}: the engine would not start.", remedy, instead)
        return
    if model is None or asked != "auto" or model.dtype != BFLOAT16:
        return
    taken = dtype_of(model, flavor.compute_capability, case.spec.engine.args)
    if taken not in possible:
        return  # Refused for the method in which the model is quantised.
    if taken == FLOAT16:
        yield warning(
            "dtype_falls_back",
            pointer,
            f"{lacks}: the engine takes float16 for {model.id}, whose numbers reach less far.",
            "Set half to say that this is meant, or choose a GPU of compute capability 8.0 or more.",
            "half",
        )
    else:
        yield warning(
            "dtype_falls_back",
            pointer,
            f"{lacks}, and {model.id} overflows in float16: the engine takes float32, with twice the memory and less "
            "than half the speed.",
            "Choose a GPU of compute capability 8.0 or more.",
        )


@rules.rule
def half_precision(case: Case) -> Iterator[Finding]:
    """Some families overflow in float16, and vLLM does not start them in it."""
    model, flavor = case.model, case.flavor
    if model is None or bears_half(model) or asked_dtype(case.spec.engine.args) != FLOAT16:
        return
    old = flavor is not None and not has_bfloat16(flavor.compute_capability)
    possible = possible_dtypes(case)
    bfloat16 = "bfloat16 takes a GPU of compute capability 8.0 or more."
    if possible:
        remedy = f"Use {possible[0]} here; {bfloat16}" if old else f"Use {possible[0]}."
    else:
        remedy = f"Leave dtype out; {bfloat16}"
    yield error(
        "dtype_half",
        arg_pointer("dtype"),
        f"{model.id} overflows in float16: the engine would not start.",
        remedy,
        possible[0] if possible else None,
    )


@rules.rule
def cache_kind(case: Case) -> Iterator[Finding]:
    """Some formats of the KV cache are for latent attention only."""
    kind, model = str(case.arg("kv-cache-dtype") or "auto"), case.model
    if kind in LATENT_CACHES and model is not None and not model.is_mla:
        yield error(
            "cache_latent",
            arg_pointer("kv-cache-dtype"),
            f"{kind} is for models with latent attention (DeepSeek); {model.id} has none.",
            "Use fp8, or leave it out.",
            "fp8",
        )
