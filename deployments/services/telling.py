"""How what happened becomes known: lines of the audit, notices of those who listen to it, and words to open pages.

Listeners run in the transaction of the event: what they write stands or falls with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from django.db import connection

from deployments.models import Event
from deployments.services.inserting import insert

CHANNEL = "slipway"
# The name under which changes of who may see what are told.
PEOPLE = "people"

Listener = Callable[[Sequence[Event]], None]

_listeners: list[Listener] = []


@dataclass
class _Batch:
    """What is told together: lines not stored yet, and what pages are to fetch again."""

    lines: list[Event] = field(default_factory=list)
    payloads: set[str] = field(default_factory=set)


_batch: ContextVar[_Batch | None] = ContextVar("slipway_telling", default=None)


def listen(listener: Listener) -> Listener:
    """Have a function told of every event from now on."""
    _listeners.append(listener)
    return listener


@contextmanager
def together() -> Iterator[None]:
    """Store and tell at the end, at once, what is told inside: three statements instead of three for each line.

    For a service in its transaction. Lines have no key before the end; an error leaves nothing told.
    """
    if _batch.get() is not None:
        yield
        return
    batch = _Batch()
    token = _batch.set(batch)
    try:
        yield
    finally:
        _batch.reset(token)
    tell(batch.lines, batch.payloads)


def tell(lines: Iterable[Event], payloads: Iterable[str] = ()) -> None:
    """Store lines of the audit, tell all listeners of them, and `notify` pages of their deployments beside `payloads`.

    What happened to a deployment is on its page, also where its state stays the same.
    """
    lines = list(lines)
    pages = {*payloads, *(f"deployment:{line.deployment_id}" for line in lines if line.deployment_id)}
    if (batch := _batch.get()) is not None:
        batch.lines += lines
        batch.payloads |= pages
        return
    if lines:
        insert(lines)
        for listener in _listeners:
            listener(lines)
    notify(pages)


def notify(payloads: Iterable[str]) -> None:
    """Tell open pages, when the transaction commits, what to fetch again: one statement for the whole batch."""
    unique = sorted(set(payloads))
    if unique:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload", [CHANNEL, unique])
