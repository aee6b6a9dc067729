"""What an admin grants of a request for quota, read from the fields of its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

from django.utils import timezone

from deployments.models import Flavor, QuotaRequest
from deployments.services.errors import InvalidError
from deployments.services.grants import KEPT, Kept
from deployments.services.quota_requests import beyond_of, not_meant
from portal.lib import plain


class DecisionError(InvalidError):
    """Fields of the card that cannot be meant, each with what is wrong; `field` and `message` are of the first."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        field = next(iter(errors))
        super().__init__(errors[field], field=field, pointer=f"/{field}")
        self.errors = dict(errors)


@dataclass(frozen=True)
class QuotaDecision:
    """What differs from what was asked for; None, or KEPT of a date: as it was asked for.

    A date of None is one that was emptied: begins at once, ends never.
    """

    flavor: Flavor | None = None
    gpus: int | None = None
    valid_from: datetime | Kept | None = KEPT
    valid_until: datetime | Kept | None = KEPT
    # True: it is meant that this grants more than was asked for.
    beyond: bool = False

    @classmethod
    def read(cls, data: Mapping[str, str], asked: QuotaRequest) -> QuotaDecision:
        """The fields of the card; DecisionError names those that cannot be meant. An empty number changes nothing."""
        readers: dict[str, Callable[[], Any]] = {
            "gpus": lambda: _gpus(data.get("gpus", "")),
            "flavor": lambda: _flavor(data.get("flavor", ""), asked),
            "valid_from": lambda: _day("valid_from", data.get("valid_from"), asked.valid_from, time.min),
            "valid_until": lambda: _day("valid_until", data.get("valid_until"), asked.valid_until, time(23, 59, 59)),
        }
        found, errors = {}, {}
        for name, read in readers.items():
            try:
                found[name] = read()
            except InvalidError as error:
                errors[name] = error.message
        if not data.get("comment", "").strip():
            errors["comment"] = "Say why: the lead reads it."
        found["beyond"] = data.get("beyond") == "on"
        if not found["beyond"] and (more := _beyond(asked, found)):
            errors["beyond"] = not_meant(more)
        if errors:
            raise DecisionError(errors)
        return cls(**found)


def _beyond(asked: QuotaRequest, found: Mapping[str, Any]) -> list[str]:
    """What the fields that could be read grant beyond the request."""
    until = found.get("valid_until", KEPT)
    return beyond_of(
        asked,
        flavor=found.get("flavor") or asked.flavor,
        gpus=found.get("gpus") or asked.gpus,
        valid_until=asked.valid_until if until is KEPT else until,
    )


def _flavor(slug: str, asked: QuotaRequest) -> Flavor | None:
    if not slug or slug == asked.flavor.slug:
        return None
    found = Flavor.objects.filter(active=True, slug=slug).first() if "\x00" not in slug else None
    if found is None:
        raise InvalidError("This GPU is not offered.", field="flavor", pointer="/flavor")
    return found


def _gpus(text: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    found = plain.whole(text, digits=5)
    if found is None:
        raise InvalidError("How many GPUs? A whole number from 1.", field="gpus", pointer="/gpus")
    return found


def _day(field: str, typed: str | None, asked: datetime | None, at: time) -> datetime | Kept | None:
    """The moment of that day; KEPT for the day that was asked for, so that it stays as it is to the second."""
    if typed is None:
        return KEPT
    text = typed.strip()
    if not text:
        return None
    day = plain.day(text)
    if day is None:
        raise InvalidError("There is no such day.", field=field, pointer=f"/{field}")
    if asked is not None and timezone.localtime(asked).date() == day:
        return KEPT
    return timezone.make_aware(datetime.combine(day, at))
