"""One transaction per wish, tried again where PostgreSQL says that a retry helps."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import DatabaseError, connection, transaction

P = ParamSpec("P")
T = TypeVar("T")

SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
# The ledger's trigger refused what a look under the account's lock had allowed: a grant ended between the two.
OVER_LIMIT = "SQ001"
AGAIN = frozenset({SERIALIZATION_FAILURE, DEADLOCK_DETECTED, OVER_LIMIT})
TRIES = 8


def sqlstate(error: DatabaseError) -> str:
    """PostgreSQL's five-character code of an error; empty when it came from elsewhere."""
    return getattr(error.__cause__, "sqlstate", None) or ""


def in_transaction(function: Callable[P, T]) -> Callable[P, T]:
    """Run a service in a transaction; what fails because of others at work is tried again from the start.

    Inside an open transaction it is only a savepoint: there the outermost service retries.
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        if connection.in_atomic_block:
            with transaction.atomic():
                return function(*args, **kwargs)
        for attempt in range(1, TRIES + 1):
            begun = time.monotonic()
            try:
                with transaction.atomic():
                    return function(*args, **kwargs)
            except DatabaseError as error:
                if attempt == TRIES or sqlstate(error) not in AGAIN:
                    raise
            # The other transaction is still at work, on a busy machine about as long as this one was: both retrying at
            # once would only collide again.
            took = time.monotonic() - begun
            time.sleep(random.uniform(0.001, 0.01) * 2**attempt + random.uniform(0, took))  # noqa: S311 - no secret
        raise AssertionError("unreachable")

    return wrapped
