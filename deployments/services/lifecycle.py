"""Stopping, starting and deleting: what is wanted is recorded here; workers make it so."""

from __future__ import annotations

from typing import Any

from django.db.models.functions import Now

from deployments.models import Deployment, DeploymentQuerySet, Principal, Revision, Wanted
from deployments.services import authority, events, holds, states, waiting
from deployments.services.errors import (
    ConflictError,
    InvalidError,
    MissingError,
    NotAllowedError,
    QuotaExceededError,
)
from deployments.services.text import gpus_in_words, line_of
from deployments.services.transactions import in_transaction
from portal.lib.hints import RECONCILE, hint


@in_transaction
def stop(*, principal: Principal, deployment: Deployment, reason: str = "") -> Deployment:
    """Have the pods go and the GPUs come back once they are gone. Stopping what is stopped changes nothing."""
    row = _locked(principal, deployment)
    if row.wanted == Wanted.STOPPED:
        return row
    if row.approved is None and not _waits_for_quota(row):
        raise ConflictError("Nothing of it runs yet. Delete it to withdraw the request.")
    note = line_of(reason, field="reason", longest=300, required=False)
    _want(row, Wanted.STOPPED)
    events.record(
        kind="stopped",
        message="Stop asked for" + (f": {note}" if note else ""),
        deployment=row,
        actor=principal.user,
        data=events.changed({"wanted": Wanted.RUNNING}, {"wanted": Wanted.STOPPED}),
    )
    return row


@in_transaction
def stop_by_itself(*, deployment: Deployment, reason: str) -> bool:
    """Stop what nobody asked to stop, for a reason that the timeline tells; False when it does not run any more."""
    row = states.computable(Deployment.objects.alive()).hold(deployment.pk)
    if row is None or row.wanted != Wanted.RUNNING:
        return False
    _want(row, Wanted.STOPPED)
    events.record(
        kind="stopped",
        message=f"Stopped by Slipway: {reason}",
        deployment=row,
        level="warning",
        data=events.changed({"wanted": Wanted.RUNNING}, {"wanted": Wanted.STOPPED}) | {"reason": reason},
    )
    return True


@in_transaction
def start(*, principal: Principal, deployment: Deployment) -> Deployment:
    """Run what was approved last; while that waits for quota, what ran before. QuotaExceededError when neither can."""
    row = _locked(principal, deployment)
    if row.wanted == Wanted.RUNNING:
        return row
    waits = _waits_for_quota(row) and row.approved_id != row.latest_id
    if row.approved is None and not waits:
        raise ConflictError("No revision of it is approved.")
    _want(row, Wanted.RUNNING)
    events.record(
        kind="started",
        message="Start asked for",
        deployment=row,
        actor=principal.user,
        data=events.changed({"wanted": Wanted.STOPPED}, {"wanted": Wanted.RUNNING}),
    )
    if waits and _start_newest(principal, row):
        return row
    if row.approved is not None:
        _reserve_again(principal, row, row.approved)
    return row


@in_transaction
def delete(*, principal: Principal, deployment: Deployment, confirm: str | None = None) -> Deployment:
    """Mark a deployment for deletion; workers take it off the cluster, then its name is free again.

    Where the caller asked a person to type the name, `confirm` is what was typed.
    """
    row = _locked(principal, deployment, also_deleted=True)
    if confirm is not None and confirm != row.name:
        raise InvalidError("Type the name of the deployment to delete it.", field="confirm", pointer="/confirm")
    if row.wanted == Wanted.DELETED:
        return row
    before = row.wanted
    Revision.objects.filter(deployment=row, verdict=Revision.Verdict.PENDING).update(
        verdict=Revision.Verdict.SUPERSEDED
    )
    _want(row, Wanted.DELETED)
    events.record(
        kind="delete_asked",
        message="Deletion asked for",
        deployment=row,
        actor=principal.user,
        level="warning",
        data=events.changed({"wanted": before}, {"wanted": Wanted.DELETED}),
    )
    return row


def may_operate(principal: Principal, deployment: Deployment) -> bool:
    """True when the principal may stop, start and delete it: its team's members, and admins."""
    return operable_by(principal).filter(pk=deployment.pk).exists()


def _start_newest(principal: Principal, row: Deployment) -> bool:
    """Take GPUs for what was approved and waited; False when it waits on: for them, or for a decision again."""
    assert row.latest is not None
    if authority.void_if_fallen(row):  # whoever said yes may have lost that right while it was stopped
        return False
    return waiting.accept(deployment=row, revision=row.latest, actor=principal.user)


def _reserve_again(principal: Principal, row: Deployment, revision: Revision) -> None:
    room = holds.room_for(row, revision)
    gpus = waiting.charged(room, row, revision)
    if waiting.someone_before(row, room, gpus):
        raise QuotaExceededError("Other deployments of the team wait for these GPUs. Free some, or ask for quota.")
    taken = holds.take(room, deployment=row, revision=revision, gpus=gpus, actor=principal.user)
    if taken is not None:
        events.record(
            kind="gpus_reserved",
            message=f"{gpus_in_words(taken.delta)} reserved for revision {revision.number}",
            deployment=row,
            actor=principal.user,
            data={"gpus": taken.delta, "account": taken.account_id, "revision": revision.number},
        )


def _want(row: Deployment, wanted: Wanted) -> None:
    values: dict[str, Any] = {"wanted": wanted, "wanted_at": Now(), "next_reconcile_at": Now(), "failures": 0}
    values["updated_at"] = Now()
    states.move(row, **values)
    hint(RECONCILE, row.pk)


def _waits_for_quota(row: Deployment) -> bool:
    return row.latest is not None and row.latest.verdict == Revision.Verdict.APPROVED


def operable_by(principal: Principal) -> DeploymentQuerySet:
    """Deployments that the principal may stop, start and delete: those of their teams, for an admin all."""
    if principal.is_admin and principal.may("write"):
        return Deployment.objects.alive().visible_to(principal)
    return Deployment.objects.writable_by(principal)


def _locked(principal: Principal, deployment: Deployment, *, also_deleted: bool = False) -> Deployment:
    row = states.computable(operable_by(principal), "applied").hold(deployment.pk, "team")
    if row is None:
        if Deployment.objects.alive().visible_to(principal).filter(pk=deployment.pk).exists():
            raise NotAllowedError("Only members of the team may do this, and tokens with the scope “write”.")
        raise MissingError("There is no such deployment.")
    if row.wanted == Wanted.DELETED and not also_deleted:
        raise ConflictError("This deployment is being deleted.")
    return row
