"""What an autoscaler tells: outcomes of its metrics, its conditions, its status. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from sandbox.client import Obj
from sandbox.lite.controllers.meta import condition, stamp
from sandbox.lite.quantity import decimal, parse

ABLE, ACTIVE, LIMITED = "AbleToScale", "ScalingActive", "ScalingLimited"


@dataclass(frozen=True)
class Outcome:
    """A metric that was read: the replicas it asks for, what it is called, how the status shows it."""

    replicas: int
    name: str
    status: Obj


@dataclass(frozen=True)
class Failure:
    """A metric that was not: a reason, the words of event and condition, and those of the whole look."""

    reason: str
    message: str
    error: str


@dataclass(frozen=True)
class Verdict:
    """What all metrics ask for together; `replicas` is None when nothing may be done. `error` tells what failed."""

    replicas: int | None
    name: str
    reason: str
    message: str
    error: str


def verdict(found: Sequence[Outcome | Failure], current: int) -> Verdict:
    """The largest wish counts; where a metric fails nothing is made smaller."""
    failures = [item for item in found if isinstance(item, Failure)]
    outcomes = [item for item in found if isinstance(item, Outcome)]
    error = ""
    if failures:
        count = f"{len(failures)} invalid out of {len(found)}"
        error = f"invalid metrics ({count}), first error is: {failures[0].error}"
    best = max(outcomes, key=lambda item: item.replicas, default=None)
    if best is None or (failures and best.replicas < current):
        first = failures[0]
        message = f"the HPA was unable to compute the replica count: {first.message}"
        return Verdict(None, "", first.reason, message, error)
    text = f"the HPA was able to successfully calculate a replica count from {best.name}"
    return Verdict(best.replicas, best.name, "ValidMetricFound", text, error)


class Conditions:
    """The conditions of an autoscaler under change: their time moves when their status does."""

    def __init__(self, before: Sequence[Obj] | None, moment: datetime) -> None:
        self.items: list[Obj] = [dict(item) for item in before or []]
        self._moment = moment

    def set(self, kind: str, state: bool, reason: str, message: str) -> None:
        """Say a condition anew."""
        known = condition(self.items, kind)
        if known is None:
            known = {"type": kind, "status": ""}
            self.items.append(known)
        status = "True" if state else "False"
        if known["status"] != status:
            known["lastTransitionTime"] = stamp(self._moment)
        known |= {"status": status, "reason": reason, "message": message}


def selector_text(selector: Obj | None) -> str:
    """Spell a label selector as Go prints it; events and messages carry it so."""
    if selector is None:
        return "nil"
    labels = "".join(f"{name}: {value}," for name, value in sorted((selector.get("matchLabels") or {}).items()))
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{}},}}"
    )


def milli_of(amount: Any) -> int:
    """Return a quantity in whole thousandths, rounded up."""
    return int((parse(amount) * 1000).to_integral_value(ROUND_CEILING))


def spell_milli(amount: int) -> str:
    """Spell whole thousandths as a quantity: 2500 is `2500m`, 3000 is `3`."""
    return decimal(Decimal(amount) / 1000)


def status_of(
    before: Obj, conditions: Conditions, *, current: int, desired: int, metrics: Sequence[Obj], scaled: str = ""
) -> Obj:
    """Return the status; `scaled` is the time of a change of size made now."""
    status: Obj = {"currentReplicas": current, "desiredReplicas": desired, "conditions": conditions.items}
    if metrics:
        status["currentMetrics"] = list(metrics)
    last = scaled or before.get("lastScaleTime")
    return {**status, "lastScaleTime": last} if last else status
