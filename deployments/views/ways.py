"""Other ways to run the model of a wish: on every flavor by the fewest GPUs that hold it, and with a smaller cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from deployments.engine.gpus import FP8_CAPABILITY
from deployments.engine.options import most_nodes, splits, splits_beside, splits_by
from deployments.engine.sizing import Fit, FitState, Sizer, UnknownShapeError
from deployments.preflight.facts import FlavorFacts
from deployments.spec import DeploymentSpec, Role
from deployments.views.fits import WORDS

HOURS_A_MONTH = 730
MOST = 7
# The worst of them is what is said of a way whose roles differ.
ORDER = (FitState.FITS, FitState.TIGHT, FitState.NO)


@dataclass(frozen=True)
class Way:
    """Another way to run the same model: what to set, whether it fits, and what it costs a month."""

    label: str
    word: str
    tone: str
    shape: str
    at_once: int
    free: int | None
    month: float | None
    sets: str = ""
    current: bool = False
    # Fewer GPUs first, of as many the cheaper ones, then the smaller ones.
    rank: tuple[int, float, int] = (0, 0.0, 0)


@dataclass(frozen=True)
class Place:
    """A flavor, over how many of its nodes a replica spans, and the type of the KV cache where it is not as asked."""

    row: FlavorFacts
    nodes: int = 1
    cache: str = ""


def other_ways(
    sizer: Sizer, spec: DeploymentSpec, rows: Mapping[str, FlavorFacts], *, priced: bool = True
) -> list[Way]:
    """The same model on every flavor, by the fewest GPUs that hold it; and with a smaller KV cache.

    `priced` is False while the number of replicas is not known. A split that cannot be made is no way; of two roles a
    way fits when both do.
    """
    ways = [way for row in rows.values() if row.enabled for way in _on(sizer, spec, row, priced=priced)]
    return sorted(ways, key=lambda way: (not way.current, way.word == WORDS[FitState.NO][0], way.rank))[:MOST]


def _on(sizer: Sizer, spec: DeploymentSpec, row: FlavorFacts, *, priced: bool) -> Iterator[Way]:
    """The ways on one flavor: on that of the wish as it asks, and others; on another the first that fits."""
    found = [way for place in _places(spec, row) if (way := _way(sizer, spec, place, priced=priced)) is not None]
    if row.slug == spec.flavor:
        yield from found
    elif found:
        yield next((way for way in found if way.at_once), found[-1])


def _places(spec: DeploymentSpec, row: FlavorFacts) -> Iterator[Place]:
    there = max(1, most_nodes(row.nodes, whole=not row.is_slice))
    for nodes in dict.fromkeys((1, spec.nodes)):
        if nodes <= there:
            yield Place(row, nodes)
    given = any(own.engine.args.get("kv-cache-dtype") for own in spec.by_role().values())
    if row.slug == spec.flavor and row.compute_capability >= FP8_CAPABILITY and not given and spec.nodes <= there:
        yield Place(row, spec.nodes, "fp8")


def _way(sizer: Sizer, spec: DeploymentSpec, place: Place, *, priced: bool) -> Way | None:
    row, roles = place.row, spec.by_role()
    cache = {"kv-cache-dtype": place.cache} if place.cache else {}
    sizes: dict[Role, int] = {}
    fits: dict[Role, Fit] = {}
    for role, own in roles.items():
        size = _size(sizer, own, place)
        if size is None:
            return None
        try:
            args = {**own.engine.args, "tensor-parallel-size": size, **cache}
            sizes[role], fits[role] = size, sizer.fit(row.gpu, args)
        except UnknownShapeError:
            return None
    state = max((each.state for each in fits.values()), key=ORDER.index)
    asked = all(size == roles[role].tensor_parallel for role, size in sizes.items())
    current = row.slug == spec.flavor and place.nodes == spec.nodes and asked and not place.cache
    word, tone, shape = WORDS[state]
    gpus = sum(each.gpus * roles[role].replicas.max for role, each in fits.items())
    # Of two roles decode comes last: it holds the KV cache while answers are made.
    *_, last = fits.values()
    return Way(
        label=_label(fits, place),
        word=word,
        tone=tone,
        shape=shape,
        at_once=int(last.at_once) if state is not FitState.NO else 0,
        free=row.free,
        month=row.price_per_hour * gpus * HOURS_A_MONTH if priced else None,
        sets="" if current else _sets(spec, sizes, place),
        current=current,
        rank=(sum(each.gpus for each in fits.values()), row.price_per_hour, row.memory_mib),
    )


def _size(sizer: Sizer, own: DeploymentSpec, place: Place) -> int | None:
    """The tensor-parallel size of one role: as asked, or the fewest GPUs that hold it; None where none can be."""
    beside, asked = splits_beside(own.engine.args), own.tensor_parallel
    most = max(1, place.row.gpus_per_node) * place.nodes // beside
    as_asked = place.row.slug == own.flavor and place.nodes == own.nodes
    if as_asked and splits_by(sizer.model, asked) and asked <= most:
        return asked
    sizes = [size for size in splits(sizer.model, most) if size * beside % place.nodes == 0]
    for size in sizes:
        try:
            split = {**own.engine.args, "tensor-parallel-size": size}
            if sizer.fit(place.row.gpu, split).state is not FitState.NO:
                return size
        except UnknownShapeError:
            return None
    return sizes[-1] if sizes else None


def _label(fits: Mapping[Role, Fit], place: Place) -> str:
    gpus = " + ".join(str(each.gpus) for each in fits.values())
    over = f" on {place.nodes} nodes" if place.nodes > 1 else ""
    return f"{gpus} × {place.row.label}{over}" + (f", {place.cache} KV" if place.cache else "")


def _sets(spec: DeploymentSpec, sizes: Mapping[Role, int], place: Place) -> str:
    """What the form is to be set to, as its buttons send it."""
    sets = {"flavor": place.row.slug}
    for role, size in sizes.items():
        sets["tensor_parallel_size" if role is Role.BOTH else f"{role}_tensor_parallel_size"] = str(size)
    if place.nodes != spec.nodes:
        sets["nodes"] = str(place.nodes)
        if spec.surge:
            sets["surge"] = "0"
    if place.cache:
        sets["kv_cache_dtype"] = place.cache
    return "&".join(f"{name}={value}" for name, value in sets.items())
