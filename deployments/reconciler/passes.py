"""One pass over one deployment: lease, load, observe, plan, act, record. Safe to run twice, late, or beside itself."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Now
from django.utils import timezone

from deployments.kube.cluster import Cluster
from deployments.kube.errors import ClusterError, ErrorClass
from deployments.models import AppliedObject, Deployment, QuotaHold, Team, Wanted
from deployments.reconciler import endings, presets
from deployments.reconciler.act import MOVED, Actor
from deployments.reconciler.desired import desired_of, marks_of
from deployments.reconciler.endings import Ending
from deployments.reconciler.identity import stranger
from deployments.reconciler.live import Pods, list_pods, needs_pods, observe
from deployments.reconciler.plan import Block, Wait, plan
from deployments.reconciler.recover import resolve_intents
from deployments.services import convergence, credential_records, events, ledger, states
from deployments.services.convergence import Lease, LeaseLostError, Outcome
from deployments.services.text import gpus_in_words
from portal.lib.hints import RECONCILE_TEAM, hint

logger = logging.getLogger(__name__)

ROUNDS = 5
TEAM_FIRST = timedelta(seconds=2)


def reconcile(pk: int, cluster: Cluster) -> bool:
    """Converge one deployment as far as it goes now; False when it was not due or another worker has it."""
    with convergence.lease(Deployment, pk) as held:
        if held is None:
            return False
        try:
            _converge(held, cluster)
        except LeaseLostError:
            logger.warning("deployment %s: the lease ran out, another worker goes on", pk)
    states.refresh(pk)
    return True


def _converge(held: Lease, cluster: Cluster) -> None:
    row = Deployment.objects.select_related("team", "cluster", "approved", "applied").get(pk=held.pk)
    revision = row.applied.number if row.applied else None
    try:
        ending = _pass(held, cluster, row)
    except ClusterError as error:
        logger.info("deployment %s: %s", row.pk, error)
        ending = endings.failed(error, failures=row.failures, revision=revision)
        if error.code in {"namespace_missing", "permission"}:
            # The namespace, or our role in it, may have been taken away.
            Team.objects.filter(pk=row.team_id).update(next_reconcile_at=Now())
            hint(RECONCILE_TEAM, row.team_id)
    except LeaseLostError:
        raise
    except ledger.ProofError as error:
        # Somebody started or stopped it since the pods were listed: look again.
        ending = endings.waiting(Wait(error.message), revision=revision, before=row.outcome, now=timezone.now())
    except Exception as error:  # one poisonous row must not stop the others
        logger.exception("deployment %s: internal error", row.pk)
        ending = endings.broken(error, failures=row.failures, revision=revision)
    with transaction.atomic():
        stored = convergence.finish(
            held, outcome=ending.outcome, again=ending.again, failures=ending.failures, **ending.columns
        )
        if stored and "deleted_at" in ending.columns and not row.deleted_at:
            _tombstone_event(row)
    logger.info("deployment %s: %s %s", row.pk, ending.outcome.phase, ending.outcome.code or ending.outcome.revision)


def _pass(held: Lease, cluster: Cluster, row: Deployment) -> Ending:
    if stop := stranger(cluster, row.cluster):
        return endings.blocked(stop, revision=row.applied.number if row.applied else None)
    marks = marks_of(row)
    resolve_intents(cluster, held, marks, row.approved)
    running = row.approved if row.wanted == Wanted.RUNNING else None
    if running is not None and not (row.team.ready and presets.stand_for(running)):
        hint(RECONCILE_TEAM, row.team_id)
        return _team_first(row)
    actor = Actor(cluster, held, marks, row.approved)
    stopped_by, pods = _work(actor, row)
    _tell(actor, row)
    if row.approved is not None and any(ref.kind == "ServiceAccount" for ref in [*actor.created, *actor.applied]):
        credential_records.used(row, row.approved.spec)
    applied = row.approved if row.wanted == Wanted.RUNNING and stopped_by is None else row.applied
    number = applied.number if applied else None
    if isinstance(stopped_by, Block):
        return endings.blocked(stopped_by, revision=number)
    if isinstance(stopped_by, Wait):
        return endings.waiting(stopped_by, revision=number, before=row.outcome, now=timezone.now())
    return _settle(actor, row, pods)


def _work(actor: Actor, row: Deployment) -> tuple[Wait | Block | None, Pods | None]:
    """Observe, plan and act until nothing is left to do, something stops it, or the object keeps moving."""
    for _ in range(ROUNDS):
        rows = list(AppliedObject.objects.filter(deployment=row).order_by("pk"))
        desired = desired_of(row, exists=bool(rows))
        if isinstance(desired, Block | Wait):
            return desired, None
        # What makes pods is read before the pods: none can appear after a list that shows none.
        seen = observe(actor.cluster, actor.held, rows, actor.marks)
        pods = list_pods(actor.cluster, actor.held, row) if needs_pods(desired, rows) else None
        if pods is not None:
            seen = pods.beside(seen, row.approved.number if row.approved else None)
        try:
            stopped_by, again = actor.carry_out(plan(desired, seen))
        except ClusterError as error:
            if error.kind not in MOVED or error.code == "namespace_missing":
                raise
            continue
        if stopped_by is not None or not again:
            return stopped_by, pods
    raise ClusterError(ErrorClass.RETRY, "conflict", "The objects keep changing while they are written.")


def _settle(actor: Actor, row: Deployment, pods: Pods | None) -> Ending:
    """Everything is as wanted: record it, and give back what is proven to be free."""
    held, cluster = actor.held, actor.cluster
    if row.wanted == Wanted.RUNNING and not row.deleted_at:
        ending = _running(held, cluster, row, pods)
        if actor.later is None or ending.outcome.code:
            return ending
        return _once_more(ending, Wait(actor.later.why), row)
    if _holds(row):
        pods = list_pods(cluster, held, row)
        if pods.pods or pods.makers:
            wait = Wait(f"{len(pods.pods)} pods are not gone yet.")
            return endings.waiting(wait, revision=None, before=row.outcome, now=timezone.now())
        ledger.release(deployment=row, lease=held, proof=ledger.Proof(pods.listed_at))
    if row.wanted != Wanted.DELETED and not row.deleted_at:
        ending = endings.converged(None)
        return Ending(Outcome(endings.GONE, revision=row.applied.number if row.applied else None), ending.again)
    return Ending(Outcome(endings.GONE), None, 0, {"deleted_at": row.deleted_at or timezone.now()})


def _running(held: Lease, cluster: Cluster, row: Deployment, pods: Pods | None) -> Ending:
    revision = row.approved
    if revision is None:
        return endings.converged(None)
    ending = endings.converged(revision.number)
    columns = {"applied": revision}
    if row.applied_id != revision.pk:
        # Recorded before anything is given back: the ledger keeps the whole charge while a change is under way.
        with transaction.atomic():
            if not held.fenced().update(applied=revision):
                raise LeaseLostError(f"deployment {row.pk}")
            events.record(
                kind="applied",
                message=f"Revision {revision.number} applied",
                deployment=row,
                data={"revision": revision.number},
            )
        row.applied = revision
    if _holds(row) > revision.gpus:
        pods = list_pods(cluster, held, row)
        others = pods.gpus_of_others(revision.number)
        if others or pods.gpus > revision.gpus:
            wait = Wait(f"Pods of the revision before still hold {gpus_in_words(others or pods.gpus)}.")
            return endings.waiting(wait, revision=revision.number, before=row.outcome, now=timezone.now())
        proof = ledger.Proof(pods.listed_at, pods.gpus, others)
        ledger.release(deployment=row, lease=held, proof=proof, down_to=revision.gpus, revision=revision)
    return Ending(ending.outcome, ending.again, 0, columns)


def _once_more(ending: Ending, wait: Wait, row: Deployment) -> Ending:
    """The same end, with another look soon."""
    soon = endings.waiting(wait, revision=ending.outcome.revision, before=row.outcome, now=timezone.now())
    return Ending(soon.outcome, soon.again, 0, ending.columns)


def _team_first(row: Deployment) -> Ending:
    if row.team.blocked_message:
        remedy = "An admin must put this right; Slipway then goes on by itself."
        outcome = Outcome(endings.BLOCKED, "team_blocked", row.team.blocked_message, remedy)
        return Ending(outcome, convergence.spread(TEAM_FIRST * 10), row.failures)
    if row.applied_id:  # the namespace stood, and nothing is wrong with it but that it has to go first
        return Ending(endings.namespace_goes(), convergence.spread(TEAM_FIRST), row.failures)
    outcome = Outcome(endings.NONE, "waiting", "The team's namespace is being made.")
    return Ending(outcome, convergence.spread(TEAM_FIRST), row.failures)


def _holds(row: Deployment) -> int:
    return QuotaHold.objects.filter(deployment=row).aggregate(gpus=Sum("gpus"))["gpus"] or 0


def _tell(actor: Actor, row: Deployment) -> None:
    """Put what hands did, and what was made of it, on the timeline."""
    for ref, editor in actor.healed:
        events.record(
            kind="healed",
            message=f"{ref} was changed by {editor} and put back",
            deployment=row,
            level="warning",
            data={"object": str(ref), "by": editor},
        )
    for ref in actor.restored:
        events.record(
            kind="restored", message=f"{ref} was deleted by hand and made again", deployment=row, level="warning"
        )
    for ref in actor.fetched:
        events.record(kind="fetched", message=f"Weights fetched ahead into the volume claim {ref.name}", deployment=row)


def _tombstone_event(row: Deployment) -> None:
    events.record(kind="deleted", message=f"{row.name} is gone from the cluster", deployment=row)
