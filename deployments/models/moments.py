"""Moments that can be counted with, whatever a row holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.db import models

__all__ = ["LAST", "CountableDateTimeField"]

# Later ones are for good: the calendar ends in 9999, and whoever adds days or hours to its end has none left.
LAST = datetime(9000, 1, 1, tzinfo=UTC)

if TYPE_CHECKING:
    # To a type checker it is the field whose values Django's plugin knows.
    from django.db.models import DateTimeField as CountableDateTimeField
else:

    class CountableDateTimeField(models.DateTimeField):
        """A moment that people name. Where a row holds a later one, from before there was a limit, LAST is read."""

        def from_db_value(self, value: datetime | None, expression: Any, connection: Any) -> datetime | None:
            """What a row holds, at most LAST."""
            return min(value, LAST) if value is not None else None

        def deconstruct(self) -> Any:
            """In migrations it is what it is in the database."""
            name, _, args, kwargs = super().deconstruct()
            return name, "django.db.models.DateTimeField", args, kwargs
