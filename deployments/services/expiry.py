"""Requests that nobody decides about do not wait for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now

from deployments.models import Deployment, QuotaRequest, Revision
from deployments.services import events, states
from deployments.services.transactions import in_transaction

logger = logging.getLogger(__name__)

# At most so many in one sweep.
AT_ONCE = 100


def expire_undecided() -> int:
    """End requests that nobody decided about for REQUEST_EXPIRY_DAYS; the sweep calls this. Returns how many.

    What runs goes on; whoever asked may edit the request, which asks anew, or delete it. One that fails is logged.
    """
    before = Now() - timedelta(days=settings.REQUEST_EXPIRY_DAYS)
    found = list(Revision.objects.pending().filter(created_at__lt=before).values_list("pk", flat=True)[:AT_ONCE])
    return _each(found, _expire)


def expire_asked() -> int:
    """End requests for quota that nobody decided about for as long; the sweep calls this. Returns how many."""
    before = Now() - timedelta(days=settings.REQUEST_EXPIRY_DAYS)
    found = list(QuotaRequest.objects.pending().filter(created_at__lt=before).values_list("pk", flat=True)[:AT_ONCE])
    return _each(found, _expire_asked)


def _each(found: Iterable[int], expire: Callable[[int], bool]) -> int:
    expired = 0
    for pk in found:
        try:
            expired += expire(pk)
        except Exception:
            logger.exception("%s could not expire (%s)", pk, expire.__name__)
    return expired


@in_transaction
def _expire_asked(pk: int) -> bool:
    # A guarded update: somebody may have decided or withdrawn it meanwhile.
    if not QuotaRequest.objects.pending().filter(pk=pk).update(state=QuotaRequest.State.EXPIRED):
        return False
    row = QuotaRequest.objects.select_related("team", "flavor").get(pk=pk)
    wish = f"{row.gpus} × {row.flavor.name}"
    events.record(
        kind="quota_expired",
        message=f"Nobody decided about the request for {wish} for {settings.REQUEST_EXPIRY_DAYS} days",
        team=row.team,
        level="warning",
        data={
            "request": pk,
            "flavor": row.flavor.slug,
            "author": row.author_id,
            **events.changed({"state": QuotaRequest.State.PENDING}, {"state": QuotaRequest.State.EXPIRED}),
        },
    )
    return True


@in_transaction
def _expire(pk: int) -> bool:
    revision = Revision.objects.get(pk=pk)
    deployment = Deployment.objects.hold(revision.deployment_id)
    assert deployment is not None
    # Under the lock: somebody may have decided, edited or deleted it meanwhile.
    if not Revision.objects.pending().filter(pk=pk).update(verdict=Revision.Verdict.EXPIRED):
        return False
    events.record(
        kind="expired",
        message=f"Nobody decided about revision {revision.number} for {settings.REQUEST_EXPIRY_DAYS} days",
        deployment=deployment,
        level="warning",
        data={
            "revision": revision.number,
            "digest": revision.digest,
            **events.changed({"verdict": Revision.Verdict.PENDING}, {"verdict": Revision.Verdict.EXPIRED}),
        },
    )
    Deployment.objects.filter(pk=deployment.pk).update(updated_at=Now())
    states.refresh(deployment.pk)
    return True
