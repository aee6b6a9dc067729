"""Other ways to run a model that does not fit as asked: shorter context, smaller cache, more or other GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deployments.engine.defaults import NEWEST, Defaults
from deployments.engine.facts import GpuFacts, ModelFacts
from deployments.engine.gpus import FP8_CAPABILITY
from deployments.engine.kv_layers import ONE_CACHE, cache_dtype, one_cache, whole
from deployments.engine.sizing import Fit, FitState, fit
from deployments.findings import ARGS_POINTER, Change
from deployments.spec import MAX_NODES, ArgValue

MIN_CONTEXT = 512
SPLIT, STAGES = f"{ARGS_POINTER}tensor-parallel-size", f"{ARGS_POINTER}pipeline-parallel-size"
Admits = Callable[[Sequence[Change]], bool]


@dataclass(frozen=True)
class Option:
    """One change that makes the model fit: the form field, the value, what else to set with it, and what that gives."""

    pointer: str
    value: int | str
    text: str
    fit: Fit
    also: tuple[Change, ...] = ()

    def as_json(self) -> dict[str, object]:
        """This option as plain JSON values."""
        also = [{"pointer": pointer, "value": value} for pointer, value in self.also]
        return {
            "pointer": self.pointer,
            "value": self.value,
            "also": also,
            "text": self.text,
            "fit": self.fit.as_json(),
        }

    @property
    def changes(self) -> tuple[Change, ...]:
        """Everything that is set."""
        return (self.pointer, self.value), *self.also


@dataclass(frozen=True)
class Choice:
    """A flavor that could be used: `nodes` is over how many of its nodes one replica may be spread.

    `price` is that of a GPU and hour; 0 where none was entered.
    """

    slug: str
    gpu: GpuFacts
    gpus_per_node: int = 1
    nodes: int = 1
    label: str = ""
    price: float = 0.0

    def rank(self, gpus: int = 1) -> tuple[int, float, float, str]:
        """Where it stands among others with so many of its GPUs: fewer first, then the cheaper, then the smaller."""
        return gpus, self.price, self.gpu.visible_gib, self.slug


def options(
    model: ModelFacts,
    gpu: GpuFacts,
    args: Mapping[str, ArgValue],
    *,
    gpus_per_node: int = 8,
    others: Iterable[Choice] = (),
    defaults: Defaults = NEWEST,
    nodes: tuple[int, int] = (1, 1),
    across: tuple[Change, ...] = (),
    admits: Admits = lambda changes: True,
) -> list[Option]:
    """The changes that make it fit, smallest first; empty when none does.

    `nodes` are those of a replica now, and the most that it may have; `across` is what else changes where it spans
    several. What `admits` says no to is left out.
    """
    now, most = nodes
    others = sorted(others, key=Choice.rank)
    found = [
        _shorter(model, gpu, args, defaults),
        _own_caches(model, gpu, args, defaults),
        _smaller_cache(model, gpu, args, defaults),
        _more_gpus(model, gpu, args, gpus_per_node * now, defaults),
        *(_other_flavor(model, args, choice, defaults) for choice in others),
    ]
    kept = [option for option in found if option is not None and admits(option.changes)]
    if kept:
        return kept
    # Two things at once only where none alone will do; of each kind one.
    own = Choice("", gpu, gpus_per_node, most)
    wider = _wider(model, args, others, defaults)
    spread = (option for choice in (own, *others) for option in _spread(model, args, choice, now, defaults, across))
    ways = (_first(kind, admits) for kind in (wider, spread))
    return [option for option in ways if option is not None]


def _first(found: Iterable[Option | None], admits: Admits) -> Option | None:
    return next((option for option in found if option is not None and admits(option.changes)), None)


def most_nodes(there: int | None, *, whole: bool) -> int:
    """Over how many nodes a replica may be spread of those `there` (None: not known); parts of GPUs over none."""
    return min(MAX_NODES, there if there is not None else MAX_NODES) if whole else 1


@dataclass(frozen=True)
class Place:
    """A flavor and a split on which the model runs with these flags, and how it sits there."""

    flavor: str
    tensor_parallel: int
    fit: Fit

    def as_json(self) -> dict[str, int | float | str]:
        """This place as plain JSON values."""
        return {
            "flavor": self.flavor,
            "tensor_parallel_size": self.tensor_parallel,
            "gpus": self.fit.gpus,
            "state": self.fit.state.value,
            "max_context": self.fit.max_context,
            "concurrency": self.fit.concurrency,
            "free_gib": self.fit.free_gib,
        }


def places(
    model: ModelFacts, args: Mapping[str, ArgValue], choices: Iterable[Choice], defaults: Defaults = NEWEST
) -> list[Place]:
    """Every flavor and split that holds the model with these flags: fewest GPUs first, of these the cheapest.

    Raises UnknownShapeError when nothing can be said.
    """
    return [place for _, place in _ranked(model, args, choices, defaults)]


def _ranked(
    model: ModelFacts, args: Mapping[str, ArgValue], choices: Iterable[Choice], defaults: Defaults
) -> list[tuple[Choice, Place]]:
    found: list[tuple[Choice, Place]] = []
    for choice in choices:
        for size in splits(model, max(0, choice.gpus_per_node // splits_beside(args))):
            result = fit(model, choice.gpu, {**args, "tensor-parallel-size": size}, defaults=defaults)
            if result.state is not FitState.NO:
                found.append((choice, Place(choice.slug, size, result)))
    return sorted(found, key=lambda each: each[0].rank(each[1].fit.gpus))


def splits(model: ModelFacts, most: int) -> list[int]:
    """Tensor-parallel sizes that this model can be split by, up to `most`."""
    return [size for size in range(1, most + 1) if splits_by(model, size)]


def splits_beside(args: Mapping[str, ArgValue]) -> int:
    """How many groups of GPUs a replica has that each split a layer: its stages, in each of its engines."""
    return max(1, whole(args, "pipeline-parallel-size", 1)) * max(1, whole(args, "data-parallel-size", 1))


def splits_by(model: ModelFacts, size: int) -> bool:
    """True when attention heads and KV heads can be shared out over `size` GPUs."""
    if model.heads and model.heads % size:
        return False
    if model.is_mla:
        return True
    there = [count for count in (model.kv_heads, model.full_kv_heads) if count]
    return all((count % size if size <= count else size % count) == 0 for count in there)


def round_context(tokens: int) -> int:
    """A round context length at most `tokens`: whole 1,024s from 4,096 up."""
    return tokens // 1024 * 1024 if tokens >= 4096 else tokens // 256 * 256


def _shorter(model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue], defaults: Defaults) -> Option | None:
    now = fit(model, gpu, args, defaults=defaults)
    length = round_context(min(now.max_context, now.max_model_len - 1))
    if length < MIN_CONTEXT:
        return None
    result = fit(model, gpu, {**args, "max-model-len": length}, defaults=defaults)
    if result.state is FitState.NO:
        return None
    return Option("/spec/engine/args/max-model-len", length, f"max-model-len {length:,}", result)


def _own_caches(model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue], defaults: Defaults) -> Option | None:
    """Layers with a window keep their window alone, unless they were told to keep as much as the others."""
    if not one_cache(args) or not (model.sliding_layers or model.chunked_layers):
        return None
    result = fit(model, gpu, {**args, ONE_CACHE: False}, defaults=defaults)
    if result.state is FitState.NO:
        return None
    return Option(f"{ARGS_POINTER}{ONE_CACHE}", False, f"{ONE_CACHE} off", result)


def _smaller_cache(model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue], defaults: Defaults) -> Option | None:
    if gpu.compute_capability < FP8_CAPABILITY or cache_dtype(model, args) != "auto":
        return None
    result = fit(model, gpu, {**args, "kv-cache-dtype": "fp8"}, defaults=defaults)
    if result.state is FitState.NO:
        return None
    return Option("/spec/engine/args/kv-cache-dtype", "fp8", "an fp8 KV cache", result)


def _more_gpus(
    model: ModelFacts, gpu: GpuFacts, args: Mapping[str, ArgValue], gpus_per_node: int, defaults: Defaults
) -> Option | None:
    now = args.get("tensor-parallel-size", 1)
    if not isinstance(now, int):
        return None
    for size in splits(model, gpus_per_node // splits_beside(args)):
        if size <= now:
            continue
        result = fit(model, gpu, {**args, "tensor-parallel-size": size}, defaults=defaults)
        if result.state is not FitState.NO:
            return Option(SPLIT, size, _gpus(result, size), result)
    return None


def _gpus(found: Fit, size: int) -> str:
    """How many GPUs a split takes, and what it is set to where stages or engines beside it multiply that."""
    return f"{found.gpus} GPUs (tensor-parallel-size{'' if found.gpus == size else f' {size}'})"


def _other_flavor(model: ModelFacts, args: Mapping[str, ArgValue], choice: Choice, defaults: Defaults) -> Option | None:
    result = fit(model, choice.gpu, args, defaults=defaults)
    if result.state is FitState.NO or result.gpus > choice.gpus_per_node:
        return None
    return Option("/spec/flavor", choice.slug, f"flavor {choice.slug}", result)


def _wider(
    model: ModelFacts, args: Mapping[str, ArgValue], choices: Iterable[Choice], defaults: Defaults
) -> Iterator[Option]:
    """Another flavor and another split of it: of each the narrowest that fits."""
    seen = set()
    for choice, place in _ranked(model, args, choices, defaults):
        if choice.slug not in seen:
            seen.add(choice.slug)
            size = place.tensor_parallel
            text = f"{choice.label or choice.slug}, {_gpus(place.fit, size)}"
            yield Option("/spec/flavor", choice.slug, text, place.fit, ((SPLIT, size),))


def _spread(
    model: ModelFacts,
    args: Mapping[str, ArgValue],
    choice: Choice,
    now: int,
    defaults: Defaults,
    across: tuple[Change, ...],
) -> Iterator[Option]:
    """Each layer over the GPUs of one node, layers over the fewest nodes that hold it; else with one replica."""
    size = max(splits(model, choice.gpus_per_node), default=0)
    for nodes in range(max(2, now + 1), min(choice.nodes, model.layers or 1) + 1) if size else ():
        split = {**args, "tensor-parallel-size": size, "pipeline-parallel-size": nodes}
        result = fit(model, choice.gpu, split, defaults=defaults)
        if result.state is not FitState.NO:
            flavor: tuple[Change, ...] = (("/spec/flavor", choice.slug),) if choice.slug else ()
            where = f" of {choice.label or choice.slug}" if choice.slug else ""
            text = f"{nodes} nodes{where}, with {size} GPUs of each (tensor-parallel-size, pipeline-parallel-size)"
            sets: tuple[Change, ...] = ((SPLIT, size), (STAGES, nodes), *flavor, *across)
            yield Option("/spec/nodes", nodes, text, result, sets)
            alone: tuple[Change, ...] = (("/spec/replicas/min", 1), ("/spec/replicas/max", 1))
            yield Option("/spec/nodes", nodes, f"one replica on {text}", result, (*sets, *alone))
            return
