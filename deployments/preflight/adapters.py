"""Rules about LoRA adapters: where they come from, whether they fit the model, and what the engine takes."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.engine.flags import flags_of, versions
from deployments.engine.lora import RANKS, rank_for
from deployments.findings import Finding, error, warning
from deployments.preflight.rules import Case, Rules
from deployments.sources import Scheme, SourceCode, SourceError, parse
from deployments.sources.formats import WeightFormat

rules = Rules()

POINTER = "/spec/adapters"
FLAGS = ("enable-lora", "lora-modules", "max-lora-rank", "max-loras", "max-cpu-loras")


@rules.rule
def adapter_address(case: Case) -> Iterator[Finding]:
    """Adapters are fetched beside the model, without keys: from the hub."""
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
    """What the hub said about each adapter."""
    for place, adapter in enumerate(case.spec.adapters):
        known = case.facts.adapters.get(adapter.name)
        if known is None or known.found:
            continue
        make = warning if known.code == SourceCode.UNREACHABLE else error
        yield make(f"adapter_{known.code}", f"{POINTER}/{place}/uri", f"{adapter.name}: {known.message}")


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
