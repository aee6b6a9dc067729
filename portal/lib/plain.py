"""Numbers, days and moments as JSON and forms may hold them: in the digits 0 to 9, whole, and nothing around them.

Python's own readers take more: digits of any script, `1_0`, ` 1`, `1e2`, `True`, weeks in place of days. What is taken
for another number than somebody reads there ends in a quota or a price, so every door reads with these.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from decimal import Decimal

from django.utils.dateparse import parse_date, parse_datetime

_WHOLE = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
)


def whole(value: object, *, digits: int = 18) -> int | None:
    """The whole number from 0 that a text of at most so many digits spells; None for anything else."""
    if not isinstance(value, str) or len(value) > digits or not _WHOLE.fullmatch(value):
        return None
    return int(value)


def decimal(value: object) -> Decimal | None:
    """A number from 0: a finite one of JSON, or a text like `3.5`; None for anything else, true and false too."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return Decimal(str(value)) if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return value if value.is_finite() else None
    return Decimal(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else None


def day(value: object) -> date | None:
    """The day of a text like 2026-03-31; None for anything else, and for a day that does not exist."""
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        return None
    try:
        return parse_date(value)
    except ValueError:
        return None


def moment(value: object) -> datetime | None:
    """The moment of a text like 2026-03-31T12:00:00Z, naive where it names no zone; None for anything else."""
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        return None
    try:
        return parse_datetime(value)
    except ValueError:
        return None
