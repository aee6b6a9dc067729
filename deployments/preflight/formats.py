"""Rules about number formats: those of weights, of arithmetic and of the KV cache, against what the GPU can do."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.dtypes import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    asked_dtype,
    bears_half,
    dtype_of,
    has_bfloat16,
)
from deployments.findings import Finding, arg_pointer, error, warning
from deployments.preflight.rules import Case, Rules

rules = Rules()

FP8_CAPABILITY = 8.9
FP4_CAPABILITY = 10.0
FP8_METHODS = frozenset({"fp8", "fbgemm_fp8", "modelopt", "fp8_per_tensor", "fp8_per_block"})
MINIMUM = {
    "awq": 7.5,
    "awq_marlin": 7.5,
    "gptq_marlin": 7.5,
    "gptq": 6.0,
    "auto_gptq": 6.0,
    "gguf": 6.0,
    "fp8": 7.5,
    "modelopt": 8.9,
    "modelopt_fp4": 7.5,
    "bitsandbytes": 7.0,
    "mxfp4": 8.0,
    "experts_int8": 8.0,
}
# Methods that are the same weights read by other kernels: naming one for the other is no mismatch.
KIN = (
    frozenset({"awq", "awq_marlin"}),
    frozenset({"gptq", "gptq_marlin", "auto_gptq"}),
    frozenset({"modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed"}),
    frozenset({"mxfp4", "gpt_oss_mxfp4"}),
)
# Methods whose scales are written beside the weights: vLLM cannot make them at its start.
STORED = frozenset({"awq", "awq_marlin", "gptq", "gptq_marlin", "auto_gptq", "compressed-tensors", "fbgemm_fp8"})
LATENT_CACHES = frozenset({"fp8_ds_mla", "nvfp4_ds_mla"})


@rules.rule
def number_formats(case: Case) -> Iterator[Finding]:
    """Older GPUs lack bfloat16: vLLM refuses it by name, and takes another format where it may choose."""
    flavor, model = case.flavor, case.model
    if flavor is None or has_bfloat16(flavor.compute_capability):
        return
    asked, pointer = asked_dtype(case.spec.engine.args), arg_pointer("dtype")
    lacks = f"{flavor.label} (compute capability {flavor.compute_capability}) cannot compute in bfloat16"
    if asked == BFLOAT16:
        instead = "half" if model is None or bears_half(model) else FLOAT32
        yield error("dtype_bfloat16", pointer, f"{lacks}: the engine would not start.", f"Use {instead}.", instead)
    elif model is None or asked != "auto" or model.dtype != BFLOAT16:
        return
    elif dtype_of(model, flavor.compute_capability, case.spec.engine.args) == FLOAT16:
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
    yield error(
        "dtype_half",
        arg_pointer("dtype"),
        f"{model.id} overflows in float16: the engine would not start.",
        "Use float32 here; bfloat16 takes a GPU of compute capability 8.0 or more." if old else "Use bfloat16.",
        FLOAT32 if old else BFLOAT16,
    )


@rules.rule
def quantization(case: Case) -> Iterator[Finding]:
    """Quantised weights need kernels that the GPU has, and a model that is quantised that way."""
    flavor, model = case.flavor, case.model
    asked = case.arg("quantization")
    method = asked if isinstance(asked, str) else (model.quantization if model else None)
    if flavor is None or method is None or not flavor.compute_capability:
        return
    least = MINIMUM.get(method, 0.0)
    pointer = arg_pointer("quantization") if asked else "/spec/flavor"
    if flavor.compute_capability < least:
        yield error(
            "quantization_gpu",
            pointer,
            f"{method} weights need compute capability {least}; {flavor.label} has {flavor.compute_capability}.",
            "Choose a newer GPU or another variant of the model.",
        )
    elif method in FP8_METHODS and flavor.compute_capability < FP8_CAPABILITY:
        yield warning(
            "fp8_emulated",
            pointer,
            f"{flavor.label} has no fp8 arithmetic: fp8 weights save memory there, but no time.",
            "A GPU of compute capability 8.9 or more computes in fp8.",
        )


@rules.rule
def quantization_of_model(case: Case) -> Iterator[Finding]:
    """What the flag says must be what the model is."""
    asked, model = case.arg("quantization"), case.model
    if not isinstance(asked, str) or model is None:
        return
    if not model.quantization:
        if asked in STORED and model.architecture:
            yield error(
                "quantization_absent",
                arg_pointer("quantization"),
                f"{model.id} is not quantised, and {asked} reads weights that are: the engine would not start.",
                f"Choose a variant of the model in {asked}, or leave quantization out.",
            )
        return
    own = model.quantization
    if asked == own or any({asked, own} <= family for family in KIN):
        return
    yield error(
        "quantization_mismatch",
        arg_pointer("quantization"),
        f"{model.id} is quantised as {own}, not as {asked}: the engine would not start.",
        "Leave quantization out: vLLM reads it from the model.",
    )


@rules.rule
def fp8_cache(case: Case) -> Iterator[Finding]:
    """An fp8 KV cache is at home on GPUs that compute in fp8."""
    flavor, kind = case.flavor, str(case.arg("kv-cache-dtype") or "auto")
    if flavor is None or not kind.startswith("fp8") or not flavor.compute_capability:
        return
    if flavor.compute_capability < FP8_CAPABILITY:
        yield warning(
            "fp8_cache",
            arg_pointer("kv-cache-dtype"),
            f"{flavor.label} has no fp8 arithmetic: whether an fp8 KV cache works depends on the attention backend.",
            "Leave kv-cache-dtype at auto if the engine does not start.",
            "auto",
        )


@rules.rule
def cache_kind(case: Case) -> Iterator[Finding]:
    """Some formats of the KV cache are for latent attention only, or for newer GPUs."""
    kind, model, flavor = str(case.arg("kv-cache-dtype") or "auto"), case.model, case.flavor
    if kind in LATENT_CACHES and model is not None and not model.is_mla:
        yield error(
            "cache_latent",
            arg_pointer("kv-cache-dtype"),
            f"{kind} is for models with latent attention (DeepSeek); {model.id} has none.",
            "Use fp8, or leave it out.",
            "fp8",
        )
    elif kind.startswith("nvfp4") and flavor is not None and 0 < flavor.compute_capability < FP4_CAPABILITY:
        yield warning(
            "cache_fp4",
            arg_pointer("kv-cache-dtype"),
            f"{flavor.label} has no fp4 arithmetic: whether such a KV cache works depends on the attention backend.",
            "Use fp8, or leave it out.",
            "auto",
        )
