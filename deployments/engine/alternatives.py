"""What a deployment that waits for GPUs could ask for instead and have at once: no pod more while a change rolls out,
fewer replicas, a smaller split, an fp8 KV cache, another flavor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from deployments.engine.options import Choice, options, splits, splits_beside
from deployments.engine.sizing import FitState, Sizer, UnknownShapeError
from deployments.spec import DeploymentSpec, Strategy

ARGS = "/spec/engine/args/"
SPLIT = f"{ARGS}tensor-parallel-size"
CACHE = f"{ARGS}kv-cache-dtype"
MIN, MAX, FLAVOR = "/spec/replicas/min", "/spec/replicas/max", "/spec/flavor"
SURGE = "/spec/surge"
MOST = 5


@dataclass(frozen=True)
class Room:
    """What may be taken of one flavor at once: by quota, and on the nodes (None: not known)."""

    choice: Choice
    label: str
    quota: int
    free: int | None = None
    block: int | None = None

    def takes(self, replicas: int, gpus: int) -> bool:
        """True when so many replicas of so many GPUs each would start now."""
        on_nodes = self.free is None or replicas * gpus <= self.free
        return on_nodes and (self.block is None or gpus <= self.block) and gpus <= self.choice.gpus_per_node


@dataclass(frozen=True)
class Alternative:
    """Changes of the spec, by JSON pointer, with which it would start now, and the GPUs that it then reserves."""

    text: str
    sets: tuple[tuple[str, int | str], ...]
    gpus: int


def alternatives(sizer: Sizer | None, spec: DeploymentSpec, rooms: Mapping[str, Room]) -> list[Alternative]:
    """What fits now, the smallest change first; `rooms` by slug of the flavor. Without a model only fewer replicas."""
    own = rooms.get(spec.flavor)
    found: list[Alternative] = []
    if own is not None:
        found += _in_place(own, spec)
        found += _on(own, spec, spec.tensor_parallel, "", less=True)
    if sizer is not None:
        try:
            found += _smaller(sizer, spec, own) if own is not None else ()
            others = [
                (room, way)
                for slug, room in rooms.items()
                if slug != spec.flavor
                for way in _elsewhere(sizer, spec, room)
            ]
            found += [way for room, way in sorted(others, key=lambda each: each[0].choice.rank(each[1].gpus))]
        except UnknownShapeError:
            pass
    return list(dict.fromkeys(found))[:MOST]


def _in_place(room: Room, spec: DeploymentSpec) -> Iterator[Alternative]:
    """All replicas, none of which is started before another goes."""
    if spec.surge and spec.gpus <= room.quota and room.takes(spec.replicas.min, spec.gpus_per_replica):
        yield Alternative("pods replaced in place", ((SURGE, 0),), spec.gpus)


def _smaller(sizer: Sizer, spec: DeploymentSpec, room: Room) -> Iterator[Alternative]:
    """On the same GPUs, split over fewer of them: the largest split that fits, also with a smaller cache."""
    for size in reversed(splits(sizer.model, spec.tensor_parallel - 1)):
        cache = _cache(sizer, spec, room.choice, size)
        if cache is not None:
            found = list(_on(room, spec, size, cache))
            if found:
                yield from found
                return


def _elsewhere(sizer: Sizer, spec: DeploymentSpec, room: Room) -> Iterator[Alternative]:
    """On another flavor, by the fewest GPUs that hold the model."""
    for size in splits(sizer.model, max(1, room.choice.gpus_per_node // splits_beside(spec.engine.args))):
        cache = _cache(sizer, spec, room.choice, size)
        if cache is not None:
            yield from _on(room, spec, size, cache)
            return


def _cache(sizer: Sizer, spec: DeploymentSpec, choice: Choice, size: int) -> str | None:
    """The KV cache with which the model fits when split so: "" as it is, "fp8"; None when it does not fit."""
    split = {**spec.engine.args, "tensor-parallel-size": size}
    if sizer.fit(choice.gpu, split).state is not FitState.NO:
        return ""
    smaller = options(sizer, choice.gpu, split, gpus_per_node=size)
    return next((str(option.value) for option in smaller if option.pointer == CACHE), None)


def _on(room: Room, spec: DeploymentSpec, size: int, cache: str, *, less: bool = False) -> Iterator[Alternative]:
    """The spec on this flavor with this split: as many of its replicas as quota and nodes hold; `less`: not all."""
    gpus = size * splits_beside(spec.engine.args)
    if spec.strategy is Strategy.DISAGGREGATED:
        yield from _fewer_of_roles(room, spec) if less else _whole_roles(room, spec, size, gpus, cache)
        return
    most = min(room.quota // gpus - spec.surge, spec.replicas.max - less)
    least = min(spec.replicas.min, most)
    if most < 1 or not room.takes(least, gpus):
        return
    sets, words = _changes(room, spec, size, gpus, cache)
    if most < spec.replicas.max:
        sets.append((MAX, most))
        words.append("1 replica" if most == 1 else f"{most} replicas")
    if least < spec.replicas.min:
        sets.append((MIN, least))
    yield Alternative(", ".join(words), tuple(sets), (most + spec.surge) * gpus)


def _changes(
    room: Room, spec: DeploymentSpec, size: int, gpus: int, cache: str
) -> tuple[list[tuple[str, int | str]], list[str]]:
    """What changes in the spec on this flavor with this split and cache, and how it is called."""
    sets: list[tuple[str, int | str]] = []
    words: list[str] = []
    if room.choice.slug != spec.flavor:
        sets.append((FLAVOR, room.choice.slug))
    if size != spec.tensor_parallel:
        sets.append((SPLIT, size))
    if room.choice.slug != spec.flavor or size != spec.tensor_parallel:
        words.append(f"{size} × {room.label} per replica" if gpus == size else f"{room.label}, split over {size}")
    if cache:
        sets.append((CACHE, cache))
        words.append(f"an {cache} KV cache")
    return sets, words


def _whole_roles(room: Room, spec: DeploymentSpec, size: int, gpus: int, cache: str) -> Iterator[Alternative]:
    """Both roles with all their replicas; a role with a split of its own is not seen through."""
    roles = list(spec.by_role().values())
    needs = _reserved([(gpus, role.replicas.max) for role in roles])
    alike = all(role.gpus_per_replica == spec.gpus_per_replica for role in roles)
    if alike and needs <= room.quota and room.takes(sum(role.replicas.min for role in roles), gpus):
        sets, words = _changes(room, spec, size, gpus, cache)
        yield Alternative(", ".join(words), tuple(sets), needs)


def _fewer_of_roles(room: Room, spec: DeploymentSpec) -> Iterator[Alternative]:
    """Fewer replicas of two roles on the same GPUs: as many as quota holds, as near to their balance as can be."""
    if spec.prefill is None or spec.decode is None:
        return
    roles = list(spec.by_role().values())
    wished = [role.replicas.max for role in roles]
    found: tuple[float, int, list[int], int] | None = None
    for counts in product(*(range(1, count + 1) for count in wished)):
        least = [min(role.replicas.min, count) for role, count in zip(roles, counts, strict=True)]
        sizes = [role.gpus_per_replica for role in roles]
        needs = _reserved(list(zip(sizes, counts, strict=True)))
        at_first = sum(size * count for size, count in zip(sizes, least, strict=True))
        starts = all(room.takes(1, size) for size in sizes) and (room.free is None or at_first <= room.free)
        if list(counts) == wished or needs > room.quota or not starts:
            continue
        share = min(count / most for count, most in zip(counts, wished, strict=True))
        if found is None or (share, sum(counts)) > found[:2]:
            found = share, sum(counts), list(counts), needs
    if found is None:
        return
    *_, best, needs = found
    sets: list[tuple[str, int | str]] = []
    for name, role, count in zip(("prefill", "decode"), roles, best, strict=True):
        pointer = f"/spec/{name}/replicas"
        if count < role.replicas.max:
            sets.append((f"{pointer}/max", count))
        if count < role.replicas.min:
            sets.append((f"{pointer}/min", count))
    yield Alternative(f"{best[0]} × prefill and {best[1]} × decode", tuple(sets), needs)


def _reserved(roles: list[tuple[int, int]]) -> int:
    """GPUs that two roles reserve: each by the GPUs of a replica and its most replicas.

    With the quarter on top that each takes while it rolls, when its autoscaler may have made as many as it may.
    """
    return sum(gpus * (most + math.ceil(most / 4)) for gpus, most in roles)
