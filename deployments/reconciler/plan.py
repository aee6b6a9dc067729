"""The plan: what is wanted and what is there in, the next steps out. Pure: no clock, no database, no cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.kube.kinds import Ref
from deployments.manifests.scaling import SCALER_KINDS

# Kinds that make pods: they go first and come back last.
WORKLOADS = frozenset({"InferenceService", "LLMInferenceService", "Deployment"})
# The worker may create these and never update them.
CREATE_ONLY = frozenset({"Namespace"})
# What fetches weights ahead, and where they are kept.
JOB, CLAIM = "Job", "PersistentVolumeClaim"
# Of a Job's row, in place of the hash of its fields: it has done its work, and is not made again.
FETCHED = "fetched"


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
    ended: str = ""  # of a Job: Complete or Failed, once it is
    why: str = ""  # of a Job that failed: what the cluster says


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
    """What is there. `pods` counts pods not yet gone in a complete live list, `makers` what would make more.

    `older`: pods, or what makes them, of a revision before the wanted one are among these.
    """

    held: tuple[Held, ...] = ()
    pods: int = 0
    makers: int = 0
    older: bool = False


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
class Keep:
    """Record that a Job has done its work."""

    ref: Ref


@dataclass(frozen=True)
class Later:
    """Something is left to remove once pods have ended; nothing else waits for it."""

    why: str


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


Action = Create | Apply | Delete | Forget | Keep | Later | Wait | Block


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
    yield from _make_way(leaving, desired, held)
    for wish in desired.objects:
        row = held.get(wish.ref)
        if wish.ref.kind == JOB:
            yield from _ensure_job(wish, row, pods_gone=desired.pods_gone)
        elif wish.ref.kind == CLAIM:
            yield from _ensure_claim(wish, row, _beside(wish.ref, observed), observed)
        else:
            yield from _ensure(wish, row, observed)
    if desired.pods_gone:
        yield from _await_pods(desired, observed)
    yield from _remove_rest(leaving, observed)


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


def _ensure_claim(wish: Wish, row: Held | None, job: Held | None, observed: Observed) -> Iterator[Action]:
    """A claim that somebody deleted comes back empty: what was fetched into it is fetched again."""
    if row is not None and row.live is None and job is not None:
        yield from _remove(job)
        if job.live is not None and _same(job):
            yield Wait(f"{wish.ref} was deleted; it is filled anew when the Job before is gone.")
    yield from _ensure(wish, row, observed)


def _beside(claim: Ref, observed: Observed) -> Held | None:
    """The Job that fills a claim: it is called the same."""
    of_claim = (row for row in observed.held if row.ref.kind == JOB)
    return next((row for row in of_claim if (row.ref.namespace, row.ref.name) == (claim.namespace, claim.name)), None)


def _ensure_job(wish: Wish, row: Held | None, *, pods_gone: bool) -> Iterator[Action]:
    """A Job runs to its end once, and everything after it waits; a changed one is made anew, as no Job can change."""
    ref = wish.ref
    if row is not None and row.managed == FETCHED:
        yield from _clear(row)
    elif pods_gone:
        yield from () if row is None else _remove(row)
    elif row is None:
        yield Create(wish)
        yield Wait("The weights are fetched ahead.")
    elif row.live is None:
        yield Create(wish, again=True)
        yield Wait("The weights are fetched ahead.")
    elif row.live.uid != row.uid:
        yield _stranger(ref)
    elif row.live.deleting:
        yield Wait(f"{ref} is being deleted; it comes back when it is gone.")
    elif not row.live.ours:
        yield _disowned(ref)
    elif row.digest != wish.digest and row.live.ended != "Complete":
        yield Delete(ref, row.uid)
        yield Wait(f"{ref} changed, and is made anew.")
    elif row.live.ended == "Complete":
        yield Keep(ref)
    elif row.live.ended:
        yield Block(
            "download_failed",
            f"The weights could not be fetched ahead. {row.live.why}".strip(),
            "Read the log of the pods that tried. Stop the deployment and start it again to have it tried anew.",
        )
    else:
        yield Wait("The weights are fetched ahead.")


def _clear(row: Held) -> Iterator[Action]:
    """Take away a Job that is done; its row stays, and says that the weights are there."""
    if _same(row) and row.live is not None and row.live.ours and not row.live.deleting:
        yield Delete(row.ref, row.uid)


def _again(wish: Wish, observed: Observed) -> Iterator[Action]:
    """A deleted object comes back, but never beside the pods of the one before: they still hold their GPUs."""
    if wish.ref.kind in WORKLOADS and (observed.pods or observed.makers):
        yield Wait(f"{wish.ref} was deleted; it comes back when its {observed.pods} old pods are gone.")
    else:
        yield Create(wish, again=True)


def _remove_workloads(leaving: list[Held]) -> Iterator[Action]:
    making = [row for row in leaving if row.ref.kind in WORKLOADS or row.ref.kind == JOB]
    for row in making:
        yield from _remove(row)
    if any(row.live is not None and _same(row) for row in making):
        yield Wait("The service is being deleted.")


def _make_way(leaving: list[Held], desired: Desired, held: Mapping[Ref, Held]) -> Iterator[Action]:
    """An autoscaler goes before its successor comes: KEDA admits none for a workload that another one scales.

    Everything else that a revision drops may stand beside what comes, and goes last. Autoscalers of an
    InferenceService are KServe's, which changes them itself.
    """
    rows = (held.get(wish.ref) for wish in desired.objects if wish.ref.kind in SCALER_KINDS)
    if all(row is not None and row.live is not None for row in rows):
        return
    before = [row for row in leaving if row.ref.kind in SCALER_KINDS and _same(row)]
    for row in before:
        yield from _remove(row)
    if before:
        yield Wait("The autoscaler before is being removed; its successor comes when it is gone.")


def _await_pods(desired: Desired, observed: Observed) -> Iterator[Action]:
    services = {wish.ref for wish in desired.objects if wish.ref.kind in WORKLOADS}
    up = [row for row in observed.held if row.ref in services and not (row.live and row.live.stopped)]
    if observed.pods:
        yield Wait(f"{observed.pods} pods are not gone yet.")
    elif observed.makers or up:
        yield Wait("The service is being taken down.")


def _remove_rest(leaving: list[Held], observed: Observed) -> Iterator[Action]:
    # The other way round than they came: what guards goes last.
    for row in reversed(leaving):
        if row.ref.kind == CLAIM and observed.older and _same(row):
            yield Later(f"Pods of the revision before still use {row.ref}.")
        elif row.ref.kind not in WORKLOADS and row.ref.kind != JOB:
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
