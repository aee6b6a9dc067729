"""The plan: what is wanted and what is there in, the next steps out. Pure: no clock, no database, no cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.kube.kinds import Ref

# Kinds that make pods: they go first and come back last.
WORKLOADS = frozenset({"InferenceService", "LLMInferenceService", "Deployment"})
# The worker may create these and never update them.
CREATE_ONLY = frozenset({"Namespace"})


@dataclass(frozen=True)
class Wish:
    """One object as it should be. `digest` is the hash of its whole body."""

    ref: Ref
    body: Mapping[str, Any] = field(compare=False)
    digest: str


@dataclass(frozen=True)
class Desired:
    """Everything that should be there, in the order of creation. With `pods_gone` no pod may be left in the end."""

    objects: tuple[Wish, ...] = ()
    pods_gone: bool = False


@dataclass(frozen=True)
class Live:
    """One object of ours as a live read found it."""

    uid: str
    version: str
    ours: bool = True
    deleting: bool = False
    managed: str = ""  # hash of the fields the server credits to us
    split: bool = False  # an Update entry of ours is left: fields dropped later would stay
    editor: str = ""  # who wrote last beside us
    stopped: bool = False  # KServe says that it took the service down


@dataclass(frozen=True)
class Held:
    """A row of the inventory beside what a live read found at its place (None: nothing)."""

    ref: Ref
    uid: str
    digest: str
    managed: str
    live: Live | None


@dataclass(frozen=True)
class Observed:
    """What is there. `pods` counts pods not yet gone in a complete live list, `makers` what would make more."""

    held: tuple[Held, ...] = ()
    pods: int = 0
    makers: int = 0


@dataclass(frozen=True)
class Create:
    """POST an object that was never there, or (`again`) that somebody deleted."""

    wish: Wish
    again: bool = False


@dataclass(frozen=True)
class Apply:
    """Server-side apply to the object with `uid`, not newer than `version`; first take our fields over to Apply."""

    wish: Wish
    uid: str
    version: str
    rewrite: bool
    edited_by: str = ""  # set when a hand edit is put right


@dataclass(frozen=True)
class Delete:
    """Delete the object with `uid`."""

    ref: Ref
    uid: str


@dataclass(frozen=True)
class Forget:
    """Strike an object from the inventory that is not there, or is not ours any more."""

    ref: Ref


@dataclass(frozen=True)
class Wait:
    """Nothing can be done before something on the cluster has ended; look again soon."""

    why: str


@dataclass(frozen=True)
class Block:
    """Only a person can go on."""

    code: str
    message: str
    remedy: str


Action = Create | Apply | Delete | Forget | Wait | Block


def plan(desired: Desired, observed: Observed) -> list[Action]:
    """Return the steps that turn `observed` into `desired`; none when they agree.

    A Wait or a Block ends the list: what follows depends on it.
    """
    return list(_until_stop(_steps(desired, observed)))


def _steps(desired: Desired, observed: Observed) -> Iterator[Action]:
    held = {row.ref: row for row in observed.held}
    wanted = {wish.ref for wish in desired.objects}
    leaving = [row for row in observed.held if row.ref not in wanted]
    yield from _remove_workloads(leaving)
    for wish in desired.objects:
        yield from _ensure(wish, held.get(wish.ref), observed)
    if desired.pods_gone:
        yield from _await_pods(desired, observed)
    yield from _remove_rest(leaving)


def _ensure(wish: Wish, row: Held | None, observed: Observed) -> Iterator[Action]:
    if row is None:
        yield Create(wish)
    elif row.live is None:
        yield from _again(wish, observed)
    elif row.live.uid != row.uid:
        yield _stranger(wish.ref)
    elif row.live.deleting:
        yield Wait(f"{wish.ref} is being deleted; it comes back when it is gone.")
    elif not row.live.ours:
        yield _disowned(wish.ref)
    elif wish.ref.kind in CREATE_ONLY:
        return
    elif row.digest != wish.digest:
        yield Apply(wish, row.uid, row.live.version, rewrite=row.live.split)
    elif row.managed and row.live.managed and row.live.managed != row.managed:
        yield Apply(wish, row.uid, row.live.version, rewrite=row.live.split, edited_by=row.live.editor or "somebody")


def _again(wish: Wish, observed: Observed) -> Iterator[Action]:
    """A deleted object comes back, but never beside the pods of the one before: they still hold their GPUs."""
    if wish.ref.kind in WORKLOADS and (observed.pods or observed.makers):
        yield Wait(f"{wish.ref} was deleted; it comes back when its {observed.pods} old pods are gone.")
    else:
        yield Create(wish, again=True)


def _remove_workloads(leaving: list[Held]) -> Iterator[Action]:
    for row in leaving:
        if row.ref.kind in WORKLOADS:
            yield from _remove(row)
    if any(row.ref.kind in WORKLOADS and row.live is not None and _same(row) for row in leaving):
        yield Wait("The service is being deleted.")


def _await_pods(desired: Desired, observed: Observed) -> Iterator[Action]:
    services = {wish.ref for wish in desired.objects if wish.ref.kind in WORKLOADS}
    up = [row for row in observed.held if row.ref in services and not (row.live and row.live.stopped)]
    if observed.pods:
        yield Wait(f"{observed.pods} pods are not gone yet.")
    elif observed.makers or up:
        yield Wait("The service is being taken down.")


def _remove_rest(leaving: list[Held]) -> Iterator[Action]:
    # The other way round than they came: what guards goes last.
    for row in reversed(leaving):
        if row.ref.kind not in WORKLOADS:
            yield from _remove(row)


def _remove(row: Held) -> Iterator[Action]:
    if not _same(row):
        yield Forget(row.ref)
    elif row.live is not None and not row.live.ours:
        yield _disowned(row.ref)
    elif row.live is not None and not row.live.deleting:
        yield Delete(row.ref, row.uid)


def _same(row: Held) -> bool:
    """True when the very object that we made is still there."""
    return row.live is not None and row.live.uid == row.uid


def _stranger(ref: Ref) -> Block:
    return Block(
        "name_taken",
        f"Another {ref.kind} called “{ref.name}” stands where ours was; Slipway did not make it.",
        "Delete or rename it, or ask for the model under another name.",
    )


def _disowned(ref: Ref) -> Block:
    return Block(
        "disowned",
        f"Somebody took Slipway's labels off the {ref.kind} “{ref.name}”, so Slipway leaves it alone.",
        "Put the labels slipway.dev/install and slipway.dev/deployment back, or delete the object.",
    )


def _until_stop(steps: Iterator[Action]) -> Iterator[Action]:
    for step in steps:
        yield step
        if isinstance(step, Wait | Block):
            return
