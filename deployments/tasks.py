"""What workers run. Messages only say that something may be due: every task may run twice, late or never."""

from __future__ import annotations

import logging
from functools import cache

from celery import current_app, shared_task
from django.conf import settings
from django.db.models import CharField, Q, Value
from django.db.models.functions import Now

from deployments.kube.cluster import Cluster
from deployments.models import Deployment, Team
from deployments.reconciler import passes, teams
from deployments.services import (
    credentials,
    expiry,
    grant_ends,
    idempotency,
    invitation_mails,
    key_ends,
    mails,
    notice_ends,
    notices,
    probes,
    seals,
    tries,
    waiting,
)
from portal.lib.hints import MAIL, MAIL_INVITATION, PROBE, RECONCILE, RECONCILE_TEAM

logger = logging.getLogger(__name__)

# At most so many messages a sweep, and each is worth nothing once the next sweeps have looked again.
BATCH = 300
WORTH_SECONDS = 15


@cache
def worker_cluster() -> Cluster:
    """The cluster as the worker's own account, one connection pool per process; NoAccountError without one."""
    return Cluster.from_kubeconfig(settings.KUBECONFIG_WORKER)


@shared_task(name=RECONCILE)
def reconcile(pk: int) -> None:
    """Converge one deployment, if it is due."""
    passes.reconcile(pk, worker_cluster())


@shared_task(name=RECONCILE_TEAM)
def reconcile_team(pk: int) -> None:
    """Converge one team's namespace, if it is due."""
    teams.reconcile_team(pk, worker_cluster())


@shared_task(name="deployments.sweep")
def sweep() -> int:
    """Send a message for everything that is due: what makes a lost message cost seconds. Returns how many."""
    due = _due()
    for task, pk in due:
        current_app.send_task(task, args=[pk], expires=WORTH_SECONDS, retry=False, ignore_result=True)
    if len(due) == BATCH:
        logger.warning("at least %d rows are due", BATCH)
    # After the messages: whatever goes wrong here, rows that are due have theirs.
    for chore in (waiting.wake_all, expiry.expire_undecided, expiry.expire_asked, grant_ends.follow_dates):
        try:
            chore()
        except Exception:
            logger.exception("the sweep's %s failed", chore.__name__)
    return len(due)


@shared_task(name=PROBE)
def probe(pk: int) -> None:
    """Ask one endpoint for a sign of life."""
    probes.probe(pk)


@shared_task(name="deployments.sweep_probes")
def sweep_probes() -> int:
    """Send a message for every endpoint that was not asked lately. Returns how many."""
    due = probes.due()[:BATCH]
    for pk in due:
        current_app.send_task(PROBE, args=[pk], expires=WORTH_SECONDS, retry=False, ignore_result=True)
    return len(due)


@shared_task(name=MAIL)
def mail(event_pk: int) -> None:
    """Send the mails about one event that are due."""
    mails.send(event_pk)


@shared_task(name=MAIL_INVITATION)
def mail_invitation(pk: int) -> None:
    """Send the mail of one invitation, if it is due."""
    invitation_mails.send(pk)


CHORES = (
    credentials.expire,
    key_ends.warn,
    notice_ends.settle,
    notices.forget_read,
    idempotency.forget_old,
    tries.forget_old,
)


@shared_task(name="deployments.sweep_mail")
def sweep_mail() -> int:
    """Send a message for everything that mails are due about, and clear away what is old. Returns how many."""
    due = [(MAIL, pk) for pk in mails.due(BATCH)]
    due += [(MAIL_INVITATION, pk) for pk in invitation_mails.due(BATCH)]
    for task, pk in due:
        current_app.send_task(task, args=[pk], expires=WORTH_SECONDS, retry=False, ignore_result=True)
    for chore in CHORES:
        try:
            chore()
        except Exception:
            logger.exception("the sweep's %s failed", chore.__name__)
    return len(due)


@shared_task(name="deployments.seal_audit")
def seal_audit() -> int:
    """Bind the events that no transaction can still add to, batch by batch. Returns how many."""
    return seals.seal_all()


def _due() -> list[tuple[str, int]]:
    """Everything due and not held, teams first, then the longest due, in one query."""
    free = Q(lease_until=None) | Q(lease_until__lt=Now())
    rows = [
        model._default_manager.filter(free, next_reconcile_at__lte=Now())
        .annotate(task=Value(task, output_field=CharField()), rank=Value(rank))
        .values_list("task", "pk", "rank", "next_reconcile_at")
        for rank, (task, model) in enumerate([(RECONCILE_TEAM, Team), (RECONCILE, Deployment)])
    ]
    found = rows[0].union(rows[1], all=True).order_by("rank", "next_reconcile_at")[:BATCH]
    return [(task, pk) for task, pk, _rank, _since in found]
