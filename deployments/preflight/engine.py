"""Rules about the engine: its profile, its flags, and what these mean together."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.flags import check_args, flags_of, release, versions
from deployments.engine.gpus import COMMON_NODE
from deployments.engine.options import MIN_CONTEXT, round_context, splits, splits_by
from deployments.engine.quantization import methods_of
from deployments.engine.sizing import UnknownShapeError, batched_tokens, sequences
from deployments.findings import Finding, arg_pointer, error, info
from deployments.preflight.facts import FlavorFacts
from deployments.preflight.model import reads_whole
from deployments.preflight.quantised import method_here
from deployments.preflight.reading import FLAG, says_method
from deployments.preflight.rules import Case, Rules
from deployments.spec import hazard

rules = Rules()

VENDOR = "nvidia.com/"
PLANNED, LONG = "max-num-scheduled-tokens", "long-prefill-token-threshold"
GRAPHS = ("max-cudagraph-capture-size", "cudagraph-capture-sizes")
# Methods whose experts vLLM does not move while it runs (`supports_eplb` of its classes, alike from 0.17 to 0.32).
UNMOVED = frozenset({"humming", "moe_wna16", "modelopt", "modelopt_mxfp8", "gpt_oss_mxfp4", "bitsandbytes", "gguf"})
UNMOVED |= {"awq", "awq_marlin", "auto_awq", "gptq", "gptq_marlin", "auto_gptq", "inc"}
# Those in mxfp4 it moves since 0.24, where the model is not gpt-oss, which has a class of its own.
MXFP4, MOVED_SINCE, APART = "mxfp4", (0, 24), "GptOss"


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
def gpu_vendor(case: Case) -> Iterator[Finding]:
    """vLLM's images are made for one vendor's GPUs."""
    flavor = case.flavor
    if flavor is not None and not flavor.resource_name.startswith(VENDOR):
        yield error(
            "gpu_vendor",
            "/spec/flavor",
            f"{flavor.label} is offered as {flavor.resource_name}; the engines here are made for NVIDIA GPUs.",
            "Choose a flavor of NVIDIA GPUs.",
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
        # A method that only other engines have is refused with where to find it (deployments.preflight.reading).
        args = {name: value for name, value in case.spec.engine.args.items() if name != FLAG or not says_method(case)}
        has = methods_of(case.profile.version, case.profile.plugins) if FLAG in args else ()
        yield from check_args(case.profile.version, args, lambda: _usual(case), {FLAG: tuple(sorted(has))})


def _usual(case: Case) -> dict[str, int | float]:
    """What this model on this GPU could take, to propose where a number is out of range."""
    model, node = case.model, case.flavor.gpus_per_node if case.flavor else COMMON_NODE
    tensor, stages, engines = case.spec.tensor_parallel, case.spec.pipeline_parallel, case.spec.data_parallel
    usual: dict[str, int | float] = {}
    if tensor > 1:
        most = max(1, node // (stages * engines))
        usual["tensor-parallel-size"] = splits(model, most)[-1] if model else 2 ** (most.bit_length() - 1)
    if stages > 1:
        usual["pipeline-parallel-size"] = max(1, node // (tensor * engines))
    if engines > 1:
        usual["data-parallel-size"] = max(1, node // (tensor * stages))
    if case.context and (case.whole(LONG) or 0) > case.context:
        usual[LONG] = case.context
    if model is not None and model.max_position:
        usual["max-model-len"] = _longest(case, model.max_position)
    return usual


def _longest(case: Case, most: int) -> int:
    """The longest context that fits in memory, at most what the model was made for."""
    sizer = case.sizer
    if case.flavor is None or sizer is None:
        return most
    args = {name: value for name, value in case.spec.engine.args.items() if name != "max-model-len"}
    if not splits_by(sizer.model, case.spec.tensor_parallel) or case.spec.tensor_parallel > case.flavor.gpus_per_node:
        args.pop("tensor-parallel-size")
    try:
        fits = sizer.fit(case.flavor.gpu, args).max_context
    except UnknownShapeError:
        return most
    shorter = most if fits >= most else round_context(fits)
    return shorter if shorter >= MIN_CONTEXT else most


@rules.rule
def batch_holds_requests(case: Case) -> Iterator[Finding]:
    """One step must have room for one token of each running request."""
    if case.flavor is None:
        return
    batch, running, length = steps(case, case.flavor)
    if batch < running:
        pointer = "max-num-batched-tokens" if case.arg("max-num-batched-tokens") else "max-num-seqs"
        yield error(
            "batch_below_requests",
            arg_pointer(pointer),
            f"A step of {batch:,} tokens cannot hold {running:,} running requests.",
            f"Use at least {running:,} tokens." if pointer == "max-num-batched-tokens" else f"Use at most {batch:,}.",
            running if pointer == "max-num-batched-tokens" else batch,
        )
    elif reads_whole(case) and batch < length:
        model = None if case.arg("enable-chunked-prefill") is False else case.model
        why = f"Prompts of {model.id} are never cut, and" if model else "Without chunked prefill"
        yield error(
            "batch_below_context",
            arg_pointer("max-num-batched-tokens"),
            f"{why} a step must hold a whole prompt: {batch:,} tokens are fewer than {length:,}.",
            f"Use at least {length:,}, or leave {'it out' if model else 'chunked prefill on'}.",
            length,
        )
    elif case.model is not None and case.model.encoder_decoder and (given := _batch(case)) and given < length:
        yield error(
            "batch_below_context",
            arg_pointer("max-num-batched-tokens"),
            f"{case.model.id} has an encoder, so prompts are not computed in chunks, and a step must hold a whole one: "
            f"{given:,} tokens are fewer than {length:,}.",
            f"Use at least {length:,}, or leave it out.",
            length,
        )


def _batch(case: Case) -> int | None:
    return case.whole("max-num-batched-tokens")


@rules.rule
def steps_within_batch(case: Case) -> Iterator[Finding]:
    """No more may be planned for a step than it has room for: the engine takes both numbers, and fails under load."""
    planned = case.whole(PLANNED)
    if planned is None or case.flavor is None:
        return
    batch, *_ = steps(case, case.flavor)
    if planned > batch:
        yield error(
            "planned_over_batch",
            arg_pointer(PLANNED),
            f"{planned:,} tokens would be planned for a step that has room for {batch:,}: the engine starts, and ends "
            "with the first step that is fuller.",
            f"Use at most {batch:,}, or leave it out.",
            batch,
        )


def steps(case: Case, flavor: FlavorFacts) -> tuple[int, int, int]:
    """Tokens of one step, requests that run at once, and tokens of the context, where flags say or as is usual."""
    args = dict(case.spec.engine.args)
    if reads_whole(case):
        args["enable-chunked-prefill"] = False
    length = case.context or 4096
    batch = batched_tokens(flavor.gpu, args, length, case.defaults)
    return batch, sequences(flavor.gpu, args, batch, case.defaults), length


@rules.rule
def long_prompts_within_context(case: Case) -> Iterator[Finding]:
    """What counts as a long prompt cannot be longer than any prompt."""
    threshold, length = case.whole(LONG), case.context
    flag = flags_of(case.version).get(LONG) if case.version in versions() else None
    if threshold is None or (flag is not None and flag.max is not None and threshold > flag.max):
        return  # Refused as a number that the flag does not take.
    if length and threshold > length:
        yield error(
            "long_prefill",
            arg_pointer(LONG),
            f"Prompts count as long from {threshold:,} tokens on, and the context is {length:,}: the engine would not "
            "start.",
            f"Use at most {length:,}, or leave it out.",
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
    elif case.arg("tool-call-parser") and case.arg("enable-auto-tool-choice") is None:
        yield info(
            "tool_parser_alone",
            arg_pointer("enable-auto-tool-choice"),
            "A parser alone lets no model call tools by itself: that takes enable-auto-tool-choice.",
            "Set it to let the model choose.",
            True,
        )


@rules.rule
def experts_moved(case: Case) -> Iterator[Finding]:
    """Experts are moved by load only where they are spread over several GPUs."""
    if case.arg("enable-eplb") is not True:
        return
    model, gpus = case.model, case.spec.tensor_parallel * case.spec.data_parallel
    if model is not None and not model.experts and model.has_shape:
        said, one = f"{model.id} has no experts", True
    elif gpus == 1:
        said, one = "on one GPU there is nowhere to move them", True
    elif case.arg("enable-expert-parallel") is not True:
        said, one = "only those that enable-expert-parallel spreads can be moved", False
    elif model is not None and model.experts % gpus:
        said, one = f"{model.experts} do not come out even on {gpus}", True
    elif unmoved := _unmoved(case):
        said, one = f"those in {unmoved} are moved by no kernel", True
    else:
        return
    yield error(
        "experts_moved",
        arg_pointer("enable-eplb" if one else "enable-expert-parallel"),
        f"enable-eplb moves experts between GPUs, and {said}: the engine would not start.",
        "Leave enable-eplb out." if one else "Set enable-expert-parallel too, or leave enable-eplb out.",
        not one,
    )


def _unmoved(case: Case) -> str:
    """The method that experts are quantised by, where the engine moves none of it; empty where it does."""
    way, model = method_here(case), case.model
    if way is None:
        return ""
    own = model is not None and model.architecture.startswith(APART)
    late = way.name == MXFP4 and (own or release(case.version) < MOVED_SINCE)
    return way.name if late or way.name in UNMOVED else ""


@rules.rule
def graphs_captured(case: Case) -> Iterator[Finding]:
    """Which CUDA graphs are captured is of no account where none are."""
    if case.arg("enforce-eager") is not True:
        return
    for flag in GRAPHS:
        if case.arg(flag) is not None:
            yield info(
                "graphs_not_captured",
                arg_pointer(flag),
                "With enforce-eager no CUDA graphs are captured, so this does nothing.",
                "Leave this out, or enforce-eager, which makes answers slower.",
            )
