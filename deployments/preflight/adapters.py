"""Rules about LoRA adapters: where they come from, whether they fit the model, and what the engine takes."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.attention import checked_version
from deployments.engine.flags import flags_of, versions
from deployments.engine.lora import RANKS, rank_for
from deployments.findings import Finding, arg_pointer, error, info, warning
from deployments.preflight.rules import Case, Rules
from deployments.sources import Scheme, SourceCode, SourceError, parse
from deployments.sources.adapters import AdapterFacts
from deployments.sources.formats import WeightFormat
from deployments.spec import Strategy

rules = Rules()

POINTER = "/spec/adapters"
# Kinds of credentials that the hub may know; "" where nobody said of which kind one is.
HUB_KINDS = frozenset({"hf", ""})
# Families whose experts take parts of the tokens of a step (sequence parallelism) once they are spread over the GPUs
# of several engines that split their layers, too.
TOKENS_SHARED = (
    *("AXK1", "DeepseekV2", "DeepseekV3", "Glm4MoeLite", "GlmMoeDsa", "GptOss", "GraniteMoe", "InternS1Pro"),
    *("K2Horizon", "Llama4", "MiMoV2", "MistralLarge3", "NemotronH", "PanguUltraMoE", "Qwen3Moe", "Qwen3Next"),
    *("Qwen3OmniMoe", "Qwen3VLMoe", "Qwen3_5Moe"),
)
FLAGS = ("enable-lora", "lora-modules", "max-lora-rank", "max-loras", "max-cpu-loras")


@rules.rule
def adapter_address(case: Case) -> Iterator[Finding]:
    """Adapters are fetched beside the model: from the hub."""
    for place, adapter in enumerate(case.spec.adapters):
        pointer = f"{POINTER}/{place}/uri"
        try:
            source = parse(adapter.uri)
        except SourceError as failure:
            yield error("adapter_form", pointer, f"{adapter.name}: {failure.finding.message}", failure.finding.remedy)
            continue
        if source.scheme is not Scheme.HF:
            yield error(
                "adapter_source",
                pointer,
                f"{adapter.name}: adapters come from the hub only, as hf://owner/adapter.",
                "Merge the adapter into the model, or put it on the hub.",
            )


@rules.rule
def adapter_name(case: Case) -> Iterator[Finding]:
    """The model itself answers under the deployment's name."""
    for place, adapter in enumerate(case.spec.adapters):
        if adapter.name == case.name:
            yield error(
                "adapter_name",
                f"{POINTER}/{place}/name",
                f"“{adapter.name}” is the deployment's own name, under which the model answers.",
                "Give the adapter another.",
            )


@rules.rule
def adapter_answer(case: Case) -> Iterator[Finding]:
    """What the hub said about each adapter, to everybody or to the wish's own credential."""
    for place, adapter in enumerate(case.spec.adapters):
        known = case.facts.adapters.get(adapter.name)
        if known is None or known.found or _may_open(case, known):
            continue
        make = warning if known.code == SourceCode.UNREACHABLE else error
        text, remedy = f"{adapter.name}: {known.message}", known.remedy
        if known.code == SourceCode.GATED and not known.private and (other := _of_another_kind(case)):
            text, remedy = f"{text} {other}", "Take the model from the hub too, or an adapter that everybody may read."
        yield make(f"adapter_{known.code}", f"{POINTER}/{place}/uri", text, remedy)


@rules.rule
def adapter_not_asked(case: Case) -> Iterator[Finding]:
    """Slipway cannot read a stored token: what it opens is known of adapters that it was tested with."""
    name = case.spec.source.credential
    for place, adapter in enumerate(case.spec.adapters):
        known = case.facts.adapters.get(adapter.name)
        if known is None or not _may_open(case, known):
            continue
        yield warning(
            "adapter_not_asked",
            f"{POINTER}/{place}/uri",
            f"{adapter.name}: {known.id} is private or gated, or not there. Whether “{name}” opens it shows when it is "
            "downloaded.",
            f"To know before: enter the token again and have it tested with {adapter.uri} beside the model.",
        )


def _may_open(case: Case, known: AdapterFacts) -> bool:
    """True where the wish's token may open what nobody else is shown, and nobody has tried yet."""
    credential = case.facts.credentials.get(case.spec.source.credential or "")
    mine = credential is not None and credential.kind in HUB_KINDS and not credential.refused
    return mine and known.code == SourceCode.GATED and not known.private


def _of_another_kind(case: Case) -> str:
    """Why the wish's credential is of no use for adapters; empty where there is none, or one of the hub."""
    name = case.spec.source.credential
    credential = case.facts.credentials.get(name or "")
    if credential is None or credential.kind in HUB_KINDS:
        return ""
    return f"Adapters are fetched with the credential of the model, and “{name}” is no Hugging Face token."


@rules.rule
def adapter_rank(case: Case) -> Iterator[Finding]:
    """vLLM takes ranks up to a bound."""
    for place, adapter in enumerate(case.spec.adapters):
        known = case.facts.adapters.get(adapter.name)
        if known is not None and known.rank is not None and rank_for(known.rank) is None:
            yield error(
                "adapter_rank",
                f"{POINTER}/{place}/uri",
                f"{adapter.name} has rank {known.rank:,}; vLLM takes at most {RANKS[-1]}.",
                "Merge the adapter into the model.",
            )


@rules.rule
def adapter_base(case: Case) -> Iterator[Finding]:
    """An adapter belongs to the model it was trained on; on another of the same shape it answers nonsense."""
    model = case.model
    for place, adapter in enumerate(case.spec.adapters):
        known = case.facts.adapters.get(adapter.name)
        if model is None or known is None or not known.base or known.base.lower() == model.id.lower():
            continue
        yield warning(
            "adapter_base",
            f"{POINTER}/{place}/uri",
            f"{adapter.name} was made for {known.base}, not for {model.id}.",
            "Unless they are the same weights, choose the model it was made for.",
        )


@rules.rule
def adapter_hand_over(case: Case) -> Iterator[Finding]:
    """Prefill computes with the adapter and decode goes on with it: vLLM does not say that it was tried."""
    if case.spec.adapters and case.spec.strategy is Strategy.DISAGGREGATED:
        yield info(
            "adapter_hand_over",
            POINTER,
            "Both roles load the adapters, and a prompt is computed with the one that the request names. "
            "What vLLM says of KV caches that are handed over (NIXL) names no adapters, so nobody promises it.",
            "Compare some answers with those of one standard replica before you rely on it.",
        )


@rules.rule
def adapter_engine(case: Case) -> Iterator[Finding]:
    """The engine must take adapters at its start."""
    profile = case.profile
    if not case.spec.adapters or profile is None or profile.version not in versions():
        return
    if missing := [name for name in FLAGS if name not in flags_of(profile.version)]:
        yield error(
            "adapter_engine",
            "/spec/engine/profile",
            f"vLLM {profile.version} does not know {', '.join(missing)}.",
            "Choose a newer engine, or leave the adapters out.",
        )


@rules.rule
def adapter_weights(case: Case) -> Iterator[Finding]:
    """GGUF weights and adapters do not go together in vLLM."""
    model, source = case.model, case.loads
    # Of a claim, and of a bucket that nobody could look into, the name alone says so.
    named = source is not None and source.path.endswith(".gguf")
    if case.spec.adapters and (named or (model is not None and model.format == WeightFormat.GGUF)):
        yield error(
            "adapter_weights",
            POINTER,
            f"{source.id if source else case.spec.source.uri} is a GGUF file: vLLM lays no adapters over those.",
            "Choose the model as safetensors.",
        )


@rules.rule
def adapter_experts(case: Case) -> Iterator[Finding]:
    """Over experts that take parts of a step's tokens vLLM lays no adapters (lora/layers/fused_moe.py, `_ep_check`)."""
    spec, model = case.spec, case.model
    spread = case.arg("enable-expert-parallel") is True and spec.tensor_parallel > 1 and spec.data_parallel > 1
    if not spec.adapters or not spread or model is None or not model.experts:
        return
    sure = case.version == checked_version() and model.architecture.startswith(TOKENS_SHARED)
    pointer, value = _undone(case)
    yield (error if sure else warning)(
        "adapter_experts",
        pointer,
        f"With {spec.data_parallel} engines of {spec.tensor_parallel} GPUs, experts that are spread over all of them "
        "take a part of the tokens each, and vLLM lays no adapters over such: the engine "
        f"{'would not start' if sure else 'may not start'}.",
        "Leave enable-expert-parallel out, or data-parallel-size and ask for more replicas; or leave the adapters out.",
        value,
    )


def _undone(case: Case) -> tuple[str, int | bool]:
    """What to change of experts that are spread over several engines: the first that leads to nothing else."""
    ways: tuple[tuple[str, int | bool], ...] = (
        (arg_pointer("enable-expert-parallel"), False),
        (arg_pointer("data-parallel-size"), 1),
    )
    return next((way for way in ways if case.admits is None or case.admits([way])), ways[0])


@rules.rule
def adapter_experts_moved(case: Case) -> Iterator[Finding]:
    """Experts that are moved between GPUs leave their adapters behind: vLLM's balancer knows nothing of them."""
    if case.spec.adapters and case.arg("enable-eplb") is True and case.model is not None and case.model.experts:
        yield warning(
            "adapter_experts_moved",
            arg_pointer("enable-eplb"),
            "enable-eplb moves experts between GPUs, and vLLM does not move what adapters add to them: answers of "
            "adapters that change experts may be wrong.",
            "Leave enable-eplb out.",
            False,
        )
