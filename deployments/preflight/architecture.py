"""Rules about what runs a model: the engine itself, transformers, or Python code that lies with the weights.

And about what that can do: have its layers cut into stages, and take LoRA adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deployments.engine.architectures import Known, Way, known_models
from deployments.engine.facts import ModelFacts
from deployments.engine.flags import release
from deployments.engine.profiles import EngineProfile
from deployments.findings import Change, Finding, arg_pointer, error, warning
from deployments.preflight.rules import Case, Rules, plural

rules = Rules()

TRUST = "trust-remote-code"
SOURCE, ADAPTERS, NODES = "/spec/source/uri", "/spec/adapters", "/spec/nodes"
TENSOR, STAGES = "tensor-parallel-size", "pipeline-parallel-size"
ALLOW = "Set trust-remote-code, which an admin approves who trusts that code, or"
TRY = "Try it with one replica first, or"


@rules.rule
def configuration_read(case: Case) -> Iterator[Finding]:
    """A configuration of a type that the engine does not know is Python code of the repository, or nothing."""
    model, known = looked_up(case)
    if model is None or known is None or known.reads(model.model_type or "", model.architectures):
        return
    named = f"is of the model type “{model.model_type}”" if model.model_type else "names no model type"
    lacks = f"vLLM {case.version} and its transformers {known.transformers} have no configuration for that"
    if model.own_config:
        if case.arg(TRUST) is not True:
            yield error(
                "remote_code_config",
                arg_pointer(TRUST),
                f"{model.id} {named}: {lacks}, and the one that its repository brings is Python code. Without "
                "trust-remote-code the engine stops at once.",
                f"{ALLOW} {_another(case, model)}",
                True,
            )
    elif _names_all(model):
        yield error(
            "model_type_unknown",
            SOURCE,
            f"{model.id} {named}: {lacks}, so the engine would not start.",
            _sentence(_another(case, model)),
        )
    else:
        # The configuration may say more than what was read of it.
        yield warning(
            "model_type_unsaid",
            SOURCE,
            f"{model.id} {named}, or no architecture: as far as its configuration was read, {lacks}.",
            "Look at its config.json: the engine starts only with what it knows.",
        )


@rules.rule
def architecture_runs(case: Case) -> Iterator[Finding]:
    """Something must implement the architecture: vLLM, transformers in its place, or code of the repository."""
    model, known = looked_up(case)
    if model is None or known is None or not model.architectures:
        return
    trusted, name = case.arg(TRUST) is True, model.architectures[0]
    if not known.reads(model.model_type or "", model.architectures):
        stops = not trusted if model.own_config else _names_all(model)
        if stops:
            return
    way = known.way(model.architectures, own_model=model.own_model)
    if way is Way.NONE:
        yield error(
            "architecture_unknown",
            SOURCE,
            f"vLLM {case.version} has no implementation of {name}{_history(known, name)}, and transformers has none "
            "that it could run: the engine would not start.",
            _sentence(_another(case, model)),
        )
    elif way is Way.REPOSITORY and not trusted:
        yield error(
            "remote_code_model",
            arg_pointer(TRUST),
            f"vLLM {case.version} has no implementation of {name}{_history(known, name)}; the only one is Python code "
            f"of the repository of {model.id}, which is not run without trust-remote-code: the engine would not start.",
            f"{ALLOW} {_another(case, model)}",
            True,
        )
    elif way is Way.REPOSITORY:
        yield warning(
            "architecture_of_repository",
            SOURCE,
            f"vLLM {case.version} has no implementation of {name}: it would run that of the repository, which works "
            "only where that is written for transformers' attention interface; else the engine stops at its start.",
            f"{TRY} {_another(case, model)}",
        )
    elif way is Way.TRANSFORMERS:
        yield warning(
            "architecture_of_transformers",
            SOURCE,
            f"vLLM {case.version} has no implementation of {name}{_history(known, name)}: it would run the one of "
            f"transformers {known.transformers} with its own attention. Layers that it cannot exchange are slower, and "
            "quantised weights, several GPUs or images may stop the engine at its start.",
            f"{TRY} {_another(case, model)}",
        )


@rules.rule
def layers_in_stages(case: Case) -> Iterator[Finding]:
    """Only some classes of vLLM have their layers cut into stages; with others the engine stops at its start."""
    model, known = _runnable(case)
    if case.spec.pipeline_parallel == 1 or model is None or known is None:
        return
    can, name = known.cuts(model.architectures), model.architectures[0]
    if can is None:
        yield warning(
            "stages_unsaid",
            arg_pointer(STAGES),
            f"Whether vLLM {case.version} can cut the layers of {name} into stages is not known: the engine may stop "
            "at its start.",
            "Split by tensor-parallel-size instead, or try it with one replica first.",
        )
    elif not can:
        fix = _without_stages(case)
        yield error(
            "stages_unsupported",
            arg_pointer(STAGES),
            f"vLLM {case.version} cannot cut the layers of {name} into stages: the engine would not start.",
            f"{_in_words(case, fix)} {elsewhere(case, model, Known.cuts, 'can')}".strip(),
            1 if fix else None,
            also=tuple(change for change in fix if change[0] != arg_pointer(STAGES)),
        )


def _without_stages(case: Case) -> tuple[Change, ...]:
    """Changes that do without stages and that nothing else refuses; empty where there are none."""
    spec, one = case.spec, (arg_pointer(STAGES), 1)
    whole: tuple[Change, ...] = (one, (arg_pointer(TENSOR), spec.tensor_parallel * spec.pipeline_parallel))
    ways: list[tuple[Change, ...]] = [whole, (one,)]
    if spec.nodes > 1:
        ways = [(*whole, (NODES, 1)), (one, (NODES, 1)), *ways]
    return next((way for way in ways if case.admits is not None and case.admits(way)), ())


def _in_words(case: Case, fix: tuple[Change, ...]) -> str:
    if not fix:
        return "Leave pipeline-parallel-size out, and split each layer by tensor-parallel-size, on one node."
    size, node = dict(fix).get(arg_pointer(TENSOR)), ", on one node" if (NODES, 1) in fix else ""
    if size is None:
        return f"Leave pipeline-parallel-size out{node}."
    return f"Leave pipeline-parallel-size out, and split each layer by tensor-parallel-size {size}{node}."


@rules.rule
def adapters_taken(case: Case) -> Iterator[Finding]:
    """Only some classes of vLLM take LoRA adapters; with others the engine stops at its start."""
    model, known = _runnable(case)
    if not case.spec.adapters or model is None or known is None:
        return
    can, name = known.adapts(model.architectures), model.architectures[0]
    if can is None:
        yield warning(
            "adapter_architecture_unsaid",
            ADAPTERS,
            f"Not every {name} takes LoRA adapters in vLLM {case.version}, and whether this one does is not known: the "
            "engine may stop at its start.",
            "Try it with one replica first, or merge the adapter into the model.",
        )
    elif not can:
        adapters = plural(len(case.spec.adapters), "adapter")
        yield error(
            "adapter_architecture",
            ADAPTERS,
            f"vLLM {case.version} lays no LoRA adapters over a {name}: with the {adapters} the engine would not start.",
            f"Leave them out, or merge one into the model's weights and serve those. "
            f"{elsewhere(case, model, Known.adapts, 'does')}".strip(),
        )


def _runnable(case: Case) -> tuple[ModelFacts | None, Known | None]:
    """The model that something is known to run, and what the engine's release knows; else another rule speaks."""
    model, known = looked_up(case)
    if model is None or known is None or not model.architectures:
        return None, None
    runs = known.way(model.architectures, own_model=model.own_model) is not Way.NONE
    return (model, known) if runs else (None, None)


def elsewhere(case: Case, model: ModelFacts, can: Callable[[Known, tuple[str, ...]], bool | None], verb: str) -> str:
    """The newest engine on offer that has the model itself and can do what this one cannot; else empty."""
    for profile in _offered(case):
        known = known_models(profile.version)
        if known is None or not known.reads(model.model_type or "", model.architectures):
            continue
        if known.way(model.architectures, own_model=False) is Way.OWN and can(known, model.architectures):
            return f"Or choose the engine “{profile.slug}”, whose vLLM {profile.version} {verb}."
    return ""


def looked_up(case: Case) -> tuple[ModelFacts | None, Known | None]:
    """The model, if its configuration was read and is what the engine reads, and what the engine's release knows."""
    model = case.model
    if model is None or model.model_type is None or case.profile is None:
        return None, None
    return model, known_models(case.profile.version)


def _names_all(model: ModelFacts) -> bool:
    return bool(model.model_type and model.architectures)


def _history(known: Known, name: str) -> str:
    if name in known.gone:
        return f" (the last that had one is {known.gone[name]})"
    return f" (a plugin has it that is not in its image: {known.plugins[name]})" if name in known.plugins else ""


def _another(case: Case, model: ModelFacts) -> str:
    """The engine that has the model itself, the newest of those offered; where there is none, another model."""
    for profile in _offered(case):
        known = known_models(profile.version)
        reads = known is not None and known.reads(model.model_type or "", model.architectures)
        if known is None or not reads or not model.architectures:
            continue
        if known.way(model.architectures, own_model=False) is Way.OWN:
            return f"choose the engine “{profile.slug}”, whose vLLM {profile.version} has the model itself."
    return "choose a model that vLLM has itself."


def _offered(case: Case) -> list[EngineProfile]:
    return sorted(case.facts.profiles.values(), key=lambda each: release(each.version), reverse=True)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
