"""What was granted of a request for quota, in words: asked → granted, with the dates where they differ."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from deployments.models import QuotaRequest


def granted_words(row: QuotaRequest) -> str:
    """“4 × H100 → 2 × L4, until 1 Dec 2026”: what was asked for where something else was granted, then what holds.

    The grant as it is now: whoever changed it since is named in the list of grants.
    """
    given = row.granted
    if given is None:
        return ""
    asked, granted = f"{row.gpus} × {row.flavor.name}", f"{given.gpus} × {given.flavor.name}"
    words = granted if asked == granted else f"{asked} → {granted}"
    since = f"from {_day(given.valid_from)}, " if given.valid_from > timezone.now() else ""
    until = f"until {_day(given.valid_until)}" if given.valid_until else "without an end"
    if row.valid_until != given.valid_until:
        until += f" (asked {_day(row.valid_until)})" if row.valid_until else " (asked without an end)"
    return f"{words}, {since}{until}"


def _day(moment: datetime) -> str:
    day = timezone.localtime(moment)
    return f"{day.day} {day:%b %Y}"
