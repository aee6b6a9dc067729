"""Writes that are sent twice and done once. Of the request a hash is kept, of the answer its status and where it lies.

A key is claimed by an insert of its own, before the write: of fifty at once one gets it. A write that is refused gives
the key back. One that neither ended nor was refused keeps it, for nobody knows what became of it: it is never done
twice.
"""

from __future__ import annotations

import re
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments.models import IdempotencyKey, User
from deployments.services.errors import ConflictError, InvalidError

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
# The same said twice without a key, or in a form without a nonce, is one thing when it follows so soon.
SOON = timedelta(minutes=1)
# Longer than any write takes: what has no answer by then never gets one.
UNDER_WAY = timedelta(minutes=2)
AT_ONCE = 5000
KEY = re.compile(r"[\x21-\x7e]{1,200}")


class InFlightError(ConflictError):
    """The same request is being answered just now."""

    code = "in_flight"
    wait = 1


class UnknownOutcomeError(ConflictError):
    """The first request with this key broke off: it may be done, or not."""

    code = "outcome_unknown"


class ReusedError(InvalidError):
    """The key was sent with another request."""

    code = "idempotency_key_reused"


def claim(
    *, user: User, key: str, route: str, request_hash: str, kept: timedelta = KEPT
) -> tuple[IdempotencyKey, bool]:
    """The row of this key, and whether the caller is the one who does the write. Raises what the first one is told.

    Not in a transaction of the write: the claim must be seen by others at once. It is forgotten after `kept`.
    """
    if not KEY.fullmatch(key):
        raise InvalidError(f"{HEADER} takes 1 to 200 visible ASCII characters.", field=HEADER, code="idempotency_key")
    rows = IdempotencyKey.objects.filter(user=user, key=key, route=route)
    rows.filter(created_at__lt=timezone.now() - kept).delete()
    try:
        with transaction.atomic():
            made = IdempotencyKey.objects.create(user=user, key=key, route=route, request_hash=request_hash)
        return made, True
    except IntegrityError:
        found = rows.first()
    if found is None:
        # Given back between the two: its write was refused.
        raise InFlightError(f"A request with this {HEADER} was just answered. Send it again.")
    if found.request_hash != request_hash:
        raise ReusedError(f"This {HEADER} was sent with another request.", field=HEADER)
    if found.status is None and timezone.now() - found.created_at > UNDER_WAY:
        raise UnknownOutcomeError("The first request with this key broke off. Look whether it was done; use a new key.")
    if found.status is None:
        raise InFlightError(f"A request with this {HEADER} is being answered just now.")
    return found, False


def settle(row: IdempotencyKey, *, status: int, location: str) -> None:
    """Keep what the write was answered with; `location` is empty where no GET answers the same."""
    IdempotencyKey.objects.filter(pk=row.pk).update(status=status, location=location)


def give_back(row: IdempotencyKey) -> None:
    """Let the key be used again: its write was refused and changed nothing."""
    IdempotencyKey.objects.filter(pk=row.pk, status=None).delete()


def forget_old() -> int:
    """Remove keys older than a day; the sweep calls this. Returns how many."""
    old = IdempotencyKey.objects.filter(created_at__lt=timezone.now() - KEPT).order_by("created_at")
    removed, _ = IdempotencyKey.objects.filter(pk__in=old.values("pk")[:AT_ONCE]).delete()
    return removed
