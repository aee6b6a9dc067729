"""Rules about speculative decoding: how tokens are proposed, and what that asks of the rest."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.architectures import known_models
from deployments.engine.kv import PLANNED
from deployments.findings import Finding, arg_pointer, error
from deployments.preflight.engine import steps
from deployments.preflight.rules import Case, Rules

rules = Rules()

# Families whose layers of this kind the configuration does not count.
MTP_UNSAID = ("Qwen3Next",)
# The class of vLLM that runs the layers of a family that propose tokens.
DRAFTS = {
    "DeepseekV3ForCausalLM": "DeepSeekMTPModel",
    "DeepseekV32ForCausalLM": "DeepSeekMTPModel",
    "GlmMoeDsaForCausalLM": "DeepSeekMTPModel",
    "Glm4MoeForCausalLM": "Glm4MoeMTPModel",
    "MiMoForCausalLM": "MiMoMTPModel",
    "Ernie4_5_MoeForCausalLM": "ErnieMTPModel",
    "Qwen3NextForCausalLM": "Qwen3NextMTP",
    "LongcatFlashForCausalLM": "LongCatFlashMTPModel",
}


@rules.rule
def speculation_with_adapters(case: Case) -> Iterator[Finding]:
    """With adapters a step must hold what is proposed for each running request."""
    count = case.whole("spec-tokens")
    if not case.spec.adapters or count is None or count < 1 or case.flavor is None or not case.arg("spec-method"):
        return
    batch, running, _ = steps(case, case.flavor)
    needed = running * (count + 1)
    if batch < running or batch >= needed:
        return  # Fewer tokens than requests are refused already.
    fewer = batch // (count + 1)
    yield error(
        "speculation_adapters",
        arg_pointer("max-num-seqs"),
        f"With adapters a step must hold the {count + 1} tokens of each of {running:,} requests, {needed:,} in all; it "
        f"has {batch:,}: the engine would not start.",
        f"Use at most {fewer:,} requests at once, or a max-num-batched-tokens of {needed:,}.",
        fewer,
    )


@rules.rule
def speculation(case: Case) -> Iterator[Finding]:
    """Proposing several tokens at once takes a method and a number."""
    method, count = case.arg("spec-method"), case.whole("spec-tokens")
    if method is not None and count is None:
        yield error(
            "speculation_tokens",
            arg_pointer("spec-tokens"),
            "spec-method needs the number of tokens that are proposed at once: the engine would not start.",
            "Set spec-tokens, for example to 3.",
            3,
        )
    elif method is None and count is not None:
        yield error(
            "speculation_method",
            arg_pointer("spec-method"),
            "spec-tokens needs the method by which tokens are proposed: the engine would not start.",
            "Set spec-method, for example to ngram.",
            "ngram",
        )


@rules.rule
def speculation_layers(case: Case) -> Iterator[Finding]:
    """Layers that propose tokens are part of the model, or there are none."""
    model = case.model
    if case.arg("spec-method") != "mtp" or model is None or model.mtp_layers != 0:
        return
    if not model.architecture.startswith(MTP_UNSAID):
        yield error(
            "speculation_mtp",
            arg_pointer("spec-method"),
            f"{model.id} has no layers of its own that propose tokens (mtp): the engine would not start.",
            "Use ngram, which takes them from the prompt, or leave spec-method and spec-tokens out.",
            "ngram",
        )


@rules.rule
def speculation_rounds(case: Case) -> Iterator[Finding]:
    """Several layers that propose tokens propose so many at a time: whole rounds of them."""
    model, count = case.model, case.whole("spec-tokens")
    layers = model.mtp_layers if model is not None else None
    if case.arg("spec-method") != "mtp" or model is None or not layers or count is None:
        return
    if count > layers and count % layers:
        fewer = count - count % layers
        yield error(
            "speculation_rounds",
            arg_pointer("spec-tokens"),
            f"{model.id} has {layers} layers that propose tokens, one each: {count} are no whole number of rounds, and "
            "the engine would not start.",
            f"Use {fewer}, or at most {layers}.",
            fewer,
        )


@rules.rule
def speculation_in_stages(case: Case) -> Iterator[Finding]:
    """Engines up to 0.20 cut the layers that propose tokens into stages too, which most of these cannot be."""
    model = case.model
    known = known_models(case.profile.version) if case.profile is not None else None
    if case.arg("spec-method") != "mtp" or case.spec.pipeline_parallel == 1 or model is None or known is None:
        return
    draft = DRAFTS.get(model.architecture, "")
    if known.drafts_cut and draft in known.whole:
        yield error(
            "speculation_stages",
            arg_pointer("spec-method"),
            f"vLLM {case.version} cuts the layers of {model.id} that propose tokens into stages as well, which "
            f"{draft} does not bear: the engine would not start.",
            "Leave spec-method and spec-tokens out, or pipeline-parallel-size; or choose an engine from 0.32 on.",
        )


@rules.rule
def speculation_planned(case: Case) -> Iterator[Finding]:
    """The next step is planned ahead only where what it proposes is already on the GPU."""
    method = case.arg("spec-method")
    if case.arg("async-scheduling") is True and method is not None and method not in PLANNED:
        yield error(
            "speculation_async",
            arg_pointer("async-scheduling"),
            f"With {method} vLLM cannot plan a step ahead (async-scheduling): the engine would not start.",
            "Leave async-scheduling out: the engine then does without.",
            False,
        )
