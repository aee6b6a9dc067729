"""Rules about quantisation: what the model is stored in, what the flag asks for, and what the GPU computes."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.dtypes import BFLOAT16, FLOAT16, FLOAT32, asked_dtype, bears_half, dtype_of, has_bfloat16
from deployments.engine.facts import GIB
from deployments.engine.gpus import FP8_CAPABILITY
from deployments.engine.quantization import Method, Scales, Weights, method, method_of
from deployments.findings import Finding, arg_pointer, error, warning
from deployments.preflight.rules import Case, Rules, gib

rules = Rules()

FP8_METHODS = frozenset({"fp8", "fbgemm_fp8", "modelopt", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel"})
# Methods that are the same weights read by other kernels: naming one for the other is no mismatch.
KIN = (
    frozenset({"awq", "awq_marlin", "auto_awq"}),
    frozenset({"gptq", "gptq_marlin", "auto_gptq"}),
    frozenset({"modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed"}),
    frozenset({"mxfp4", "gpt_oss_mxfp4"}),
    frozenset({"inc", "auto-round"}),
)
WORDS = {FLOAT16: "half"}
# Files of so little of what their parameters take in 16 bits hold something else.
SMALL_FILES = 0.75
# What names of KV cache formats for latent attention end in.
OF_LATENTS = "_ds_mla"


def method_here(case: Case) -> Method | None:
    """How the engine of this case quantises, or reads what is quantised; None where it does not, or nobody knows."""
    model, asked = case.model, case.arg("quantization")
    capability = case.flavor.compute_capability if case.flavor else 0.0
    named = asked if isinstance(asked, str) else None
    return method_of(case.version, named, model.quantization if model else None, capability)


def possible_dtypes(case: Case) -> list[str]:
    """The formats that GPU, family and quantisation of this case all bear, the usual one first."""
    found, model = method_here(case), case.model
    takes = found.dtypes if found else (BFLOAT16, FLOAT16, FLOAT32)
    there = [BFLOAT16] if case.flavor is None or has_bfloat16(case.flavor.compute_capability) else []
    there += [FLOAT16] if model is None or bears_half(model) else []
    return [dtype for dtype in (*there, FLOAT32) if dtype in takes]


def word_of(dtype: str) -> str:
    """How the form offers a format."""
    return WORDS.get(dtype, dtype)


def _subject(case: Case, found: Method) -> str:
    if case.model is not None and case.model.quantization:
        return f"{case.model.id} is quantised as {case.model.quantization}, which"
    return f"quantization {found.name}"


@rules.rule
def dtype_of_method(case: Case) -> Iterator[Finding]:
    """Kernels for quantised weights compute in some number formats only; vLLM refuses the others at its start."""
    found, model, flavor = method_here(case), case.model, case.flavor
    if found is None:
        return
    asked, capability = asked_dtype(case.spec.engine.args), flavor.compute_capability if flavor else 0.0
    if (asked == "auto" and model is None) or any(quantization_of_model(case)):
        return
    dtype = asked if model is None else dtype_of(model, capability, case.spec.engine.args)
    if dtype in found.dtypes or (asked == BFLOAT16 and not has_bfloat16(capability)):
        return
    possible = possible_dtypes(case)
    takes = " or ".join(found.dtypes)
    where = "Choose a GPU of compute capability 8.0 or more, or another variant of the model."
    yield error(
        "dtype_quantised",
        arg_pointer("dtype"),
        f"{_subject(case, found)} vLLM {case.version} computes in {takes}, not in {dtype}: the engine would not start.",
        f"Use {word_of(possible[0])}." if possible else where,
        word_of(possible[0]) if possible else None,
    )


@rules.rule
def quantization(case: Case) -> Iterator[Finding]:
    """Quantised weights need kernels that the GPU has."""
    flavor, found = case.flavor, method_here(case)
    if flavor is None or found is None or not flavor.compute_capability:
        return
    pointer = arg_pointer("quantization") if case.arg("quantization") else "/spec/flavor"
    if flavor.compute_capability < found.capability:
        yield error(
            "quantization_gpu",
            pointer,
            f"{found.name} weights need compute capability {found.capability}; {flavor.label} has "
            f"{flavor.compute_capability}.",
            "Choose a newer GPU or another variant of the model.",
        )
    elif found.name in FP8_METHODS and flavor.compute_capability < FP8_CAPABILITY:
        yield warning(
            "fp8_emulated",
            pointer,
            f"{flavor.label} has no fp8 arithmetic: fp8 weights save memory there, but no time.",
            "A GPU of compute capability 8.9 or more computes in fp8.",
        )


@rules.rule
def quantization_of_model(case: Case) -> Iterator[Finding]:
    """What the flag says must be what the model is, or what vLLM makes of 16-bit weights."""
    asked, model = case.arg("quantization"), case.model
    if not isinstance(asked, str) or model is None:
        return
    pointer = arg_pointer("quantization")
    if model.quantization:
        if not reads(asked, model.quantization, model.architecture):
            yield error(
                "quantization_mismatch",
                pointer,
                f"{model.id} is quantised as {model.quantization}, not as {asked}: the engine would not start.",
                "Leave quantization out: vLLM reads it from the model.",
            )
        return
    found = method(case.version, asked, stored=False)
    if found is None or not model.architecture:
        return  # Of a configuration that could not be read nobody knows how the weights are stored.
    if found.weights is Weights.STORED:
        yield error(
            "quantization_absent",
            pointer,
            f"{model.id} is not quantised, and {asked} reads weights that are: the engine would not start.",
            f"Choose a variant of the model in {asked}, or leave quantization out.",
        )
    elif found.weights is Weights.CONFIGURED:
        yield error(
            "quantization_configured",
            pointer,
            f"{asked} takes how to quantise from settings that cannot be given here: the engine would not start.",
            "Name the format itself, for example fp8, or leave quantization out.",
            "fp8",
        )


def reads(asked: str, own: str, architecture: str) -> bool:
    """True when a method reads weights that are stored in another."""
    if asked == own or any({asked, own} <= family for family in KIN):
        return True
    if asked == "moe_wna16":
        return own in {"awq", "gptq"}
    if asked == "deepseek_v4_fp8":
        return own == "fp8" and architecture.startswith("DeepseekV4")
    return asked == "humming" and not architecture.startswith("GptOss")


@rules.rule
def quantization_unsaid(case: Case) -> Iterator[Finding]:
    """Files that are much smaller than their parameters in 16 bits are quantised, or will not be as small in memory."""
    model = case.model
    if model is None or not model.architecture or model.quantization or not model.params or not model.weights_bytes:
        return
    if case.arg("quantization") is None and model.weights_bytes < SMALL_FILES * 2 * model.params:
        yield warning(
            "quantization_unsaid",
            "/spec/source/uri",
            f"The files of {model.id} hold {model.weights_bytes / model.params:.2g} bytes for each parameter, and its "
            f"configuration names no quantisation: vLLM holds each in 2 bytes, {gib(2 * model.params / GIB)} in all, "
            "or cannot read them.",
            "Choose a variant whose configuration says how it is quantised.",
        )


@rules.rule
def quantization_deprecated(case: Case) -> Iterator[Finding]:
    """Methods that are about to go are refused until one says that one knows, which nobody can say here."""
    found, asked = method_here(case), case.arg("quantization")
    if found is not None and found.deprecated:
        yield error(
            "quantization_deprecated",
            arg_pointer("quantization") if asked else "/spec/source/uri",
            f"vLLM {case.version} gives up {found.name} and does not start with it.",
            "Leave quantization out, or choose another." if asked else "Choose another variant of the model.",
        )


@rules.rule
def cache_of_scales(case: Case) -> Iterator[Finding]:
    """Scales of the KV cache that come with the weights are made for fp8_e4m3; latent attention takes no fp8_e5m2."""
    found, model, kind = method_here(case), case.model, str(case.arg("kv-cache-dtype") or "")
    pointer = arg_pointer("kv-cache-dtype")
    if model is not None and model.is_mla and kind.startswith("nvfp4") and not kind.endswith(OF_LATENTS):
        yield error(
            "cache_nvfp4",
            pointer,
            f"{model.id} has latent attention, for which vLLM has no KV cache in {kind}: the engine would not start.",
            "Use fp8, or leave it out.",
            "fp8",
        )
    if kind != "fp8_e5m2":
        return
    if model is not None and model.is_mla:
        yield error(
            "cache_e5m2",
            pointer,
            f"{model.id} has latent attention, whose kernels take no KV cache in fp8_e5m2: the engine would not start.",
            "Use fp8, or leave it out.",
            "fp8",
        )
    elif found is not None and found.scales is Scales.ALWAYS:
        yield error(
            "cache_e5m2",
            pointer,
            f"With weights in {found.name} vLLM takes no KV cache in fp8_e5m2: the engine would not start.",
            "Use fp8, or leave it out.",
            "fp8",
        )
    elif found is not None and found.scales is Scales.DECLARED:
        yield warning(
            "cache_e5m2_scales",
            pointer,
            f"With weights in {found.name} vLLM takes a KV cache in fp8_e5m2 only where these bring no scales for it.",
            "Use fp8 if the engine does not start.",
            "fp8",
        )
