"""The status of ScaledObjects: written by three loops, so each change is made to the newest one, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

from sandbox.client import ApiError, Client, Obj
from sandbox.lite.controllers.keda_fallback import with_condition
from sandbox.lite.controllers.meta import Key, condition
from sandbox.lite.controllers.resources import Resource
from sandbox.lite.controllers.runtime import Informer

SCALED_OBJECTS = Resource("keda.sh/v1alpha1", "scaledobjects", "ScaledObject")
_FIRST = [
    {"type": "Ready", "status": "Unknown"},
    {"type": "Active", "status": "Unknown"},
    {"type": "Fallback", "status": "Unknown"},
    {"type": "Paused", "status": "False"},
]

Said = tuple[str, str, str]  # status, reason, message


class Statuses:
    """Reads and changes statuses through one informer."""

    def __init__(self, client: Client, scaled_objects: Informer) -> None:
        self._client = client
        self._scaled_objects = scaled_objects
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def change(self, key: Key, work: Callable[[Obj], Obj]) -> Obj:
        """Give the status to `work` and store the one it returns, if it differs; returns the status stored."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            scaled = self._scaled_objects.get(*key)
            if scaled is None:
                return {}
            before = scaled.get("status") or {}
            after = work(dict(before))
            change = {name: value for name, value in after.items() if before.get(name) != value}
            change |= {name: None for name in before if name not in after}
            if not change:
                return before
            try:
                fresh = await self._client.patch_status(SCALED_OBJECTS.of(scaled), {"status": change})
            except ApiError as error:
                if error.status != 404:
                    raise
                return before
            self._scaled_objects.remember(fresh)
            return after

    async def say(self, key: Key, said: dict[str, Said], **more: object) -> Obj:
        """Set conditions and, with `more`, other fields of the status; None takes a field away."""

        def work(status: Obj) -> Obj:
            conditions = begun(status)
            for kind, words in said.items():
                conditions = with_condition(conditions, kind, words)
            merged = {**status, **more, "conditions": conditions}
            return {name: value for name, value in merged.items() if value is not None}

        return await self.change(key, work)


def begun(status: Obj) -> list[Obj]:
    """Return the conditions, with those every ScaledObject begins with."""
    conditions: list[Obj] = list(status.get("conditions") or [])
    if all(condition(conditions, item["type"]) for item in _FIRST):
        return conditions
    return [dict(item) for item in _FIRST]
