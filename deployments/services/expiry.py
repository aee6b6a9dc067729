"""Requests that nobody decides about do not wait for ever."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now

from deployments.models import Deployment, Revision
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
    expired = 0
    for pk in found:
        try:
            expired += _expire(pk)
        except Exception:
            logger.exception("revision %s could not expire", pk)
    return expired


@in_transaction
def _expire(pk: int) -> bool:
    revision = Revision.objects.get(pk=pk)
    deployment = Deployment.objects.locked().get(pk=revision.deployment_id)
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
