"""The values behind the triggers of ScaledObjects, for KEDA's own polls and for the external metrics API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandbox.client import ApiError, Client, Obj, resource_path
from sandbox.lite import label_selectors
from sandbox.lite.controllers import keda_fallback as fallback
from sandbox.lite.controllers.hpa_metrics import milli
from sandbox.lite.controllers.hpa_replicas import MetricError
from sandbox.lite.controllers.keda_objects import OWNER_LABEL, target_of
from sandbox.lite.controllers.keda_status import SCALED_OBJECTS, Statuses, begun
from sandbox.lite.controllers.keda_triggers import PrometheusTrigger, Trigger, TriggerError, read_triggers
from sandbox.lite.controllers.meta import Key, key_of, labels_of, pod_ready
from sandbox.lite.controllers.resources import PODS
from sandbox.lite.controllers.runtime import Manager
from sandbox.lite.controllers.scaling_prometheus import Prometheus, only_value
from sandbox.lite.controllers.scaling_targets import Targets, said

MANAGER = "keda-operator"


@dataclass(frozen=True)
class Reading:
    """One trigger's value in thousandths, or why there is none. `fell_back` when the value is the fallback's."""

    metric: str
    value: int | None
    active: bool = False
    fell_back: bool = False
    error: str = ""


class Scalers:
    """Asks Prometheus for what triggers say, and counts failures where a fallback is set."""

    def __init__(self, manager: Manager, prometheus: Prometheus, statuses: Statuses, targets: Targets) -> None:
        self._client: Client = manager.client
        self._scaled_objects = manager.informer(SCALED_OBJECTS)
        self._pods = manager.informer(PODS)
        self._prometheus = prometheus
        self._statuses = statuses
        self._targets = targets
        self._kept: dict[Key, dict[str, Reading]] = {}

    async def build(self, scaled: Obj) -> list[Trigger]:
        """Read the triggers of a ScaledObject. TriggerError when one is wrong or its authentication is away."""
        triggers = read_triggers(scaled["spec"]["triggers"])
        for trigger in scaled["spec"]["triggers"]:
            reference = trigger.get("authenticationRef")
            if reference:
                await self._check(reference, scaled["metadata"]["namespace"])
        return triggers

    async def read(self, scaled: Obj, trigger: PrometheusTrigger) -> Reading:
        """Return the value of a trigger, or of its fallback once it has failed too often."""
        key = key_of(scaled)
        try:
            body = await self._prometheus.ask(
                trigger.address, trigger.query, namespace=trigger.namespace, headers=dict(trigger.headers)
            )
            value = only_value(body, trigger.query, ignore_nothing=trigger.ignore_nothing)
        except MetricError as error:
            reading = Reading(trigger.metric, None, error=str(error))
        else:
            reading = Reading(trigger.metric, milli(max(0.0, value)), value > trigger.activation)
        if scaled["spec"].get("fallback"):
            reading = await self._with_fallback(scaled, trigger, reading)
        self._kept.setdefault(key, {})[trigger.metric] = reading
        return reading

    async def external(self, namespace: str, metric: str, labels: dict[str, str]) -> list[int]:
        """Answer the external metrics API, in the words of KEDA's metrics server."""
        name = labels.get(OWNER_LABEL)
        if not name:
            raise MetricError("scaledObject name is not specified")
        prefix = "rpc error: code = Unknown desc = error when getting metric values"
        scaled = self._scaled_objects.get(namespace, name)
        if scaled is None:
            raise MetricError(f'{prefix} error getting scalers ScaledObject.keda.sh "{name}" not found')
        try:
            triggers = await self.build(scaled)
        except TriggerError as error:
            raise MetricError(f"{prefix} error getting scalers {error}") from error
        for trigger in triggers:
            if isinstance(trigger, PrometheusTrigger) and trigger.metric == metric:
                kept = self._kept.get((namespace, name), {}).get(metric) if trigger.cached else None
                reading = kept or await self.read(scaled, trigger)
                if reading.value is None:
                    raise MetricError(f"{prefix} metric:{metric} encountered error")
                return [reading.value]
        raise MetricError(f"{prefix} no matching metrics found for {metric}")

    def forget(self, key: Key) -> None:
        """Drop what was kept of a ScaledObject that is gone or rests."""
        self._kept.pop(key, None)

    async def _with_fallback(self, scaled: Obj, trigger: PrometheusTrigger, reading: Reading) -> Reading:
        failed = bool(reading.error)

        def count(status: Obj) -> Obj:
            health = fallback.counted(status.get("health") or {}, trigger.metric, failed=failed)
            said_now = fallback.ACTIVE if fallback.reached(scaled, health) else fallback.NONE
            conditions = fallback.with_condition(begun(status), "Fallback", said_now)
            return {**status, "health": health, "conditions": conditions}

        status = await self._statuses.change(key_of(scaled), count)
        if not failed or not fallback.reached(scaled, status.get("health") or {}, trigger.metric):
            return reading
        current, ready = await self._sizes(scaled)
        value = fallback.value(scaled, trigger, current, ready)
        if value is None:
            return Reading(trigger.metric, None, error="error performing fallback")
        return Reading(trigger.metric, value, active=True, fell_back=True)

    async def _sizes(self, scaled: Obj) -> tuple[int, int]:
        """Return the size that is set, and how many pods serve."""
        namespace = scaled["metadata"]["namespace"]
        version, kind, name = target_of(scaled)
        resource = await self._targets.find(version, kind)
        if resource is None:
            return 0, 0
        scale = await self._targets.scale(resource, namespace, name)
        tests = label_selectors.parse(scale["status"].get("selector") or "")
        ready = 0
        for pod in self._pods.store.values():
            labels: dict[str, Any] = dict(labels_of(pod))
            chosen = key_of(pod)[0] == namespace and bool(tests) and all(test(labels) for test in tests)
            ready += chosen and pod.get("status", {}).get("phase") == "Running" and pod_ready(pod)
        return int(scale["spec"].get("replicas") or 0), ready

    async def _check(self, reference: Obj, namespace: str) -> None:
        """What a trigger authenticates with must exist; this cluster's Prometheus asks for nothing of it."""
        cluster_wide = reference.get("kind") == "ClusterTriggerAuthentication"
        plural = "clustertriggerauthentications" if cluster_wide else "triggerauthentications"
        scope = None if cluster_wide else namespace
        try:
            await self._client.get(resource_path("keda.sh/v1alpha1", plural, scope, reference["name"]))
        except ApiError as error:
            raise TriggerError(said(error)) from error
