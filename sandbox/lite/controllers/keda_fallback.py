"""Fallback of a ScaledObject: counting failures, and the value that stands in for a metric. Pure; KEDA 2.20."""

from __future__ import annotations

from sandbox.client import Obj
from sandbox.lite.controllers.hpa_status import milli_of
from sandbox.lite.controllers.keda_triggers import PrometheusTrigger
from sandbox.lite.controllers.meta import condition

NONE = ("False", "NoFallbackFound", "No fallbacks are active on this scaled object")
ACTIVE = ("True", "FallbackExists", "At least one trigger is falling back on this scaled object")
STATIC = "static"


def counted(health: Obj, metric: str, *, failed: bool) -> Obj:
    """Return the status' health after one more reading of a metric."""
    before = int((health.get(metric) or {}).get("numberOfFailures") or 0)
    entry = (
        {"numberOfFailures": before + 1, "status": "Failing"} if failed else {"numberOfFailures": 0, "status": "Happy"}
    )
    return {**health, metric: entry}


def reached(scaled: Obj, health: Obj, metric: str | None = None) -> bool:
    """Tell whether a metric, or any, has failed more often than the threshold allows."""
    limit = int(scaled["spec"]["fallback"]["failureThreshold"])
    entries = health.values() if metric is None else [health.get(metric) or {}]
    return any(item.get("status") == "Failing" and item["numberOfFailures"] > limit for item in entries)


def value(scaled: Obj, trigger: PrometheusTrigger, current: int, ready: int) -> int | None:
    """Return the milli value that makes the autoscaler set the fallback's size; None when none can.

    `current` is the size of the target, `ready` its pods that serve: a Value target is multiplied by them.
    """
    fallback = scaled["spec"]["fallback"]
    wanted, behavior = int(fallback["replicas"]), fallback.get("behavior") or STATIC
    match behavior:
        case "currentReplicas":
            wanted = current
        case "currentReplicasIfHigher":
            wanted = max(current, wanted)
        case "currentReplicasIfLower":
            wanted = min(current, wanted)
        case "scalingModifiers":
            return None
    target = trigger.spec("")["external"]["target"]
    if trigger.metric_type == "Value":
        return int(milli_of(target["value"]) * wanted / ready) if ready else None
    return milli_of(target["averageValue"]) * wanted


def with_condition(conditions: list[Obj] | None, kind: str, said: tuple[str, str, str]) -> list[Obj]:
    """Return conditions with one of them said anew. KEDA's carry no time."""
    fresh = dict(zip(("status", "reason", "message"), said, strict=True))
    items = [dict(item) for item in conditions or []]
    known = condition(items, kind)
    if known is None:
        return [*items, {"type": kind, **fresh}]
    known.update(fresh)
    return items
