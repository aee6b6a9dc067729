"""Notices as e-mail: plain text, sent by workers, tried again for as long as the server may be away.

Before a mail is sent its try is counted by a guarded UPDATE, so that two workers do not send it twice; a worker that
dies between the two sends it again after the pause of a failure.
"""

from __future__ import annotations

import logging
import smtplib
import unicodedata
from datetime import timedelta

from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import Case, DateTimeField, DurationField, Expression, ExpressionWrapper, F, QuerySet, Value, When
from django.db.models.functions import Now
from django.utils import timezone

from deployments.models import Notification, Principal

logger = logging.getLogger(__name__)

PAUSE = timedelta(seconds=30)
# Pauses double up to 2^12 × 30 s, a day and a half.
MOST_DOUBLED = 12
# After this time a mail helps nobody; the notice stays on the site.
WORTH = timedelta(days=14)
SUBJECT_LENGTH = 120


def pause_after(failures: int) -> timedelta:
    """The age at which a notice whose mail failed so often is tried again: pauses double."""
    return PAUSE * ((1 << min(failures, MOST_DOUBLED)) - 1)


def next_try() -> Expression:
    """When a row with `created_at` and `mail_failures` is tried again, for queries."""
    age = Case(
        *(When(mail_failures=count, then=Value(pause_after(count))) for count in range(1, MOST_DOUBLED)),
        When(mail_failures=0, then=Value(timedelta())),
        default=Value(pause_after(MOST_DOUBLED)),
        output_field=DurationField(),
    )
    return ExpressionWrapper(F("created_at") + age, output_field=DateTimeField())


def due(most: int) -> list[int]:
    """Events about which mails wait to be sent now."""
    rows = _due().order_by("event_id").values_list("event_id", flat=True)
    return list(rows.distinct()[:most])


def send(event_pk: int) -> int:
    """Send the mails about one event that are due; returns how many were sent."""
    sent = 0
    for row in _due().filter(event=event_pk).select_related("user", "event"):
        if not Notification.objects.visible_to(Principal(user=row.user)).filter(pk=row.pk).exists():
            _give_up(row, "its reader may not see it any more")
        elif not (row.user.mail_notices and row.user.email):
            _give_up(row, "its reader wants no mail")
        elif _claimed(row):
            sent += _sent(row)
    return sent


def message_of(row: Notification) -> EmailMessage:
    """The mail of a notice: everything in it is plain text on lines of our own."""
    text = _line(row.message)
    subject = text if len(text) <= SUBJECT_LENGTH else text[: SUBJECT_LENGTH - 1] + "…"
    site = settings.SLIPWAY_URL.rstrip("/")
    body = "\n".join(
        [
            text,
            "",
            *([f"{site}{row.link}", ""] if row.link else []),
            "-- ",
            f"Slipway, {site}. You get this because your notices are mailed: switch it off under {site}/account/.",
        ]
    )
    return EmailMessage(f"[Slipway] {subject}", body, None, [row.user.email])


def deliver(message: EmailMessage, name: str) -> tuple[bool, str]:
    """Whether the server took a mail, and why it never will; `name` is for the log. Neither: try again later."""
    try:
        message.send()
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        if _for_good(error):
            return False, f"the server refuses it: {type(error).__name__}"
        logger.warning("%s: the server wants it later", name)
        return False, ""
    except ValueError as error:
        # An address that is none, as one that holds a line break.
        return False, type(error).__name__
    except OSError as error:
        # smtplib's errors are OSErrors too. Never the text: servers repeat what they were sent.
        logger.warning("%s not sent: %s", name, type(error).__name__)
        return False, ""
    return True, ""


def _due() -> QuerySet[Notification]:
    return Notification.objects.unsent().alias(next_try=next_try()).filter(next_try__lte=Now())


def _claimed(row: Notification) -> bool:
    rows = Notification.objects.unsent().filter(pk=row.pk, mail_failures=row.mail_failures)
    return bool(rows.update(mail_failures=row.mail_failures + 1))


def _sent(row: Notification) -> bool:
    taken, why = deliver(message_of(row), f"mail of notice {row.pk}")
    if taken:
        Notification.objects.filter(pk=row.pk).update(mailed_at=timezone.now(), mail_failures=row.mail_failures)
    elif why:
        _give_up(row, why)
    elif timezone.now() - row.created_at > WORTH:
        _give_up(row, "it is too old")
    return taken


def _for_good(error: smtplib.SMTPException) -> bool:
    """True for answers that will not change: 5yz, for every recipient."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
    else:
        codes = [error.smtp_code] if isinstance(error, smtplib.SMTPResponseException) else []
    return bool(codes) and all(500 <= code < 600 for code in codes)


def _give_up(row: Notification, why: str) -> None:
    Notification.objects.filter(pk=row.pk).update(mail_due=False)
    logger.warning("mail of notice %s is not sent: %s", row.pk, why)


def _line(text: str) -> str:
    kept = "".join(" " if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else char for char in text)
    return " ".join(kept.split())
