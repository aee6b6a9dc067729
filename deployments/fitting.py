"""Memory estimates as functions from JSON to JSON, and as text for people: what `manage.py spec fit` prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from deployments.document_values import DocumentError
from deployments.documents import facts_from, gpu_from, measured_from, model_from, valid_spec
from deployments.engine.defaults import Defaults, defaults_of
from deployments.engine.facts import GIB, GpuFacts, ModelFacts
from deployments.engine.lora import Slots, lora_rank
from deployments.engine.measured import Measured
from deployments.engine.options import Choice, Option, options, places
from deployments.engine.sizing import FitState, Sizer, UnknownShapeError, fit
from deployments.engine.weights import weights_bytes
from deployments.preflight.memory import NUMBERS
from deployments.preflight.roles import TITLES, own_option
from deployments.services.text import gpus_in_words
from deployments.spec import ArgValue, DeploymentSpec, Role
from deployments.views.fits import BAR, WORDS

# The parts of a bar as text can show them, in the order of `BAR`.
MARKS = "WAOK."
BAR_WIDTH = 60


@dataclass(frozen=True)
class Question:
    """One model on one GPU, and where else it might run; `spec` is the wish that asks, if one does."""

    model: ModelFacts
    gpu: GpuFacts
    per_node: int
    choices: tuple[Choice, ...]
    slug: str
    defaults: Defaults
    slots: Slots | None = None
    spec: DeploymentSpec | None = None

    @cached_property
    def sizer(self) -> Sizer:
        """What estimates how this model sits on this and other GPUs."""
        return Sizer(self.model, self.defaults, self.slots)


def fit_document(document: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The memory estimate for a model on a GPU, where it fits, and other ways where it does not.

    Of a wish with two roles “roles” has the answer for each of them, and the rest is that of decode, which holds the
    caches longest. A model of which too little is known has the state “unknown”, and “missing” names the numbers that
    would tell.
    """
    known = facts_from(facts, document)
    spec = valid_spec(document["spec"]) if "spec" in document else None
    model = model_from(document) or known.model or (ModelFacts(id=spec.source.uri) if spec else None)
    if model is None:
        raise DocumentError("Give the model: its config.json as “config”, and “weights_bytes” where known.")
    slug = document.get("flavor") or (spec.flavor if spec else None)
    gpu, per_node = gpu_from(document.get("gpu"), slug, known)
    profile = known.profiles.get(str(document.get("profile") or (spec.engine.profile if spec else "")))
    asked = Question(
        model=model,
        gpu=gpu,
        per_node=per_node,
        choices=tuple(
            Choice(item.slug, item.gpu, item.gpus_per_node, price=item.price_per_hour)
            for item in known.flavors.values()
        ),
        slug=str(slug or ""),
        defaults=defaults_of(str(document.get("vllm") or (profile.version if profile else ""))),
        slots=Slots(len(spec.adapters), lora_rank(known.adapters)) if spec and spec.adapters else None,
        spec=spec,
    )
    args = _args_by_role(document, spec)
    *_, last = args.values()
    measured = measured_from(document)
    # What one engine measured says nothing of one that runs other flags; a log is taken for that of decode.
    answers = {role: _answer(asked, role, own, measured if own == last else None) for role, own in args.items()}
    *_, answer = answers.values()
    if len(answers) == 1:
        return answer
    return {**answer, "roles": [{"role": role.value, **own} for role, own in answers.items()]}


def _args_by_role(document: Mapping[str, Any], spec: DeploymentSpec | None) -> dict[Role, Mapping[str, ArgValue]]:
    """The flags of each role; those that the document gives beside the wish stand for all of them."""
    given = document.get("args") or {}
    if not isinstance(given, Mapping):
        raise DocumentError("“args” must be an object with one entry per flag.")
    roles = {role: own.engine.args for role, own in spec.by_role().items()} if spec else {Role.BOTH: {}}
    return {role: given or args for role, args in roles.items()}


def _answer(asked: Question, role: Role, args: Mapping[str, ArgValue], measured: Measured | None) -> dict[str, Any]:
    model, gpu, sizer = asked.model, asked.gpu, asked.sizer
    described = {"model": model.as_json(), "gpu": dataclasses.asdict(gpu)}
    try:
        result = sizer.fit(gpu, args)
        if measured is not None:
            # Side by side: what the engine said, and what would have been said before it started.
            described["measured"] = dataclasses.asdict(measured)
            described["computed"] = result.as_json()
            result = fit(model, gpu, args, defaults=asked.defaults, measured=measured, slots=asked.slots)
    except UnknownShapeError as failure:
        return _not_known(model, gpu, failure) | described
    return {
        **result.as_json(),
        **described,
        "alternatives": [way.as_json() for way in _ways(asked, role, args)] if result.state is FitState.NO else [],
        "places": [place.as_json() for place in places(sizer, args, asked.choices)],
    }


def _ways(asked: Question, role: Role, args: Mapping[str, ArgValue]) -> list[Option]:
    others = [choice for choice in asked.choices if choice.slug != asked.slug]
    found = options(asked.sizer, asked.gpu, args, gpus_per_node=asked.per_node, others=others)
    return [own_option(way, role, asked.spec) for way in found] if asked.spec is not None else found


def _not_known(model: ModelFacts, gpu: GpuFacts, failure: UnknownShapeError) -> dict[str, Any]:
    """What can be said all the same: the weights, where they are known, and what to ask for."""
    weights = weights_bytes(model)
    return {
        "state": "unknown",
        "message": str(failure),
        "missing": [{"name": name, "text": NUMBERS[name]} for name in failure.missing],
        "weights_gib": round(weights / GIB, 2) if weights else None,
        "total_gib": gpu.visible_gib,
        "alternatives": [],
        "places": [],
    }


def fit_text(answer: Mapping[str, Any]) -> str:
    """The answer of `fit_document` for people: a bar of the memory of one GPU for each role, and its figures."""
    roles = answer.get("roles") or [{"role": Role.BOTH.value, **answer}]
    return "\n\n".join("\n".join(_lines(own)) for own in roles)


def _lines(own: Mapping[str, Any]) -> Iterator[str]:
    title = TITLES.get(Role(own["role"]), "")
    product, total = own["gpu"]["product"], own["total_gib"]
    if own["state"] not in set(FitState):
        yield f"{title or 'This model'}: whether it fits on {product} is not known."
        yield own["message"]
        return
    word = WORDS[FitState(own["state"])][0]
    said = f"{word} on {product}, {gpus_in_words(own['gpus'])} per replica"
    yield f"{title}: {said}" if title else said[0].upper() + said[1:]
    parts = [(mark, name, own["bar"][part]) for mark, (_, name, part) in zip(MARKS, BAR, strict=True)]
    yield f"  |{_bar([(mark, size) for mark, _, size in parts])}| GiB of {total:.3g} on each GPU"
    yield "  " + "   ".join(f"{mark} {name} {size:.3g}" for mark, name, size in parts)
    figures = (
        ("KV cache", f"{own['kv_tokens']:,} tokens" + (" in each engine" if own["engines"] > 1 else "")),
        ("Full-length requests at once", f"{own['concurrency'] * own['engines']:.3g}"),
        ("Longest context that fits", f"{own['max_context']:,} tokens"),
    )
    for name, value in figures:
        yield f"  {name:<28}  {value}"
    for way in own["alternatives"]:
        yield f"  would fit with {way['text']}"


def _bar(parts: list[tuple[str, float]]) -> str:
    """Marks for each part by its share; ends are rounded, so that the whole is as long for every role."""
    total, done, drawn = sum(size for _, size in parts) or 1.0, 0.0, ""
    for mark, size in parts:
        done += size
        drawn += mark * (round(done / total * BAR_WIDTH) - len(drawn))
    return drawn
