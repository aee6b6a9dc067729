"""Hints tell a worker that something is due. They may be lost: the sweep finds everything a few seconds later."""

from __future__ import annotations

import logging

from celery import current_app
from django.db import transaction

logger = logging.getLogger(__name__)

RECONCILE = "deployments.reconcile"
RECONCILE_TEAM = "deployments.reconcile_team"
PROBE = "deployments.probe"
MAIL = "deployments.mail"
MAIL_INVITATION = "deployments.mail_invitation"


def hint(task: str, pk: int) -> None:
    """Send `task` for row `pk` once the open transaction has committed; a broker that is away costs half a second."""
    transaction.on_commit(lambda: _send(task, pk), robust=True)


def _send(task: str, pk: int) -> None:
    try:
        current_app.send_task(task, args=[pk], retry=False, ignore_result=True)
    except Exception as error:  # noqa: BLE001 - whatever the broker's trouble, the wish is stored and the sweep will find it
        logger.warning("hint %s %s not sent: %s", task, pk, error)
