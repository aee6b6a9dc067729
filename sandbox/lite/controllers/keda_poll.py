"""KEDA's scale loop: polls the triggers of each ScaledObject, and takes its target from and to zero."""

from __future__ import annotations

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers import keda_objects as objects
from sandbox.lite.controllers.hpa import AUTOSCALERS
from sandbox.lite.controllers.keda_decision import Look, Step, decide
from sandbox.lite.controllers.keda_scalers import Reading, Scalers
from sandbox.lite.controllers.keda_status import SCALED_OBJECTS, Said, Statuses
from sandbox.lite.controllers.keda_triggers import PrometheusTrigger, TriggerError
from sandbox.lite.controllers.meta import Key, condition, deleting, key_of, now, stamp
from sandbox.lite.controllers.runtime import Manager
from sandbox.lite.controllers.scaling import Scaling
from sandbox.lite.controllers.scaling_targets import Targets, said

SOURCE = "keda-operator"
POLLING = 30  # seconds


class Poll:
    """Runs for every ScaledObject that was started, at its own interval."""

    def __init__(
        self, manager: Manager, scaling: Scaling, statuses: Statuses, scalers: Scalers, targets: Targets
    ) -> None:
        self._recorder = manager.recorder
        self._scaling = scaling
        self._statuses = statuses
        self._scalers = scalers
        self._targets = targets
        self._scaled_objects = manager.informer(SCALED_OBJECTS)
        self._autoscalers = manager.informer(AUTOSCALERS)
        self._running: dict[Key, int] = {}  # the generation each was started for
        self._loop = manager.controller("scaledobject-poll", self.look)

    async def start(self, scaled: Obj, *, again: bool) -> None:
        """Poll from now on; at once when the spec is new, or `again` is asked for."""
        key, generation = key_of(scaled), int(scaled["metadata"]["generation"])
        known = self._running.get(key)
        if known == generation and not again:
            return
        self._running[key] = generation
        if known != generation:
            for trigger in scaled["spec"]["triggers"]:
                await self._say(scaled, "Normal", "KEDAScalersStarted", f"Scaler {trigger['type']} is built")
        if known is None:
            await self._say(scaled, "Normal", "KEDAScalersStarted", "Started scalers watch")
        self._loop.queue.add(key)

    def stop(self, key: Key) -> bool:
        """Poll no more; tells whether it did."""
        self._scalers.forget(key)
        return self._running.pop(key, None) is not None

    async def look(self, key: Key) -> float | None:
        """Poll once; the next time is one polling interval away."""
        scaled = self._scaled_objects.get(*key)
        if scaled is None or key not in self._running or deleting(scaled):
            return None
        await self._once(scaled)
        return self._scaling.wait(scaled["spec"].get("pollingInterval", POLLING))

    async def _once(self, scaled: Obj) -> None:
        fell_back = (condition((scaled.get("status") or {}).get("conditions"), "Fallback") or {}).get("status")
        try:
            triggers = await self._scalers.build(scaled)
        except TriggerError as error:
            await self._say(scaled, "Warning", "KEDAScalerFailed", str(error))
            return
        readings = [await self._scalers.read(scaled, item) for item in triggers if isinstance(item, PrometheusTrigger)]
        for reading in readings:
            if reading.error:
                await self._say(scaled, "Warning", "KEDAScalerFailed", reading.error)
        await self._tell_fallback(scaled, readings, before=fell_back == "True")
        failing = any(reading.error for reading in readings)
        active = [reading.metric for reading in readings if reading.active]
        # CPU and memory alone never wake anything, so nothing is put to sleep for them either.
        always = not readings and not failing
        await self._act(scaled, readings, active=bool(active) or always, failing=failing)

    async def _tell_fallback(self, scaled: Obj, readings: list[Reading], *, before: bool) -> None:
        falling = any(reading.fell_back for reading in readings)
        if falling and not before:
            text = "ScaledObject fallback is active"
            await self._say(scaled, "Normal", "ScaledObjectFallbackActivated", text)
        elif before and not falling:
            text = "ScaledObject fallback is no longer active"
            await self._say(scaled, "Normal", "ScaledObjectFallbackDeactivated", text)

    async def _act(self, scaled: Obj, readings: list[Reading], *, active: bool, failing: bool) -> None:
        key = key_of(scaled)
        version, kind, name = objects.target_of(scaled)
        resource = await self._targets.find(version, kind)
        if resource is None:
            return
        try:
            scale = await self._targets.scale(resource, key[0], name)
        except ApiError as error:
            text = f"Error getting current replicas count for ScaleTarget: {said(error)}"
            await self._statuses.say(key, {"Ready": ("False", "ErrorGettingCurrentReplicas", text)})
            return
        current = int(scale["spec"].get("replicas") or 0)
        # What was read last is newer than the look this poll began with.
        scaled = self._scaled_objects.get(*key) or scaled
        step = decide(scaled, Look(current, active, failing), now(), self._scaling.speed)
        touched = step.touched
        if step.resize is not None:
            try:
                await self._targets.resize(resource, scale, step.resize)
            except ApiError:
                touched = False
                await self._tell_change(scaled, step, current, readings, done=False)
            else:
                await self._tell_change(scaled, step, current, readings, done=True)
        told: dict[str, Said] = {"Ready": step.ready, "Active": step.active, **self._health(scaled)}
        activity = {reading.metric: {"isActive": reading.active} for reading in readings}
        last = stamp(now()) if touched else (scaled.get("status") or {}).get("lastActiveTime")
        await self._statuses.say(key, told, triggersActivity=activity or None, lastActiveTime=last)

    async def _tell_change(self, scaled: Obj, step: Step, current: int, readings: list[Reading], *, done: bool) -> None:
        if step.kind == "Minimum":
            return
        version, kind, name = objects.target_of(scaled)
        what = f"{objects.gvk(version, kind)} {scaled['metadata']['namespace']}/{name} from {current} to {step.resize}"
        if not done:
            word = "scale" if step.kind == "Activated" else "deactivate"
            reason = "Activation" if step.kind == "Activated" else "Deactivation"
            await self._say(scaled, "Warning", f"KEDAScaleTarget{reason}Failed", f"Failed to {word} {what}")
        elif step.kind == "Deactivated":
            await self._say(scaled, "Normal", "KEDAScaleTargetDeactivated", f"Deactivated {what}")
        else:
            by = ";".join(reading.metric for reading in readings if reading.active)
            forced = objects.says(scaled, objects.FORCED)
            why = "caused by forced activation annotation" if forced else f"triggered by {by}"
            await self._say(scaled, "Normal", "KEDAScaleTargetActivated", f"Scaled {what}, {why}")

    def _health(self, scaled: Obj) -> dict[str, Said]:
        """Return the HPAActive condition, as far as the autoscaler says anything."""
        hpa = self._autoscalers.get(key_of(scaled)[0], (scaled.get("status") or {}).get("hpaName", ""))
        found = condition(((hpa or {}).get("status") or {}).get("conditions"), "ScalingActive")
        if found is None:
            return {}
        if found["status"] == "True":
            return {"HPAActive": ("True", "HPAActive", "HPA is actively scaling")}
        if found["reason"] == "ScalingDisabled":
            return {"HPAActive": ("True", "ScalingDisabled", found["message"])}
        return {"HPAActive": ("False", found["reason"], f"HPA is not actively scaling: {found['message']}")}

    async def _say(self, scaled: Obj, kind: str, reason: str, message: str) -> None:
        await self._recorder.record(scaled, kind, reason, message, SOURCE)
