"""Rules about GPU memory: whether it fits, how narrowly, and what is not known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from deployments.engine.facts import GIB, MIB, ModelFacts
from deployments.engine.options import Choice, Option, most_nodes, options, round_context
from deployments.engine.sizing import Fit, FitState, UnknownShapeError, missing_numbers
from deployments.findings import Finding, arg_pointer, error, info, warning
from deployments.preflight.facts import FlavorFacts
from deployments.preflight.rules import Case, Rules, gib
from deployments.spec import Role

rules = Rules()

MOST_SHARE = 0.95
SHARED_MOST, SHARED_PART = 0.5, 0.4
# Facts of a model that nobody can do without, as people say them.
NUMBERS = {
    "weights_bytes": "the size of its weights",
    "layers": "its layers",
    "heads": "its attention heads",
    "kv_heads": "its KV heads",
    "head_dim": "the width of a head",
}


@rules.rule
def memory(case: Case) -> Iterator[Finding]:
    """Weights, activations and the KV cache of one full request must fit on each GPU."""
    case = case.within_model
    estimate = case.estimate
    if estimate is None or case.flavor is None:
        return
    if estimate.state is FitState.NO:
        yield _cache_as_told(case, estimate) or _does_not_fit(case, estimate)
    elif estimate.state is FitState.TIGHT:
        yield warning(
            "memory_tight",
            arg_pointer("max-model-len"),
            f"It fits narrowly: {gib(estimate.free_gib)} of {gib(estimate.total_gib)} per GPU stay free after one "
            f"request of {estimate.max_model_len:,} tokens.",
            "The estimate is good to about 1 GiB: a shorter context is safer.",
            round_context(int(estimate.max_model_len * 0.75)) or None,
        )


@rules.rule
def quantised_at_load(case: Case) -> Iterator[Finding]:
    """What is quantised as it is loaded takes more for a while; how much more, nobody says."""
    estimate, method = case.estimate, case.arg("quantization")
    if estimate is None or case.flavor is None or case.model is None or estimate.stored_gib is None:
        return
    if estimate.state is not FitState.NO and estimate.stored_gib > estimate.total_gib:
        yield warning(
            "quantised_at_load",
            arg_pointer("quantization"),
            f"{method} makes {gib(estimate.weights_gib)} per GPU of weights that are stored in "
            f"{gib(estimate.stored_gib)}, while they are loaded. What that takes meanwhile is not known; the whole "
            f"would not fit on {case.flavor.label}.",
            "A variant of the model that is quantised already is safer.",
        )


def _cache_as_told(case: Case, estimate: Fit) -> Finding | None:
    """Of a KV cache whose size somebody gave: too small for one request, or too large beside the weights."""
    told = case.whole("kv-cache-memory-bytes")
    if told is None:
        return None
    # In whole MiB, so that nobody has to type odd bytes: at least what is needed, at most what there is.
    needed, most = math.ceil(estimate.needed_bytes / MIB) * MIB, estimate.most_bytes // MIB * MIB
    if most < needed:
        return None  # No size of it would do.
    left = gib(estimate.most_bytes / GIB)
    if told < estimate.needed_bytes:
        said = f"hold no request of {estimate.max_model_len:,} tokens, which needs {gib(estimate.kv_needed_gib)}."
    else:
        said = f"are more than the {left} that weights and engine leave of {gib(estimate.total_gib)} per GPU."
    return error(
        "cache_bytes",
        arg_pointer("kv-cache-memory-bytes"),
        f"The {told:,} bytes of KV cache that are asked for {said}",
        f"Leave it out: the engine takes what is left. Or use {needed:,} to {most:,} bytes.",
        needed,
    )


def _does_not_fit(case: Case, estimate: Fit) -> Finding:
    assert case.model is not None
    assert case.flavor is not None
    ways = ways_to_fit(case, 1 if case.brief else None) if case.admits is not None else []
    first = ways[0] if ways else None
    if ways:
        remedy = f"It would fit with {', or with '.join(way.text for way in ways)}."
    else:
        remedy = "No flavor here is large enough: choose a smaller model, or a quantised variant of this one."
    return error(
        "memory",
        first.pointer if first else "/spec/flavor",
        f"Does not fit on {case.flavor.label}: of {gib(estimate.budget_gib)} per GPU, weights take "
        f"{gib(estimate.weights_gib)} and the engine {gib(estimate.activation_gib + estimate.overhead_gib)}; one "
        f"request of {estimate.max_model_len:,} tokens needs {gib(estimate.kv_needed_gib)} of KV cache, and "
        f"{gib(max(0.0, estimate.kv_gib))} are left.",
        remedy,
        first.value if first else None,
        also=first.also if first else (),
    )


def ways_to_fit(case: Case, most: int | None = None) -> list[Option]:
    """The changes that make it fit, and that no other rule refuses; empty while model or flavor are not known.

    No more of them are looked for than `most`.
    """
    case = case.within_model
    sizer, flavor = case.sizer, case.flavor
    if sizer is None or flavor is None:
        return []
    others = [
        Choice(slug, item.gpu, item.gpus_per_node, _widest(case, item), item.label, item.price_per_hour)
        for slug, item in case.facts.flavors.items()
        if item.enabled and slug != case.spec.flavor
    ]
    try:
        return options(
            sizer,
            flavor.gpu,
            case.spec.engine.args,
            gpus_per_node=flavor.gpus_per_node,
            others=others,
            nodes=(case.spec.nodes, _widest(case, flavor)),
            across=(("/spec/surge", None),) if case.spec.surge else (),
            admits=case.admits or (lambda changes: True),
            most=most,
        )
    except UnknownShapeError:
        return []


def _widest(case: Case, flavor: FlavorFacts) -> int:
    """Over how many nodes of a flavor a replica may be spread; one of two roles stands on one."""
    return most_nodes(flavor.nodes, whole=not flavor.is_slice) if case.role is Role.BOTH else 1


@rules.rule
def utilization(case: Case) -> Iterator[Finding]:
    """vLLM takes its share of the whole GPU at start, and starts only when that much is free."""
    share, flavor = case.arg("gpu-memory-utilization"), case.flavor
    pointer = arg_pointer("gpu-memory-utilization")
    if share is None:
        if flavor is not None and flavor.is_time_shared and not case.arg("kv-cache-memory-bytes"):
            yield _share_of_time(case, flavor)
        return
    if not isinstance(share, int | float) or isinstance(share, bool):
        return
    if case.arg("kv-cache-memory-bytes"):
        yield info(
            "utilization_unused",
            pointer,
            "kv-cache-memory-bytes takes the place of gpu-memory-utilization, which then does nothing.",
        )
    elif flavor is not None and flavor.is_time_shared and share > SHARED_MOST:
        yield warning(
            "utilization_shared",
            pointer,
            f"{flavor.label} is shared by time, and {share:g} of its memory leaves little for others.",
            f"Keep to your part, for example {SHARED_PART} where two share.",
            SHARED_PART,
        )
    elif MOST_SHARE < share <= 1:
        yield warning(
            "utilization_high",
            pointer,
            f"{share:g} leaves almost nothing for the driver and other processes: the engine may find less and stop.",
            f"Use at most {MOST_SHARE}.",
            MOST_SHARE,
        )


def _share_of_time(case: Case, flavor: FlavorFacts) -> Finding:
    """Nobody divides the memory of a GPU that is shared by time: what vLLM takes by itself is nearly all of it."""
    pointer = arg_pointer("gpu-memory-utilization")
    part = case.admits is None or case.brief or case.admits([(pointer, SHARED_PART)])
    return warning(
        "utilization_whole",
        pointer,
        f"{flavor.label} is shared by time, and vLLM takes {case.defaults.utilization:g} of its memory where "
        "gpu-memory-utilization is not given: what others hold then is not there when it starts.",
        f"Keep to your part, for example {SHARED_PART} where two share."
        if part
        else f"At {SHARED_PART} this model does not fit: choose GPUs that are not shared.",
        SHARED_PART if part else None,
    )


@rules.rule
def attention_unknown(case: Case) -> Iterator[Finding]:
    """Say so where a configuration says more of single layers than the estimate knows of."""
    model = case.model
    if model is not None and model.unread and case.estimate is not None:
        yield warning(
            "cache_uncertain",
            "/spec/source/uri",
            f"The configuration of {model.id} says of its attention layers what this estimate does not know "
            f"({', '.join(model.unread)}): they may keep much less than is counted here, or more.",
            "Try it with one replica, and see what its log says of the KV cache.",
        )


@rules.rule
def model_unknown(case: Case) -> Iterator[Finding]:
    """Say so when memory and context could not be checked, and which numbers would tell."""
    # Of an address that is none nobody can give the numbers: it is refused as that.
    if case.flavor is None or case.estimate is not None or case.loads is None:
        return
    missing = missing_numbers(case.model or ModelFacts(id=case.spec.source.uri))
    yield info(
        "not_checked",
        "/spec/source/uri",
        f"Memory and context were not checked. Not known of this model: {in_words(missing)}.",
        "Give these numbers to see whether it fits; the request can be sent without them.",
    )


def in_words(missing: Iterable[str]) -> str:
    """Names of facts as people say them."""
    return ", ".join(NUMBERS[name] for name in missing)
