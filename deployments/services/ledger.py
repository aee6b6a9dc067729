"""GPUs reserved and given back. `holds` takes; here is giving back, which needs proof, and wakes who waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from deployments.models import Deployment, Principal, QuotaHold, Reservation, Revision, User, Wanted
from deployments.services import events, waiting
from deployments.services.convergence import Lease, LeaseLostError
from deployments.services.errors import ConflictError, MissingError, NotAllowedError
from deployments.services.holds import Usage, account_of, charge, held_by, reserve, usage, usage_in, usage_of
from deployments.services.text import gpus_in_words, line_of
from deployments.services.transactions import in_transaction

__all__ = [
    "Proof",
    "ProofError",
    "Usage",
    "account_of",
    "charge",
    "force_release",
    "held_by",
    "release",
    "reserve",
    "usage",
    "usage_in",
    "usage_of",
]


@dataclass(frozen=True)
class Proof:
    """A complete live list of a deployment's pods: when it was begun, by the database's clock, and the GPUs of pods not
    yet gone.

    A pod counts while it is pending, running or terminating. `of_others` are GPUs of pods that do not belong to the
    approved revision.
    """

    listed_at: datetime
    gpus: int = 0
    of_others: int = 0


class ProofError(ConflictError):
    """The pods are not proven to be gone, so their GPUs stay reserved."""

    code = "not_proven"


@in_transaction
def release(
    *,
    deployment: Deployment,
    lease: Lease,
    proof: Proof,
    down_to: int = 0,
    revision: Revision | None = None,
    reason: str = "",
) -> list[Reservation]:
    """Lower what the deployment holds to `down_to` GPUs of its approved revision's flavor, and to none of others.

    Needs the lease under which the caller listed the pods (LeaseLostError when it ran out), and proof that no more
    than that is still in use (ProofError otherwise). Does nothing when the deployment was started again, or another
    revision than `revision` was approved, since the caller looked.
    """
    # Deployment first, then accounts by primary key: no deadlocks.
    row = Deployment.objects.hold(deployment.pk, "approved")
    assert row is not None
    # A statement of its own, after the lock: the lease may run out while another transaction holds the row.
    if lease.pk != row.pk or not lease.fenced().exists():
        raise LeaseLostError(f"Deployment {row.pk}")
    running = row.wanted == Wanted.RUNNING and row.approved is not None
    if running and down_to < _needed(row):
        return []
    if revision is not None and row.approved_id != revision.pk:
        return []
    holds = list(QuotaHold.objects.filter(deployment=row, gpus__gt=0).select_related("account").order_by("account_id"))
    if not holds:
        return []
    _check_proof(row, proof, down_to)
    keep = row.approved.flavor_id if row.approved else None
    released = [
        _give_back(hold, to=down_to if hold.account.flavor_id == keep else 0, reason=reason or "pods are gone")
        for hold in holds
    ]
    return _released(row, [entry for entry in released if entry])


@in_transaction
def force_release(*, principal: Principal, deployment: Deployment, reason: str) -> list[Reservation]:
    """Give everything back without proof: an admin's last resort, audited with its reason."""
    if not (principal.is_admin and principal.may("approve")):
        raise NotAllowedError("Only an admin may give GPUs back without proof that the pods are gone.")
    why = line_of(reason, field="reason", longest=300)
    row = Deployment.objects.visible_to(principal).hold(deployment.pk)
    if row is None:
        raise MissingError("There is no such deployment.")
    if row.wanted == Wanted.RUNNING:
        raise ConflictError("Stop the deployment first: it would go on without a reservation.")
    holds = QuotaHold.objects.filter(deployment=row, gpus__gt=0).select_related("account").order_by("account_id")
    entries = [
        _give_back(hold, to=0, reason=why, kind=Reservation.Kind.FORCE, actor=principal.user) for hold in list(holds)
    ]
    return _released(row, [entry for entry in entries if entry], actor=principal.user, forced=why)


def _needed(deployment: Deployment) -> int:
    """GPUs that a running deployment must keep: the whole charge while a change is under way."""
    new = deployment.approved
    assert new is not None
    if deployment.applied_id != new.pk:
        return charge(old=deployment.applied, new=new)
    return new.gpus


def _check_proof(deployment: Deployment, proof: Proof, down_to: int) -> None:
    if proof.gpus > down_to or proof.of_others:
        raise ProofError(f"Pods of “{deployment.name}” still hold {gpus_in_words(proof.gpus)}.")
    if proof.listed_at < deployment.wanted_at:
        raise ProofError("The list of pods is older than the last start or stop.")
    last = Reservation.objects.filter(deployment=deployment, kind=Reservation.Kind.TAKE).order_by("-pk").first()
    if last is not None and proof.listed_at < last.created_at:
        raise ProofError("The list of pods is older than the reservation.")


def _give_back(
    hold: QuotaHold,
    *,
    to: int,
    reason: str,
    kind: str = Reservation.Kind.RELEASE,
    actor: User | None = None,
) -> Reservation | None:
    if hold.gpus <= to:
        return None
    return Reservation.objects.create(
        account=hold.account,
        deployment_id=hold.deployment_id,
        delta=to - hold.gpus,
        balance_before=hold.gpus,
        kind=kind,
        reason=reason,
        actor=actor,
    )


def _released(
    deployment: Deployment, entries: list[Reservation], *, actor: User | None = None, forced: str = ""
) -> list[Reservation]:
    for entry in entries:
        events.record(
            kind="gpus_forced" if forced else "gpus_released",
            message=f"{gpus_in_words(-entry.delta)} given back" + (f" without proof: {forced}" if forced else ""),
            deployment=deployment,
            actor=actor,
            level="warning" if forced else "info",
            data={"gpus": -entry.delta, "account": entry.account_id, "reason": entry.reason},
        )
        waiting.wake_later(entry.account_id)
    return entries
