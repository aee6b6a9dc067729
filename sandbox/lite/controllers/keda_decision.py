"""What KEDA itself does to the size of a target: from and to zero or idle. All else is the autoscaler's. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sandbox.client import Obj
from sandbox.lite.controllers.keda_objects import FORCED, PAUSED_IN, PAUSED_OUT, says
from sandbox.lite.controllers.meta import parse_stamp

COOLDOWN = 300  # seconds
READY_REASON = "ScaledObjectReady"
READY_TEXT = "ScaledObject is defined correctly and is ready for scaling"
_FORCED_TEXT = "Scaling is performed because activation is being forced by annotation"
_ACTIVE_TEXT = "Scaling is performed because triggers are active"
_IDLE = ("False", "ScalerNotActive", "Scaling is not performed because triggers are not active")
_COOLING = ("False", "ScalerCooldown", "Scaler cooling down because triggers are not active")

Said = tuple[str, str, str]  # status, reason, message


@dataclass(frozen=True)
class Look:
    """What one poll of the triggers found: `failing` when any could not be read."""

    replicas: int
    active: bool
    failing: bool = False


@dataclass(frozen=True)
class Step:
    """What to do and to say. `resize` is the size to set; `kind` names the change, as events do."""

    active: Said
    ready: Said = ("True", READY_REASON, READY_TEXT)
    resize: int | None = None
    kind: str = ""  # Activated, Deactivated or, silently, Minimum
    touched: bool = False  # a trigger was active now


def decide(scaled: Obj, look: Look, now: datetime, speed: float = 1.0) -> Step:
    """Return the step of one poll; `speed` is how many of the cooldown's seconds pass in one."""
    if look.active or says(scaled, FORCED):
        return _when_active(scaled, look)
    spec = scaled["spec"]
    least, idle = spec.get("minReplicaCount") or 0, spec.get("idleReplicaCount")
    fallback = spec.get("fallback")
    if look.failing and fallback and fallback.get("replicas"):
        return Step(_IDLE)  # going to zero now would keep the autoscaler from falling back
    if look.failing and not fallback:
        wrong = ("False", "TriggerError", "Triggers defined in ScaledObject are not working correctly")
        return Step(_IDLE, ready=wrong)
    if (idle is not None and look.replicas > idle) or (look.replicas > 0 and least == 0):
        return _when_idle(scaled, now, speed)
    if idle is None and look.replicas < least:
        return Step(_IDLE, resize=least, kind="Minimum")
    return Step(_IDLE)


def _when_active(scaled: Obj, look: Look) -> Step:
    spec = scaled["spec"]
    least, idle = spec.get("minReplicaCount") or 0, spec.get("idleReplicaCount")
    active = ("True", "ScalerActive", _FORCED_TEXT if says(scaled, FORCED) else _ACTIVE_TEXT)
    if look.replicas == 0 or (idle is not None and look.replicas < least):
        if says(scaled, PAUSED_OUT):
            return Step(active)
        return Step(active, resize=max(least, 1), kind="Activated", touched=True)
    if look.failing:
        partly = ("Unknown", "PartialTriggerError", "Some triggers defined in ScaledObject are not working correctly")
        return Step(active, ready=partly)
    return Step(active, touched=True)


def _when_idle(scaled: Obj, now: datetime, speed: float) -> Step:
    if says(scaled, PAUSED_IN):
        return Step(_IDLE)
    spec, last = scaled["spec"], (scaled.get("status") or {}).get("lastActiveTime")
    if last:
        since, cooldown = last, spec.get("cooldownPeriod", COOLDOWN)
    else:
        since, cooldown = scaled["metadata"]["creationTimestamp"], spec.get("initialCooldownPeriod", 0)
    if (now - parse_stamp(since)).total_seconds() * speed <= cooldown:
        return Step(_COOLING)
    idle = spec.get("idleReplicaCount")
    size = idle if idle is not None else spec.get("minReplicaCount") or 0
    return Step(_IDLE, resize=size, kind="Deactivated")
