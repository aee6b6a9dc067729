"""KEDA's controller of ScaledObjects: keeps an autoscaler for each, and takes targets from and to zero itself.

Three loops share a ScaledObject: this reconcile, the poll of its triggers, and the autoscaler that asks for their
values (keda_scalers). What a poll does: keda_decision. What the autoscaler looks like: keda_objects.
"""

from __future__ import annotations

import contextlib

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers import keda_objects as objects
from sandbox.lite.controllers.hpa import AUTOSCALERS
from sandbox.lite.controllers.keda_fallback import NONE
from sandbox.lite.controllers.keda_poll import Poll
from sandbox.lite.controllers.keda_scalers import MANAGER, Scalers
from sandbox.lite.controllers.keda_status import SCALED_OBJECTS, Statuses, begun
from sandbox.lite.controllers.keda_triggers import PrometheusTrigger, TriggerError, metric_specs, problem, types
from sandbox.lite.controllers.meta import Key, condition, controller_ref, deleting, key_of, labels_of
from sandbox.lite.controllers.resources import Resource
from sandbox.lite.controllers.runtime import Manager, TryAgain
from sandbox.lite.controllers.scaling import Scaling
from sandbox.lite.controllers.scaling_prometheus import Prometheus
from sandbox.lite.controllers.scaling_targets import Targets, said

SOURCE, FINALIZER = "keda-operator", "finalizer.keda.sh"
REST = "ScaledObject is paused"
READY = "ScaledObject is defined correctly and is ready for scaling"
BAD_TARGET = "ScaledObject doesn't have correct scaleTargetRef specification"
_RESTS = ("True", "ScaledObjectPaused", REST)
_WATCHED = ("generation", "annotations", "labels", "finalizers", "deletionTimestamp")


class CheckFailed(Exception):
    """A ScaledObject cannot be acted on; the text is KEDA's."""


class ScaledObjectController:
    """Reconciles ScaledObjects; `scalers` answers the external metrics API."""

    def __init__(self, manager: Manager, scaling: Scaling, prometheus: Prometheus) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._scaled_objects = manager.informer(SCALED_OBJECTS)
        self._autoscalers = manager.informer(AUTOSCALERS)
        self._statuses = Statuses(manager.client, self._scaled_objects)
        self._targets = Targets(manager.client, MANAGER)
        self.scalers = Scalers(manager, prometheus, self._statuses, self._targets)
        self._poll = Poll(manager, scaling, self._statuses, self.scalers, self._targets)
        self._loop = manager.controller("scaledobject", self.reconcile)
        self._scaled_objects.on_change(self._changed)
        self._autoscalers.on_change(self._autoscaler_changed)

    def _changed(self, kind: str, scaled: Obj, old: Obj | None) -> None:
        before = {} if old is None else old["metadata"]
        if kind == "DELETED" or any(scaled["metadata"].get(name) != before.get(name) for name in _WATCHED):
            self._loop.queue.add(key_of(scaled))

    def _autoscaler_changed(self, kind: str, hpa: Obj, old: Obj | None) -> None:
        owner = controller_ref(hpa)
        if owner is None or owner["kind"] != "ScaledObject":
            return
        if kind == "DELETED" or old is None or old["spec"] != hpa["spec"] or labels_of(old) != labels_of(hpa):
            self._loop.queue.add((hpa["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> float | None:
        """Make the autoscaler of one ScaledObject agree with it, and say whether all is well."""
        scaled = self._scaled_objects.get(*key)
        if scaled is None:
            self._poll.stop(key)
            return None
        if deleting(scaled):
            await self._let_go(scaled)
            return None
        if FINALIZER not in (scaled["metadata"].get("finalizers") or []):
            finalizers = [*(scaled["metadata"].get("finalizers") or []), FINALIZER]
            scaled = await self._mark(scaled, {"finalizers": finalizers})
        ready = condition(begun(scaled.get("status") or {}), "Ready") or {}
        try:
            message = await self._agree(scaled)
        except CheckFailed as error:
            text = str(error)
            await self._statuses.say(
                key,
                {
                    "Ready": ("False", "ScaledObjectCheckFailed", text),
                    "Active": ("Unknown", "UnknownState", "ScaledObject check failed"),
                    **({} if scaled["spec"].get("fallback") else {"Fallback": NONE}),
                },
            )
            await self._say(scaled, "Warning", "ScaledObjectCheckFailed", text)
            raise TryAgain(text) from error
        if ready.get("status") != "True":
            await self._say(scaled, "Normal", "ScaledObjectReady", "ScaledObject is ready for scaling")
        told = {"Ready": ("True", "ScaledObjectReady", message)}
        await self._statuses.say(key, told if scaled["spec"].get("fallback") else {**told, "Fallback": NONE})
        return None

    async def _agree(self, scaled: Obj) -> str:
        """Do what the ScaledObject asks for; returns what Ready says. CheckFailed when it cannot be done."""
        key, spec = key_of(scaled), scaled["spec"]
        rested = condition((scaled.get("status") or {}).get("conditions"), "Paused") or {}
        if objects.paused(scaled):
            await self._rest(scaled, new=rested.get("status") != "True")
            return REST
        if objects.says(scaled, objects.PAUSED_IN) or objects.says(scaled, objects.PAUSED_OUT):
            await self._statuses.say(key, {"Paused": _RESTS})
            if rested.get("status") != "True":
                await self._say(scaled, "Normal", "ScaledObjectPaused", REST)
        elif rested.get("status") == "True":
            text = "pause annotation removed for ScaledObject"
            unpaused = ("False", "ScaledObjectUnpaused", text)
            await self._statuses.say(key, {"Paused": unpaused}, pausedReplicaCount=None)
            await self._say(scaled, "Normal", "ScaledObjectUnpaused", text)
        if labels_of(scaled).get(objects.OWNER_LABEL) != scaled["metadata"]["name"]:
            scaled = await self._mark(scaled, {"labels": {objects.OWNER_LABEL: scaled["metadata"]["name"]}})
        resource = await self._target(scaled)
        wrong = objects.bounds_problem(scaled)
        if wrong:
            raise CheckFailed(f"ScaledObject doesn't have correct Idle/Min/Max Replica Counts specification: {wrong}")
        wrong = problem(spec["triggers"])
        if wrong:
            raise CheckFailed(f"ScaledObject doesn't have correct triggers specification: {wrong}")
        kinds, access = types(spec["triggers"])
        await self._statuses.say(key, {}, triggersTypes=kinds, authenticationsTypes=access)
        try:
            made = await self._autoscale(scaled, resource)
        except (TriggerError, ApiError) as error:
            why = said(error) if isinstance(error, ApiError) else str(error)
            raise CheckFailed(f"failed to ensure HPA is correctly created for ScaledObject: {why}") from error
        await self._poll.start(scaled, again=made)
        return READY

    # The target ---------------------------------------------------------------------------------------------

    async def _target(self, scaled: Obj) -> Resource:
        """Find what is scaled, and keep in the status what it is and how large it was before."""
        version, kind, name = objects.target_of(scaled)
        resource = await self._targets.find(version, kind)
        if resource is None:
            why = f'no matches for kind "{kind}" in version "{version}"'
            await self._say(scaled, "Warning", "ScaledObjectUpdateFailed", why)
            raise CheckFailed(f"{BAD_TARGET}: {why}")
        try:
            scale = await self._targets.scale(resource, scaled["metadata"]["namespace"], name)
        except ApiError as error:
            there = await self._exists(resource, scaled["metadata"]["namespace"], name)
            text = "Target resource doesn't expose /scale subresource" if there else "Target resource doesn't exist"
            await self._say(scaled, "Warning", "ScaledObjectCheckFailed", text)
            raise CheckFailed(f"{BAD_TARGET}: {said(error)}") from error
        group, _, number = version.rpartition("/")
        status = scaled.get("status") or {}
        await self._statuses.say(
            key_of(scaled),
            {},
            scaleTargetKind=objects.gvk(version, kind),
            scaleTargetGVKR={"group": group, "version": number, "kind": kind, "resource": resource.plural},
            originalReplicaCount=status.get("originalReplicaCount", int(scale["spec"].get("replicas") or 0)),
        )
        return resource

    async def _exists(self, resource: Resource, namespace: str, name: str) -> bool:
        try:
            await self._client.get(resource.path(namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    # The autoscaler -----------------------------------------------------------------------------------------

    async def _autoscale(self, scaled: Obj, resource: Resource) -> bool:
        """Create or correct the autoscaler; tells whether it is new."""
        if objects.modifiers(scaled):
            raise TriggerError("scalingModifiers are not evaluated in this cluster")
        try:
            triggers = await self.scalers.build(scaled)
        except TriggerError as error:
            await self._say(scaled, "Warning", "KEDAScalerFailed", str(error))
            raise
        wanted = objects.hpa(scaled, resource, metric_specs(triggers, scaled["metadata"]["name"]))
        namespace, name = key_of(wanted)
        before = (scaled.get("status") or {}).get("hpaName")
        if before and before != name:
            await self._remove(namespace, before)
        there = self._autoscalers.get(namespace, name)
        if there is None:
            self._autoscalers.remember(await self._client.create(AUTOSCALERS.path(namespace), wanted))
        elif not _same(there, wanted):
            body = {**there, "spec": wanted["spec"], "metadata": {**there["metadata"], **wanted["metadata"]}}
            self._autoscalers.remember(await self._client.update(AUTOSCALERS.of(there), body))
        external = [item.metric for item in triggers if isinstance(item, PrometheusTrigger)]
        measured = [
            item.resource for item in triggers if not isinstance(item, PrometheusTrigger) and not item.container
        ]
        health = (scaled.get("status") or {}).get("health") or {}
        await self._statuses.say(
            key_of(scaled),
            {},
            hpaName=name,
            externalMetricNames=external or None,
            resourceMetricNames=measured or None,
            health={metric: entry for metric, entry in health.items() if metric in external} or None,
        )
        return there is None

    async def _remove(self, namespace: str, name: str) -> None:
        try:
            await self._client.delete(AUTOSCALERS.path(namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise

    # Rest and end -------------------------------------------------------------------------------------------

    async def _rest(self, scaled: Obj, *, new: bool) -> None:
        """Stop polling, take the autoscaler away, and set the size to rest at, if one is given."""
        key = key_of(scaled)
        if new:
            await self._statuses.say(key, {"Paused": _RESTS})
            await self._say(scaled, "Normal", "ScaledObjectPaused", REST)
        await self._stop(scaled)
        await self._remove(key[0], (scaled.get("status") or {}).get("hpaName") or objects.hpa_name(scaled))
        try:
            size = objects.paused_replicas(scaled)
        except ValueError as error:
            why = f"failed to parse paused replica count: {error}"
            raise CheckFailed(f"failed to scale target to paused replica count: {why}") from error
        if size is not None:
            await self._resize(scaled, size)
        await self._statuses.say(key, {"Paused": _RESTS}, pausedReplicaCount=size)

    async def _resize(self, scaled: Obj, size: int) -> None:
        version, kind, name = objects.target_of(scaled)
        resource = await self._targets.find(version, kind)
        try:
            if resource is None:
                raise CheckFailed(f'{BAD_TARGET}: no matches for kind "{kind}" in version "{version}"')
            scale = await self._targets.scale(resource, scaled["metadata"]["namespace"], name)
            if scale["spec"].get("replicas") != size:
                await self._targets.resize(resource, scale, size)
        except ApiError as error:
            why = f"failed to get scale for target resource: {said(error)}"
            raise CheckFailed(f"failed to scale target to paused replica count: {why}") from error

    async def _stop(self, scaled: Obj) -> None:
        if self._poll.stop(key_of(scaled)):
            await self._say(scaled, "Normal", "KEDAScalersStopped", "Stopped scalers watch")

    async def _let_go(self, scaled: Obj) -> None:
        finalizers = scaled["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            return
        await self._stop(scaled)
        original = (scaled.get("status") or {}).get("originalReplicaCount")
        if (scaled["spec"].get("advanced") or {}).get("restoreToOriginalReplicaCount") and original is not None:
            with contextlib.suppress(CheckFailed):  # the target is gone, and its size with it
                await self._resize(scaled, int(original))
        await self._mark(scaled, {"finalizers": [name for name in finalizers if name != FINALIZER]})
        await self._say(scaled, "Warning", "ScaledObjectDeleted", "ScaledObject was deleted")

    async def _mark(self, scaled: Obj, meta: Obj) -> Obj:
        """Change the metadata of a ScaledObject that has not changed since it was seen."""
        version = {"resourceVersion": scaled["metadata"]["resourceVersion"]}
        fresh = await self._client.patch(SCALED_OBJECTS.of(scaled), {"metadata": {**version, **meta}})
        if not deleting(fresh):
            self._scaled_objects.remember(fresh)
        return fresh

    async def _say(self, scaled: Obj, kind: str, reason: str, message: str) -> None:
        await self._recorder.record(scaled, kind, reason, message, SOURCE)


def _same(there: Obj, wanted: Obj) -> bool:
    """Tell whether an autoscaler is the one wanted; what others labelled or noted on it stays."""
    for name in ("labels", "annotations"):
        has = there["metadata"].get(name) or {}
        if any(has.get(key) != value for key, value in wanted["metadata"][name].items()):
            return False
    return bool(there["spec"] == wanted["spec"])
