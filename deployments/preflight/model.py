"""Rules about what the model is made for: its context, and whether it writes text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deployments.engine.architectures import known_models
from deployments.engine.facts import ModelFacts
from deployments.engine.flags import release
from deployments.findings import Finding, arg_pointer, error, info, warning
from deployments.preflight.rules import Case, Rules
from deployments.sources.identity import MODULES
from deployments.spec import ArgValue

rules = Rules()

# Of this release its configuration was read; an older one looks at less before it starts.
CHECKED = (0, 32, 0)

# What names of architectures that write text end in.
WRITERS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForBlockDiffusion")


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
def context_unasked(case: Case) -> Iterator[Finding]:
    """Models with two sets of rotary factors are served with the shorter one where nobody asks for more."""
    model = case.model
    if model is None or not model.context_unasked or case.arg("max-model-len") is not None:
        return
    yield info(
        "context_unasked",
        arg_pointer("max-model-len"),
        f"vLLM takes {model.context_unasked:,} tokens of {model.id} where max-model-len is not given: short prompts "
        f"are answered best so. It was made for up to {model.max_position or 0:,}.",
        "Set it where longer prompts come.",
    )


@rules.rule
def context_within_window(case: Case) -> Iterator[Finding]:
    """With the window treated as the whole context, vLLM refuses a longer one."""
    length, model = case.whole("max-model-len"), case.model
    if case.arg("disable-sliding-window") is not True or model is None or not model.sliding_window or length is None:
        return
    if length > model.sliding_window:
        yield error(
            "context_over_window",
            arg_pointer("max-model-len"),
            f"Without sliding windows {model.id} has {model.sliding_window:,} tokens; {length:,} is more.",
            f"Use at most {model.sliding_window:,}, or leave disable-sliding-window out.",
            model.sliding_window,
        )


@rules.rule
def writes_text(case: Case) -> Iterator[Finding]:
    """An encoder or a classifier answers no chat: say so before somebody waits for one."""
    model = case.model
    if model is None or not model.architecture or _writes(case, model):
        return
    known, runner = known_models(case.version), case.arg("runner")
    if model.pooled and _by_architecture(case, model):
        yield warning(
            "no_text",
            "/spec/source/uri",
            f"Beside the weights of {model.id} lies a layer that pools ({MODULES}): the engine gives embeddings, and "
            "writes no text.",
            "For chat choose another model.",
        )
    elif runner == "generate" and known is not None and model.architecture in known.pooling:
        yield error(
            "runner_pooling",
            arg_pointer("runner"),
            f"{model.id} is a {model.architecture}, which gives embeddings or scores and writes no text: with "
            "runner=generate the engine would not start.",
            "Leave runner out.",
            "auto",
        )
    elif not pooling_flag(case.spec.engine.args):
        yield warning(
            "no_text",
            "/spec/source/uri",
            f"{model.id} is a {model.architecture}: it may give embeddings or scores, but write no text.",
            "For chat choose a model whose architecture ends in ForCausalLM or ForConditionalGeneration.",
        )


def pooling_flag(args: Mapping[str, ArgValue]) -> str:
    """The flag that makes a model one of embeddings or scores, whatever it is by itself; empty where none does."""
    runner = args.get("runner", "auto")
    if runner == "pooling":
        return "runner"
    return "convert" if runner == "auto" and args.get("convert", "auto") not in {"auto", "none"} else ""


def pools_by_itself(case: Case) -> bool:
    """True where the engine takes the model, as nobody says otherwise, for one of embeddings or scores."""
    model, known = case.model, known_models(case.version)
    if model is None or case.arg("runner") not in {None, "auto"}:
        return False
    return model.pooled or (known is not None and bool(model.architecture) and known.pools(model.architecture))


@rules.rule
def pooling_converts(case: Case) -> Iterator[Finding]:
    """A model that writes text gives embeddings or scores only by an adapter for that."""
    model = case.model
    asked = case.arg("runner") == "pooling" and case.arg("convert") == "none"
    if asked and model is not None and model.architecture.endswith(WRITERS) and _by_architecture(case, model):
        yield error(
            "pooling_unconverted",
            arg_pointer("convert"),
            f"{model.id} is a {model.architecture}, which writes text: with runner=pooling and convert=none nothing "
            "makes embeddings or scores of it, and the engine would not start.",
            "Leave convert out, or set embed or classify.",
            "auto",
        )


@rules.rule
def embeddings_as_prompts(case: Case) -> Iterator[Finding]:
    """What an encoder reads is no prompt that could come as embeddings."""
    model = case.model
    if case.arg("enable-prompt-embeds") is not True or model is None or not model.encoder_decoder:
        return
    stops = release(case.version) >= CHECKED
    yield (error if stops else warning)(
        "prompt_embeds_encoder",
        arg_pointer("enable-prompt-embeds"),
        f"{model.id} has an encoder, and its decoder takes no embeddings in place of a prompt: the engine "
        f"{'would not start' if stops else 'may stop at such a request'}.",
        "Leave enable-prompt-embeds out.",
        False,
    )


def gives_embeddings(case: Case) -> bool:
    """True where the engine runs the model for embeddings or scores: as it is told, or by itself."""
    return bool(pooling_flag(case.spec.engine.args)) or pools_by_itself(case)


def reads_whole(case: Case) -> bool:
    """True where the engine cuts no prompt in parts: as it is told, or as such a model needs it."""
    asked, model = case.arg("enable-chunked-prefill"), case.model
    if asked is False or model is None:
        return asked is False
    pools = gives_embeddings(case)
    if model.encoder_decoder and not pools:
        return True  # Whatever is asked for.
    known = known_models(case.version)
    undivided = model.both_ways or (known is not None and model.architecture in known.undivided)
    return pools and undivided and asked is not True


def _writes(case: Case, model: ModelFacts) -> bool:
    pooled = model.pooled and pools_by_itself(case) and not pooling_flag(case.spec.engine.args)
    return not pooled and _by_architecture(case, model)


def _by_architecture(case: Case, model: ModelFacts) -> bool:
    """True for a model that the engine takes for one that writes; of one that it does not know its name says so."""
    known = known_models(case.version)
    if known is not None and model.architecture in known.architectures:
        return model.architecture not in known.pooling
    return model.architecture.endswith(WRITERS)
