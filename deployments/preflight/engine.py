"""Rules about the engine: its profile, its flags, and what they mean for this model on this GPU."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.facts import ModelFacts
from deployments.engine.flags import check_args, versions
from deployments.engine.options import MIN_CONTEXT, Choice, options, round_context, splits, splits_by
from deployments.engine.sizing import Fit, FitState, UnknownShapeError, batched_tokens, fit, sequences
from deployments.findings import Finding, arg_pointer, error, info, warning
from deployments.preflight.rules import Case, Rules, gib
from deployments.spec import hazard

rules = Rules()

COMMON_NODE = 8  # GPUs of a node, where the flavor does not say
BF16_CAPABILITY = 8.0
FP8_CAPABILITY = 8.9
FP8_METHODS = frozenset({"fp8", "fbgemm_fp8", "modelopt", "fp8_per_tensor", "fp8_per_block"})
MINIMUM = {
    "awq": 7.5,
    "awq_marlin": 7.5,
    "gptq_marlin": 7.5,
    "gptq": 6.0,
    "fp8": 7.5,
    "modelopt": 8.9,
    "bitsandbytes": 7.0,
    "mxfp4": 8.0,
    "experts_int8": 8.0,
}


@rules.rule
def profile_known(case: Case) -> Iterator[Finding]:
    """The engine profile must exist, name its image by digest, and be one whose flags are known."""
    profile, slug = case.profile, case.spec.engine.profile
    if profile is None:
        offered = ", ".join(sorted(case.facts.profiles))
        yield error("profile_unknown", "/spec/engine/profile", f"There is no engine “{slug}”.", f"Offered: {offered}.")
    elif profile.version not in versions():
        yield error(
            "profile_flags",
            "/spec/engine/profile",
            f"The flags of vLLM {profile.version} are not known to Slipway.",
            f"Known: {', '.join(versions())}.",
        )
    elif not profile.pinned:
        yield error(
            "profile_not_pinned",
            "/spec/engine/profile",
            f"The image of “{slug}” is not named by its digest, so it could change under a running deployment.",
            "An admin has to enter the digest.",
        )
    elif profile.sandbox_only and not case.facts.cluster.sandbox:
        yield error(
            "profile_sandbox_only",
            "/spec/engine/profile",
            f"The image digest of “{slug}” is that of the sandbox.",
            "An admin has to enter the digest their registry reports.",
        )


@rules.rule
def values_harmless(case: Case) -> Iterator[Finding]:
    """No value may be expanded on its way to the engine; the spec refuses this first."""
    for name, value in case.spec.engine.args.items():
        if isinstance(value, str) and (reason := hazard(value)):
            yield error("value_unsafe", arg_pointer(name), f"The value {reason}.")


@rules.rule
def flags(case: Case) -> Iterator[Finding]:
    """Each flag must be known to this version, settable, and have a value it takes."""
    if case.profile is not None and case.profile.version in versions():
        yield from check_args(case.profile.version, case.spec.engine.args, _usual(case))


def _usual(case: Case) -> dict[str, int | float]:
    """What this model on this GPU could take, to propose where a number is out of range."""
    model, node = case.model, case.flavor.gpus_per_node if case.flavor else COMMON_NODE
    tensor, stages = case.spec.tensor_parallel, case.spec.pipeline_parallel
    usual: dict[str, int | float] = {}
    if tensor > 1:
        most = max(1, node // stages)
        usual["tensor-parallel-size"] = splits(model, most)[-1] if model else 2 ** (most.bit_length() - 1)
    if stages > 1:
        usual["pipeline-parallel-size"] = max(1, node // tensor)
    if model is not None and model.max_position:
        usual["max-model-len"] = _longest(case, model, model.max_position)
    return usual


def _longest(case: Case, model: ModelFacts, most: int) -> int:
    """The longest context that fits in memory, at most what the model was made for."""
    if case.flavor is None:
        return most
    args = {name: value for name, value in case.spec.engine.args.items() if name != "max-model-len"}
    if not splits_by(model, case.spec.tensor_parallel) or case.spec.tensor_parallel > case.flavor.gpus_per_node:
        args.pop("tensor-parallel-size")
    try:
        fits = fit(model, case.flavor.gpu, args).max_context
    except UnknownShapeError:
        return most
    shorter = most if fits >= most else round_context(fits)
    return shorter if shorter >= MIN_CONTEXT else most


@rules.rule
def heads_divide(case: Case) -> Iterator[Finding]:
    """Attention heads are shared out evenly over the GPUs of one layer."""
    size, model = case.spec.tensor_parallel, case.model
    if model is None or size == 1 or splits_by(model, size):
        return
    most = case.flavor.gpus_per_node if case.flavor else 8
    allowed = splits(model, most)
    heads = f"{model.heads} attention heads" + (f" and {model.kv_heads} KV heads" if model.kv_heads else "")
    smaller = [item for item in allowed if item <= size]
    yield error(
        "heads_not_divisible",
        arg_pointer("tensor-parallel-size"),
        f"{model.id} has {heads}, which {size} GPUs cannot share evenly.",
        f"Possible: {', '.join(map(str, allowed))}.",
        smaller[-1] if smaller else None,
    )


@rules.rule
def kv_heads_replicated(case: Case) -> Iterator[Finding]:
    """More GPUs than KV heads keep copies: the cache per GPU shrinks no further."""
    size, model = case.spec.tensor_parallel, case.model
    if model is None or model.is_mla or not model.kv_heads or size <= model.kv_heads or not splits_by(model, size):
        return
    yield info(
        "kv_heads_replicated",
        arg_pointer("tensor-parallel-size"),
        f"With {model.kv_heads} KV heads, {size} GPUs keep copies of the KV cache: it gains nothing beyond "
        f"{model.kv_heads}.",
    )


@rules.rule
def stages(case: Case) -> Iterator[Finding]:
    """A model cannot have more stages than layers."""
    count, model = case.spec.pipeline_parallel, case.model
    if model is not None and model.layers and count > model.layers:
        yield error(
            "stages_over_layers",
            arg_pointer("pipeline-parallel-size"),
            f"{model.id} has {model.layers} layers; it cannot be cut into {count} stages.",
            f"Use at most {model.layers}.",
            model.layers,
        )


@rules.rule
def context_within_model(case: Case) -> Iterator[Finding]:
    """vLLM refuses a context longer than the model was made for."""
    length, model = case.whole("max-model-len"), case.model
    if model is None or not model.max_position or length is None or length <= model.max_position:
        return
    yield error(
        "context_over_model",
        arg_pointer("max-model-len"),
        f"{model.id} was made for {model.max_position:,} tokens; {length:,} is more.",
        f"Use at most {model.max_position:,}.",
        model.max_position,
    )


@rules.rule
def memory(case: Case) -> Iterator[Finding]:
    """Weights, activations and the KV cache of one full request must fit on each GPU."""
    estimate = estimate_of(case)
    if estimate is None or case.flavor is None:
        return
    if estimate.state is FitState.NO:
        yield _does_not_fit(case, estimate)
    elif estimate.state is FitState.TIGHT:
        yield warning(
            "memory_tight",
            arg_pointer("max-model-len"),
            f"It fits narrowly: {gib(estimate.free_gib)} of {gib(estimate.total_gib)} per GPU stay free after one "
            f"request of {estimate.max_model_len:,} tokens.",
            "The estimate is good to about 1 GiB: a shorter context is safer.",
            round_context(int(estimate.max_model_len * 0.75)) or None,
        )


def estimate_of(case: Case) -> Fit | None:
    """The memory estimate of this case; None while model, flavor or shape are not known."""
    if case.model is None or case.flavor is None:
        return None
    try:
        return fit(case.model, case.flavor.gpu, case.spec.engine.args)
    except UnknownShapeError:
        return None


def _does_not_fit(case: Case, estimate: Fit) -> Finding:
    assert case.model is not None
    assert case.flavor is not None
    others = [
        Choice(slug, item.gpu, item.gpus_per_node)
        for slug, item in sorted(case.facts.flavors.items())
        if item.enabled and slug != case.spec.flavor
    ]
    ways = options(
        case.model,
        case.flavor.gpu,
        case.spec.engine.args,
        gpus_per_node=case.flavor.gpus_per_node,
        others=others,
    )
    first = ways[0] if ways else None
    remedy = "No flavor here is large enough."
    if ways:
        remedy = f"It would fit with {', or with '.join(way.text for way in ways)}."
    return error(
        "memory",
        first.pointer if first else "/spec/flavor",
        f"Does not fit on {case.flavor.label}: of {gib(estimate.budget_gib)} per GPU, weights take "
        f"{gib(estimate.weights_gib)} and the engine {gib(estimate.activation_gib + estimate.overhead_gib)}; one "
        f"request of {estimate.max_model_len:,} tokens needs {gib(estimate.kv_needed_gib)} of KV cache, and "
        f"{gib(max(0.0, estimate.kv_gib))} are left.",
        remedy,
        first.value if first else None,
    )


@rules.rule
def number_formats(case: Case) -> Iterator[Finding]:
    """Older GPUs lack some number formats."""
    flavor, model = case.flavor, case.model
    if flavor is None or model is None or not flavor.compute_capability:
        return
    dtype = str(case.arg("dtype") or "auto")
    wants_bf16 = dtype == "bfloat16" or (dtype == "auto" and model.dtype == "bfloat16")
    if wants_bf16 and flavor.compute_capability < BF16_CAPABILITY:
        yield error(
            "dtype_bfloat16",
            arg_pointer("dtype"),
            f"{flavor.label} (compute capability {flavor.compute_capability}) cannot compute in bfloat16.",
            "Use half.",
            "half",
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
def batch_holds_requests(case: Case) -> Iterator[Finding]:
    """One step must have room for one token of each running request."""
    if case.flavor is None:
        return
    gpu, args = case.flavor.gpu, case.spec.engine.args
    length = case.whole("max-model-len") or (case.model.max_position if case.model else None) or 4096
    batch, running = batched_tokens(gpu, args, length), sequences(gpu, args)
    if batch < running:
        pointer = "max-num-batched-tokens" if case.arg("max-num-batched-tokens") else "max-num-seqs"
        yield error(
            "batch_below_requests",
            arg_pointer(pointer),
            f"A step of {batch:,} tokens cannot hold {running:,} running requests.",
            f"Use at least {running:,} tokens." if pointer == "max-num-batched-tokens" else f"Use at most {batch:,}.",
            running if pointer == "max-num-batched-tokens" else batch,
        )
    elif case.arg("enable-chunked-prefill") is False and batch < length:
        yield error(
            "batch_below_context",
            arg_pointer("max-num-batched-tokens"),
            f"Without chunked prefill a step must hold a whole prompt: {batch:,} tokens are fewer than {length:,}.",
            f"Use at least {length:,}, or leave chunked prefill on.",
            length,
        )


@rules.rule
def tools_need_parser(case: Case) -> Iterator[Finding]:
    """Automatic tool choice works only with a parser."""
    if case.arg("enable-auto-tool-choice") is True and not case.arg("tool-call-parser"):
        yield error(
            "tool_parser_missing",
            arg_pointer("enable-auto-tool-choice"),
            "Automatic tool choice needs tool-call-parser: the engine would not start.",
            "Set tool-call-parser to the one for this model, or leave both out.",
        )


@rules.rule
def experts(case: Case) -> Iterator[Finding]:
    """Expert parallelism means something for mixture-of-experts models only."""
    if case.arg("enable-expert-parallel") is True and case.model is not None and not case.model.experts:
        yield warning(
            "no_experts",
            arg_pointer("enable-expert-parallel"),
            f"{case.model.id} has no experts to spread.",
            "Leave enable-expert-parallel out.",
            False,
        )


@rules.rule
def model_unknown(case: Case) -> Iterator[Finding]:
    """Say so when memory and context could not be checked."""
    if case.flavor is not None and estimate_of(case) is None:
        yield info(
            "not_checked",
            "/spec/source/uri",
            "Memory and context were not checked: the model's shape is not known.",
        )
