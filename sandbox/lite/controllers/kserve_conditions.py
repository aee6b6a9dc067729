"""KServe's living conditions (Knative's condition manager): Ready follows the conditions it depends on.

Pure. The rule that surprises people: Ready takes the reason of whichever was marked False *last*, and Ready turns
True only when no dependent is left that is not True.
"""

from __future__ import annotations

from datetime import datetime

from sandbox.client import Obj
from sandbox.lite.controllers.meta import condition, stamp

HAPPY = "Ready"
DEPENDENTS = ("PredictorReady", "IngressReady")


class Conditions:
    """The condition list of one status, changed in place and kept sorted by type."""

    def __init__(self, items: list[Obj], moment: datetime, dependents: tuple[str, ...] = DEPENDENTS) -> None:
        self.items = [dict(item) for item in items]
        self.moment = stamp(moment)
        self._dependents = dependents

    def initialize(self) -> None:
        """Give Ready and what it depends on a first, unknown value."""
        happy = condition(self.items, HAPPY)
        if happy is None:
            self._set(HAPPY, "Unknown")
            happy = condition(self.items, HAPPY)
        for kind in self._dependents:
            if condition(self.items, kind) is None:
                self._set(kind, "True" if happy and happy["status"] == "True" else "Unknown")

    def happy(self) -> bool:
        """Tell whether Ready is True."""
        return self.ready(HAPPY)

    def ready(self, kind: str) -> bool:
        """Tell whether one condition is True."""
        found = condition(self.items, kind)
        return found is not None and found["status"] == "True"

    def mark_true(self, kind: str, reason: str = "", message: str = "") -> None:
        """Set one condition True and let Ready follow."""
        self._set(kind, "True", reason, message)
        unhappy = self._unhappy()
        if unhappy is not None:
            self._set(HAPPY, unhappy["status"], unhappy.get("reason", ""), unhappy.get("message", ""))
        else:
            self._set(HAPPY, "True")

    def mark_false(self, kind: str, reason: str = "", message: str = "") -> None:
        """Set one condition False, and Ready with it when it depends on it."""
        self._set(kind, "False", reason, message)
        if kind in self._dependents:
            self._set(HAPPY, "False", reason, message)

    def inform(self, kind: str, state: str, reason: str = "") -> None:
        """Set a condition Ready does not depend on."""
        self._set(kind, state, reason)

    def mark_unknown(self, kind: str, reason: str = "", message: str = "") -> None:
        """Set one condition Unknown, alone."""
        self._set(kind, "Unknown", reason, message)

    def clear(self, kind: str) -> None:
        """Take a condition away that Ready does not depend on."""
        self.items = [item for item in self.items if item["type"] != kind]

    def get(self, kind: str) -> Obj | None:
        """Return the condition of this type, if there is one."""
        return condition(self.items, kind)

    def _unhappy(self) -> Obj | None:
        """Return the dependent that keeps Ready from being True: a False one before an Unknown, the latest first."""
        found = [condition(self.items, kind) for kind in self._dependents]
        known = [item for item in found if item is not None and item["status"] != "True"]
        known.sort(key=lambda item: str(item["lastTransitionTime"]), reverse=True)
        for state in ("False", "Unknown"):
            for item in known:
                if item["status"] == state:
                    return item
        return {"status": "Unknown"} if None in found else None

    def _set(self, kind: str, state: str, reason: str = "", message: str = "") -> None:
        fresh: Obj = {"type": kind, "status": state}
        if reason:
            fresh["reason"] = reason
        if message:
            fresh["message"] = message
        if kind != HAPPY and kind not in self._dependents:
            fresh["severity"] = "Info"
        known = condition(self.items, kind)
        if known is not None and {**known, "lastTransitionTime": ""} == {**fresh, "lastTransitionTime": ""}:
            return
        fresh["lastTransitionTime"] = self.moment
        self.items = sorted(
            [*(item for item in self.items if item["type"] != kind), fresh], key=lambda item: str(item["type"])
        )
