"""Stopping several deployments at once: each on its own, with an answer of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployments.models import Deployment, Principal, Wanted
from deployments.services import lifecycle
from deployments.services.errors import ConflictError, DomainError, InvalidError, MissingError, NotAllowedError
from deployments.services.text import line_of

# At most so many with one press.
MOST = 50
MOST_WORDS = 300
STOPPING, UNCHANGED = "stopping", "unchanged"
REFUSALS: tuple[tuple[type[DomainError], str], ...] = (
    (NotAllowedError, "not_allowed"),
    (MissingError, "not_found"),
    (ConflictError, "conflict"),
)
OUTCOMES = (STOPPING, UNCHANGED, *(word for _, word in REFUSALS), "refused")


@dataclass(frozen=True)
class Result:
    """What became of one of them, one of OUTCOMES; `name` for people, empty for what they may not know of."""

    pk: int
    outcome: str
    name: str = ""
    message: str = ""


def stop_all(*, principal: Principal, pks: Iterable[int], reason: str = "") -> list[Result]:
    """Stop each in a transaction of its own, in this order; what is refused leaves the others alone.

    InvalidError where nothing, or too much, is named, or the reason cannot serve all of them: then nothing is stopped.
    """
    listed = list(dict.fromkeys(pks))
    if not listed:
        raise InvalidError("Choose at least one.", field="ids", pointer="/ids", code="required")
    if len(listed) > MOST:
        raise InvalidError(f"At most {MOST} at once.", field="ids", pointer="/ids")
    why = line_of(reason, field="reason", longest=MOST_WORDS, required=False)
    return [_one(principal, pk, why) for pk in listed]


def _one(principal: Principal, pk: int, reason: str) -> Result:
    row = Deployment.objects.alive().visible_to(principal).select_related("team").filter(pk=pk).first()
    if row is None:
        return Result(pk, "not_found", message="There is no such deployment.")
    before = row.wanted
    try:
        lifecycle.stop(principal=principal, deployment=row, reason=reason)
    except DomainError as error:
        outcome = next((word for kind, word in REFUSALS if isinstance(error, kind)), "refused")
        return Result(pk, outcome, row.name, error.message)
    if before == Wanted.STOPPED:
        return Result(pk, UNCHANGED, row.name, "It was stopped already.")
    return Result(pk, STOPPING, row.name)
