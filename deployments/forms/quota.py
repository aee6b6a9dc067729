"""What people type when they ask for quota, grant it or change a grant: text becomes values, or words at its field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, time
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from deployments.models import Flavor, Team
from deployments.services.errors import DomainError
from portal.lib import plain

LAST = time(23, 59, 59)
LONGEST = 600


class QuotaForm:
    """The fields of one such form. `errors` says what is wrong, by field; `text` is what was typed, kept as it was."""

    def __init__(self, data: Mapping[str, str], names: tuple[str, ...]) -> None:
        self.text = {name: str(data.get(name, "")).strip()[:LONGEST] for name in names}
        self.errors: dict[str, str] = {}

    def team(self, rows: QuerySet[Team]) -> Team | None:
        """The team that was chosen, one of `rows`."""
        row: Team | None = self._called("team", rows, "Choose a team.")
        return row

    def flavor(self) -> Flavor | None:
        """The flavor that was chosen, one that is offered."""
        row: Flavor | None = self._called("flavor", Flavor.objects.filter(active=True), "Choose a GPU.")
        return row

    def gpus(self, *, least: int = 1) -> int | None:
        """How many GPUs."""
        text = self.text["gpus"]
        found = plain.whole(text, digits=5)
        if found is None or found < least:
            self.errors["gpus"] = f"How many GPUs? A whole number from {least}."
            return None
        return found

    def day(self, name: str, at: time = LAST) -> datetime | None:
        """The moment `at` of the day in a field; None where it is empty, or where there is no such day."""
        text = self.text[name]
        if not text:
            return None
        found = day_or_none(text, at)
        if found is None:
            self.errors[name] = "There is no such day."
        return found

    def also(self, check: Callable[[], object], called: Mapping[str, str] | None = None) -> None:
        """Note what a check of the services finds wrong, where nothing is said of that field yet.

        `called` are fields that this form calls otherwise than they do.
        """
        try:
            check()
        except DomainError as error:
            self.add(error, called)

    def add(self, error: DomainError, called: Mapping[str, str] | None = None) -> None:
        """What a service refused, at its fields; `form` for what is about none of them."""
        names = {**{name: name for name in self.text}, **(called or {})}
        for field, words in error.by_field(names).items():
            self.errors.setdefault(names.get(field, field), words)

    def _called(self, name: str, rows: QuerySet[Any], words: str) -> Any:
        slug = self.text[name]
        # PostgreSQL takes no NUL, not even to compare with.
        row = rows.filter(slug=slug).first() if "\0" not in slug else None
        if row is None:
            self.errors[name] = words
        return row


def day_or_none(text: str, at: time = LAST) -> datetime | None:
    """That moment of the day; None for no day or one that does not exist."""
    day = plain.day(text.strip())
    return timezone.make_aware(datetime.combine(day, at)) if day else None
