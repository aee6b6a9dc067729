"""Who listens to the audit. Listeners run in the transaction of the event: what they write stands or falls with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deployments.models import Event

Listener = Callable[[Sequence[Event]], None]

_listeners: list[Listener] = []


def listen(listener: Listener) -> Listener:
    """Have a function told of every event from now on."""
    _listeners.append(listener)
    return listener


def tell(events: Sequence[Event]) -> None:
    """Tell all listeners of events that were stored just now."""
    for listener in _listeners:
        listener(events)
