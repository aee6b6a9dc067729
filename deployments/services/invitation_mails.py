"""Invitations as e-mail: sent by workers after the commit, tried again for as long as the link lets somebody in.

The link's word is nowhere but in the answer to who invited. So that a worker can mail it, the row keeps it sealed with
the site's secret key, until the server has taken the mail or will never take it.
"""

from __future__ import annotations

import logging

from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from deployments.models import Invitation
from deployments.services import invitations, mails
from portal.lib.sealed_text import InvalidToken, opened

logger = logging.getLogger(__name__)


def due(most: int) -> list[int]:
    """Invitations whose mail waits to be sent now."""
    return list(_due().order_by("pk").values_list("pk", flat=True)[:most])


def send(pk: int) -> bool:
    """Send the mail of one invitation, if it is due; True when the server took it."""
    row = _due().select_related("team", "invited_by").filter(pk=pk).first()
    if row is None:
        return False
    if invitations.standing(row) is not invitations.Standing.OPEN:
        return _give_up(row, "its link lets nobody in any more")
    try:
        word = opened(row.mail_word, invitations.SEALED_FOR)
    except InvalidToken:
        return _give_up(row, "the site has another secret key now")
    if not _claimed(row):
        return False
    taken, why = mails.deliver(message_of(row, invitations.link_of(word)), f"mail of invitation {row.pk}")
    if taken:
        Invitation.objects.filter(pk=row.pk).update(mail_due=False, mail_word="", mailed_at=timezone.now())
    elif why:
        _give_up(row, why)
    return taken


def message_of(row: Invitation, link: str) -> EmailMessage:
    """The mail with the link, as plain text."""
    who = row.invited_by.get_full_name() or row.invited_by.username
    text = (
        f"{who} invites you into the team {row.team.name} on Slipway ({settings.SLIPWAY_URL}).\n\n"
        f"Open this link to join; it works once, until {row.expires_at:%-d %B %Y}:\n{link}\n"
    )
    return EmailMessage(f"Join {row.team.name} on Slipway", text, None, [row.email])


def _due() -> QuerySet[Invitation]:
    rows = Invitation.objects.filter(mail_due=True)
    return rows.alias(next_try=mails.next_try()).filter(next_try__lte=Now())


def _claimed(row: Invitation) -> bool:
    """Count the try before it is made, so that two workers do not send it twice."""
    rows = Invitation.objects.filter(pk=row.pk, mail_due=True, mail_failures=row.mail_failures)
    return bool(rows.update(mail_failures=row.mail_failures + 1))


def _give_up(row: Invitation, why: str) -> bool:
    Invitation.objects.filter(pk=row.pk).update(mail_due=False, mail_word="")
    logger.warning("mail of invitation %d is not sent: %s", row.pk, why)
    return False
