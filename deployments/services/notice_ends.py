"""Notices that ask for a decision are read once it was made, by whomever: else the number at the bell says nothing."""

from __future__ import annotations

from django.db.models import Q
from django.utils import timezone

from deployments.models import Notification, QuotaRequest, Revision, Wanted
from deployments.services.notice_words import WANT_A_WORD

AT_ONCE = 1000
QUOTA = "quota_asked"


def settle() -> int:
    """Mark as read what wants no decision any more; the sweep calls this. Three queries where nothing is to do."""
    unread = Notification.objects.unread()
    waits = Q(event__deployment__latest__verdict=Revision.Verdict.PENDING)
    decided = ~waits | Q(event__deployment__wanted=Wanted.DELETED)
    wishes = unread.filter(decided, event__kind__in=WANT_A_WORD - {QUOTA})
    pks = set(wishes.order_by("pk").values_list("pk", flat=True)[:AT_ONCE])
    pending = set(QuotaRequest.objects.pending().values_list("pk", flat=True))
    asked = unread.filter(event__kind=QUOTA).order_by("pk").values_list("pk", "event__data__request")
    pks |= {pk for pk, request in asked[:AT_ONCE] if request not in pending}
    return unread.filter(pk__in=pks).update(read_at=timezone.now()) if pks else 0
