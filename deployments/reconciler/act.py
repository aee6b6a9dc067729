"""Carries out a plan: every mutating call between a committed intent and its record."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.kube.cluster import Cluster
from deployments.kube.errors import ClusterError, ErrorClass
from deployments.kube.kinds import Ref
from deployments.kube.ownership import managed_hash
from deployments.models import Intent, Revision
from deployments.reconciler.desired import Marks
from deployments.reconciler.plan import (
    FETCHED,
    JOB,
    WORKLOADS,
    Action,
    Apply,
    Block,
    Create,
    Delete,
    Forget,
    Keep,
    Later,
    Wait,
    Wish,
)
from deployments.services import convergence
from deployments.services.convergence import Lease, LeaseLostError

logger = logging.getLogger(__name__)

# The object changed, went or was replaced between reading and writing: read again, plan again.
MOVED = frozenset({ErrorClass.CONFLICT, ErrorClass.GONE, ErrorClass.TAKEN})


@dataclass
class Actor:
    """Acts on the cluster for one row under lease, and remembers what it did for the timeline."""

    cluster: Cluster
    held: Lease
    marks: Marks
    revision: Revision | None = None
    created: list[Ref] = field(default_factory=list)
    applied: list[Ref] = field(default_factory=list)
    healed: list[tuple[Ref, str]] = field(default_factory=list)
    restored: list[Ref] = field(default_factory=list)
    deleted: list[Ref] = field(default_factory=list)
    fetched: list[Ref] = field(default_factory=list)
    later: Later | None = None

    def carry_out(self, actions: Sequence[Action]) -> tuple[Wait | Block | None, bool]:
        """Do the steps in order. Returns what stopped them, and whether the cluster must be read again now."""
        again, self.later = False, None
        for action in actions:
            match action:
                case Create():
                    stop = self._create(action)
                    if stop is not None:
                        return stop, again
                case Apply():
                    self._apply(action)
                case Delete():
                    self._delete(action.ref, action.uid)
                    again = True
                case Forget():
                    convergence.gone(self.held, action.ref)
                case Keep():
                    convergence.ended(self.held, action.ref, FETCHED)
                    self.fetched.append(action.ref)
                    again = True
                case Later():
                    self.later = action
                case Wait() | Block():
                    return action, again
        return None, again

    def _create(self, action: Create) -> Block | None:
        wish = action.wish
        intent = convergence.open_intent(self.held, verb="create", ref=wish.ref, digest=wish.digest)
        try:
            made = self.cluster.create(wish.body)
        except ClusterError as error:
            if error.kind is ErrorClass.TAKEN:
                return self._taken(wish, intent)
            self._unsent(intent, error)
            raise
        self._record(intent, wish, made)
        (self.restored if action.again else self.created).append(wish.ref)
        return None

    def _taken(self, wish: Wish, intent: Intent) -> Block | None:
        """The name is in use: by our own leftover, which we keep, or by a stranger, whom we leave alone."""
        found = self.cluster.read(wish.ref)
        if found is None:
            convergence.settled(self.held, intent, "name was taken, then free")
            raise ClusterError(ErrorClass.CONFLICT, "conflict", f"{wish.ref} came and went.")
        ours = self.marks.on(found) and convergence.asked_before(self.held, wish.ref, but=intent)
        if not ours:
            convergence.settled(self.held, intent, "name taken by a stranger")
            return Block(
                "name_taken",
                f"Another {wish.ref.kind} is called “{wish.ref.name}” already; Slipway did not make it.",
                "Delete or rename it, or ask for the model under another name.",
            )
        # What its first write looked like is not known any more: an empty digest has it applied next.
        self._record(intent, wish, found, digest="", result="our own leftover")
        raise ClusterError(ErrorClass.CONFLICT, "conflict", f"{wish.ref} was ours already.")

    def _apply(self, action: Apply) -> None:
        wish, version = action.wish, action.version
        if action.rewrite:
            version = self._take_over(action)
        intent = convergence.open_intent(self.held, verb="apply", ref=wish.ref, digest=wish.digest)
        try:
            made = self.cluster.apply(wish.body, action.uid, version=version)
        except ClusterError as error:
            self._unsent(intent, error)
            raise
        self._record(intent, wish, made, owned=True)
        self.applied.append(wish.ref)
        if action.edited_by:
            self.healed.append((wish.ref, action.edited_by))

    def _take_over(self, action: Apply) -> str:
        """Move our fields from Update to Apply; returns the version that came of it."""
        ref = action.wish.ref
        live = self.cluster.read(ref)
        if live is None or (live["metadata"]["uid"], live["metadata"]["resourceVersion"]) != (
            action.uid,
            action.version,
        ):
            raise ClusterError(ErrorClass.CONFLICT, "conflict", f"{ref} changed meanwhile.")
        intent = convergence.open_intent(self.held, verb="rewrite", ref=ref)
        try:
            made = self.cluster.rewrite_ownership(ref, live)
        except ClusterError as error:
            self._unsent(intent, error)
            raise
        convergence.settled(self.held, intent, "done")
        return str(made["metadata"]["resourceVersion"])

    def _delete(self, ref: Ref, uid: str) -> None:
        intent = convergence.open_intent(self.held, verb="delete", ref=ref)
        # In the foreground what makes pods goes last, so that its absence says that its children are gone.
        propagation = "Foreground" if ref.kind in WORKLOADS or ref.kind == JOB else "Background"
        try:
            self.cluster.delete(ref, uid, propagation=propagation)
        except ClusterError as error:
            if error.kind is ErrorClass.GONE:
                convergence.gone(self.held, ref, intent=intent)
                return
            self._unsent(intent, error)
            raise
        convergence.settled(self.held, intent, "asked for")
        self.deleted.append(ref)

    def _unsent(self, intent: Intent, error: ClusterError) -> None:
        """Close the intent of a call that certainly did nothing; after an unknown end it stays open."""
        if not error.unknown:
            convergence.settled(self.held, intent, str(error))

    def _record(
        self,
        intent: Intent,
        wish: Wish,
        made: dict[str, Any],
        *,
        digest: str | None = None,
        owned: bool = False,
        result: str = "done",
    ) -> None:
        try:
            convergence.written(
                self.held,
                intent,
                ref=wish.ref,
                uid=made["metadata"]["uid"],
                digest=wish.digest if digest is None else digest,
                managed=managed_hash(made),
                owned=owned,
                revision=self.revision,
                result=result,
            )
        except LeaseLostError:
            # Somebody else works on this row by now and cannot know of what was just made.
            convergence.unrecorded(self.held, intent)
            raise
