"""Other ways to run a model that does not fit as asked: shorter context, smaller cache, more or other GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from deployments.engine.facts import GpuFacts, ModelFacts
from deployments.engine.gpus import FP8_CAPABILITY
from deployments.engine.kv_layers import ONE_CACHE, cache_dtype, one_cache, whole
from deployments.engine.sizing import Fit, FitState, Sizer
from deployments.findings import ARGS_POINTER, Change
from deployments.spec import MAX_NODES, ArgValue

MIN_CONTEXT = 512
# What an option is one of, by the last part of its pointer.
MENDS = frozenset({"flavor", "nodes", "tensor-parallel-size", "max-model-len", "kv-cache-dtype", ONE_CACHE})
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
    sizer: Sizer,
    gpu: GpuFacts,
    args: Mapping[str, ArgValue],
    *,
    gpus_per_node: int = 8,
    others: Iterable[Choice] = (),
    nodes: tuple[int, int] = (1, 1),
    across: tuple[Change, ...] = (),
    admits: Admits = lambda changes: True,
    most: int | None = None,
) -> list[Option]:
    """The changes that make it fit, smallest first and at most `most`; empty when none does.

    `nodes` are those of a replica now, and the most that it may have; `across` is what else changes where it spans
    several. What `admits` says no to is left out.
    """
    now, widest = nodes
    others = sorted(others, key=Choice.rank)
    if kept := _admitted(_alone(sizer, gpu, args, gpus_per_node * now, others), admits, most):
        return kept
    # Two things at once only where none alone will do; of each kind one.
    own = Choice("", gpu, gpus_per_node, widest)
    wider = _wider(sizer, args, others)
    spread = (option for choice in (own, *others) for option in _spread(sizer, args, choice, now, across))
    return [option for kind in (wider, spread) for option in _admitted(kind, admits, 1)][:most]


def _admitted(found: Iterable[Option | None], admits: Admits, most: int | None) -> list[Option]:
    return list(islice((option for option in found if option is not None and admits(option.changes)), most))


def _alone(
    sizer: Sizer, gpu: GpuFacts, args: Mapping[str, ArgValue], gpus: int, others: Iterable[Choice]
) -> Iterator[Option | None]:
    """What may be enough by itself; `gpus` are those that a replica can have where it is."""
    yield _shorter(sizer, gpu, args)
    yield _own_caches(sizer, gpu, args)
    yield _smaller_cache(sizer, gpu, args)
    yield _more_gpus(sizer, gpu, args, gpus)
    for choice in others:
        yield _other_flavor(sizer, args, choice)


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


def places(sizer: Sizer, args: Mapping[str, ArgValue], choices: Iterable[Choice]) -> list[Place]:
    """Every flavor and split that holds the model with these flags: fewest GPUs first, of these the cheapest.

    Raises UnknownShapeError when nothing can be said.
    """
    found = [pair for choice in choices for pair in _on(sizer, args, choice)]
    return [place for _, place in sorted(found, key=_order)]


def _on(sizer: Sizer, args: Mapping[str, ArgValue], choice: Choice) -> Iterator[tuple[Choice, Place]]:
    """Every split on one flavor that holds the model, the narrowest first."""
    for size in splits(sizer.model, max(0, choice.gpus_per_node // splits_beside(args))):
        result = sizer.fit(choice.gpu, {**args, "tensor-parallel-size": size})
        if result.state is not FitState.NO:
            yield choice, Place(choice.slug, size, result)


def _order(pair: tuple[Choice, Place]) -> tuple[int, float, float, str]:
    choice, place = pair
    return choice.rank(place.fit.gpus)


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


def _shorter(sizer: Sizer, gpu: GpuFacts, args: Mapping[str, ArgValue]) -> Option | None:
    now = sizer.fit(gpu, args)
    length = round_context(min(now.max_context, now.max_model_len - 1))
    if length < MIN_CONTEXT:
        return None
    result = sizer.fit(gpu, {**args, "max-model-len": length})
    if result.state is FitState.NO:
        return None
    return Option("/spec/engine/args/max-model-len", length, f"max-model-len {length:,}", result)


def _own_caches(sizer: Sizer, gpu: GpuFacts, args: Mapping[str, ArgValue]) -> Option | None:
    """Layers with a window keep their window alone, unless they were told to keep as much as the others."""
    if not one_cache(args) or not (sizer.model.sliding_layers or sizer.model.chunked_layers):
        return None
    result = sizer.fit(gpu, {**args, ONE_CACHE: False})
    if result.state is FitState.NO:
        return None
    return Option(f"{ARGS_POINTER}{ONE_CACHE}", False, f"{ONE_CACHE} off", result)


def _smaller_cache(sizer: Sizer, gpu: GpuFacts, args: Mapping[str, ArgValue]) -> Option | None:
    if gpu.compute_capability < FP8_CAPABILITY or cache_dtype(sizer.model, args) != "auto":
        return None
    result = sizer.fit(gpu, {**args, "kv-cache-dtype": "fp8"})
    if result.state is FitState.NO:
        return None
    return Option("/spec/engine/args/kv-cache-dtype", "fp8", "an fp8 KV cache", result)


def _more_gpus(sizer: Sizer, gpu: GpuFacts, args: Mapping[str, ArgValue], gpus_per_node: int) -> Option | None:
    now = args.get("tensor-parallel-size", 1)
    if not isinstance(now, int):
        return None
    for size in splits(sizer.model, gpus_per_node // splits_beside(args)):
        if size <= now:
            continue
        result = sizer.fit(gpu, {**args, "tensor-parallel-size": size})
        if result.state is not FitState.NO:
            return Option(SPLIT, size, _gpus(result, size), result)
    return None


def _gpus(found: Fit, size: int) -> str:
    """How many GPUs a split takes, and what it is set to where stages or engines beside it multiply that."""
    return f"{found.gpus} GPUs (tensor-parallel-size{'' if found.gpus == size else f' {size}'})"


def _other_flavor(sizer: Sizer, args: Mapping[str, ArgValue], choice: Choice) -> Option | None:
    result = sizer.fit(choice.gpu, args)
    if result.state is FitState.NO or result.gpus > choice.gpus_per_node:
        return None
    return Option("/spec/flavor", choice.slug, f"flavor {choice.slug}", result)


def _wider(sizer: Sizer, args: Mapping[str, ArgValue], choices: Iterable[Choice]) -> Iterator[Option]:
    """Another flavor and another split of it: of each the narrowest that fits."""
    narrowest = (next(_on(sizer, args, choice), None) for choice in choices)
    for choice, place in sorted((pair for pair in narrowest if pair is not None), key=_order):
        text = f"{choice.label or choice.slug}, {_gpus(place.fit, place.tensor_parallel)}"
        yield Option("/spec/flavor", choice.slug, text, place.fit, ((SPLIT, place.tensor_parallel),))


def _spread(
    sizer: Sizer,
    args: Mapping[str, ArgValue],
    choice: Choice,
    now: int,
    across: tuple[Change, ...],
) -> Iterator[Option]:
    """Each layer over the GPUs of one node, layers over the fewest nodes that hold it; else with one replica."""
    size = max(splits(sizer.model, choice.gpus_per_node), default=0)
    for nodes in range(max(2, now + 1), min(choice.nodes, sizer.model.layers or 1) + 1) if size else ():
        split = {**args, "tensor-parallel-size": size, "pipeline-parallel-size": nodes}
        result = sizer.fit(choice.gpu, split)
        if result.state is not FitState.NO:
            flavor: tuple[Change, ...] = (("/spec/flavor", choice.slug),) if choice.slug else ()
            where = f" of {choice.label or choice.slug}" if choice.slug else ""
            text = f"{nodes} nodes{where}, with {size} GPUs of each (tensor-parallel-size, pipeline-parallel-size)"
            sets: tuple[Change, ...] = ((SPLIT, size), (STAGES, nodes), *flavor, *across)
            yield Option("/spec/nodes", nodes, text, result, sets)
            alone: tuple[Change, ...] = (("/spec/replicas/min", 1), ("/spec/replicas/max", 1))
            yield Option("/spec/nodes", nodes, f"one replica on {text}", result, (*sets, *alone))
            return
