"""Deciding about several things at once: each on its own, by its own digest, with an answer of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployments.models import Principal, QuotaRequest, Revision
from deployments.services import approvals, quota_requests, waiting
from deployments.services.errors import (
    ConflictError,
    DomainError,
    InvalidError,
    MissingError,
    NotAllowedError,
    StaleError,
)
from deployments.services.inbox import DEPLOYMENT, QUOTA
from deployments.services.text import line_of

# At most so many with one press.
MOST = 50
OUTCOMES: tuple[tuple[type[DomainError], str], ...] = (
    (StaleError, "stale"),
    (NotAllowedError, "not_allowed"),
    (MissingError, "not_found"),
    (InvalidError, "invalid"),
    (ConflictError, "conflict"),
)
DECIDED = "decided"


@dataclass(frozen=True)
class Item:
    """One thing to decide about: a revision, which its digest names, or a request for quota."""

    kind: str
    pk: int
    digest: str = ""


@dataclass(frozen=True)
class Result:
    """What became of one item: decided, stale, not_allowed, not_found, invalid or conflict; `name` for people."""

    item: Item
    outcome: str
    name: str
    message: str = ""

    @property
    def decided(self) -> bool:
        """True where the word was taken."""
        return self.outcome == DECIDED


def decide_all(*, principal: Principal, items: Iterable[Item], approve: bool, comment: str) -> list[Result]:
    """Decide about each item in a transaction of its own, in their order; what is refused leaves the others alone.

    InvalidError where the comment cannot serve all of them: then nothing is decided.
    """
    listed = list(dict.fromkeys(items))
    if not listed:
        raise InvalidError("Choose at least one.", field="items", pointer="/items", code="required")
    if len(listed) > MOST:
        raise InvalidError(f"At most {MOST} at once.", field="items", pointer="/items")
    if not comment.strip() and (not approve or any(item.kind == QUOTA for item in listed)):
        # Before anything is decided: else half of it would be, and the rest would want another press.
        words = "Say why: everything rejected needs a comment, and so does quota."
        raise InvalidError(words, field="comment", pointer="/comment", code="required")
    line_of(comment, field="comment", longest=quota_requests.MOST_WORDS, required=False)
    return [_one(principal, item, approve, comment) for item in listed]


def _one(principal: Principal, item: Item, approve: bool, comment: str) -> Result:
    name = _name(principal, item)
    try:
        if item.kind == DEPLOYMENT:
            revision = Revision.objects.visible_to(principal).filter(pk=item.pk).first()
            if revision is None:
                raise MissingError("There is no such request.")
            approvals.decide(
                principal=principal, revision=revision, digest=item.digest, approve=approve, comment=comment
            )
            place = waiting.place_of(revision.deployment_id) if approve else None
            return Result(item, DECIDED, name, place.words if place else "")
        quota_requests.decide(principal=principal, request_id=item.pk, grant=approve, comment=comment)
    except DomainError as error:
        outcome = next((word for kind, word in OUTCOMES if isinstance(error, kind)), "refused")
        return Result(item, outcome, name, error.message)
    return Result(item, DECIDED, name)


def _name(principal: Principal, item: Item) -> str:
    """What people call the item; empty for what the principal may not know of."""
    if item.kind == DEPLOYMENT:
        row = Revision.objects.visible_to(principal).filter(pk=item.pk)
        found = row.values_list("deployment__name", "number").first()
        return f"{found[0]}, revision {found[1]}" if found else ""
    asked = QuotaRequest.objects.visible_to(principal).filter(pk=item.pk).select_related("team", "flavor").first()
    return f"{asked.gpus} × {asked.flavor.name} for {asked.team.name}" if asked else ""
