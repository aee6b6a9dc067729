"""The controller of HorizontalPodAutoscalers: every 15 seconds it reads metrics and sets the size of its target.

What a metric asks for: hpa_replicas. What of it is done: hpa_limits. What is told: hpa_status. Where metrics come
from: hpa_metrics.
"""

from __future__ import annotations

from typing import Any

from sandbox.client import ApiError, Obj
from sandbox.lite import label_selectors
from sandbox.lite.controllers import hpa_status as told
from sandbox.lite.controllers.hpa_limits import History, decide
from sandbox.lite.controllers.hpa_metrics import Metrics
from sandbox.lite.controllers.hpa_reading import Reader, Scene, tolerances
from sandbox.lite.controllers.hpa_replicas import MetricError
from sandbox.lite.controllers.hpa_status import ABLE, ACTIVE, LIMITED, Conditions, Failure, Outcome
from sandbox.lite.controllers.meta import Key, key_of, labels_of, now, stamp
from sandbox.lite.controllers.resources import PODS, Resource
from sandbox.lite.controllers.runtime import Manager
from sandbox.lite.controllers.scaling import Scaling
from sandbox.lite.controllers.scaling_targets import Targets, said

AUTOSCALERS = Resource("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
SOURCE, MANAGER = "horizontal-pod-autoscaler", "kube-controller-manager"
SYNC = 15.0  # seconds; --horizontal-pod-autoscaler-sync-period
NO_SELECTOR = "the HPA target's scale is missing a selector"


class HorizontalPodAutoscalerController:
    """Looks at each autoscaler once in a sync period, whatever happens in between."""

    def __init__(self, manager: Manager, scaling: Scaling, metrics: Metrics) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._scaling = scaling
        self._reader = Reader(metrics)
        self._targets = Targets(manager.client, MANAGER)
        self._autoscalers = manager.informer(AUTOSCALERS)
        self._pods = manager.informer(PODS)
        self._histories: dict[Key, History] = {}
        self._selectors: dict[Key, str] = {}
        self._loop = manager.controller("horizontalpodautoscaler", self.reconcile)
        self._autoscalers.on_change(self._changed)

    def _changed(self, kind: str, hpa: Obj, old: Obj | None) -> None:
        self._loop.queue.add_after(key_of(hpa), self._scaling.wait(SYNC))

    async def reconcile(self, key: Key) -> float | None:
        """Look once; the next look is a sync period away, after a failure too."""
        hpa = self._autoscalers.get(*key)
        if hpa is None:
            self._histories.pop(key, None)
            self._selectors.pop(key, None)
            return None
        await self._look(key, hpa)
        return self._scaling.wait(SYNC)

    async def _look(self, key: Key, hpa: Obj) -> None:
        conditions = Conditions((hpa.get("status") or {}).get("conditions"), now())
        try:
            resource, scale = await self._scale(hpa)
        except (ApiError, LookupError) as error:
            why = said(error) if isinstance(error, ApiError) else str(error.args[0])
            await self._say(hpa, "Warning", "FailedGetScale", why)
            text = f"the HPA controller was unable to get the target's current scale: {why}"
            conditions.set(ABLE, False, "FailedGetScale", text)
            await self._write(hpa, {**(hpa.get("status") or {}), "conditions": conditions.items})
            return
        text = "the HPA controller was able to get the target's current scale"
        conditions.set(ABLE, True, "SucceededGetScale", text)
        await self._size(key, hpa, conditions, resource, scale)

    async def _scale(self, hpa: Obj) -> tuple[Resource, Obj]:
        target = hpa["spec"]["scaleTargetRef"]
        version, kind = target.get("apiVersion") or "v1", target["kind"]
        resource = await self._targets.find(version, kind)
        if resource is None:
            raise LookupError(f'no matches for kind "{kind}" in group "{version.rpartition("/")[0]}"')
        return resource, await self._targets.scale(resource, hpa["metadata"]["namespace"], target["name"])

    async def _size(self, key: Key, hpa: Obj, conditions: Conditions, resource: Resource, scale: Obj) -> None:
        spec, current = hpa["spec"], int(scale["spec"].get("replicas") or 0)
        clock, history = self._scaling.clock(), self._histories.setdefault(key, History())
        history.begin(current, clock)
        shown: list[Obj] = []
        desired, why = _without_metrics(spec, current)
        if current == 0:
            text = "scaling is disabled since the replica count of the target is zero"
            conditions.set(ACTIVE, False, "ScalingDisabled", text)
        elif not why:
            found = await self._wish(key, hpa, conditions, scale, shown)
            if found is None:
                before = hpa.get("status") or {}
                wish = int(before.get("desiredReplicas") or 0)
                status = told.status_of(before, conditions, current=current, desired=wish, metrics=shown)
                await self._write(hpa, status)
                return
            wanted, name = found
            decision = decide(spec, history, current, wanted, clock)
            conditions.set(ABLE, True, *decision.able)
            conditions.set(LIMITED, decision.limited, *decision.limit)
            desired = decision.replicas
            why = f"{name} above target" if wanted > current else "All metrics below target" if wanted < current else ""
        if desired == current or await self._rescale(hpa, conditions, resource, scale, (desired, why)):
            if desired != current:
                history.changed(spec.get("behavior"), current, desired, clock)
            scaled = stamp(now()) if desired != current else ""
        else:
            desired, scaled = int((hpa.get("status") or {}).get("desiredReplicas") or 0), ""
        before = hpa.get("status") or {}
        status = told.status_of(before, conditions, current=current, desired=desired, metrics=shown, scaled=scaled)
        await self._write(hpa, status)

    async def _wish(
        self, key: Key, hpa: Obj, conditions: Conditions, scale: Obj, shown: list[Obj]
    ) -> tuple[int, str] | None:
        """Return the replicas that all metrics ask for, and which asks loudest; None when it cannot be said."""
        selector = scale["status"].get("selector") or ""
        try:
            pods = await self._selected(key, hpa, conditions, selector)
        except MetricError as error:
            await self._say(hpa, "Warning", "FailedComputeMetricsReplicas", str(error))
            return None
        scene = Scene(
            namespace=key[0],
            current=int(scale["spec"].get("replicas") or 0),
            seen=int(scale["status"].get("replicas") or 0),
            tolerances=tolerances(hpa["spec"]),
            pods=pods,
        )
        found: list[Outcome | Failure] = []
        for metric in hpa["spec"].get("metrics") or []:
            item = await self._reader.read(metric, scene)
            found.append(item)
            if isinstance(item, Failure):
                await self._say(hpa, "Warning", item.reason, item.message)
            shown.append(item.status if isinstance(item, Outcome) else {"type": ""})
        verdict = told.verdict(found, scene.current)
        conditions.set(ACTIVE, verdict.replicas is not None, verdict.reason, verdict.message)
        if verdict.replicas is None:
            await self._say(hpa, "Warning", "FailedComputeMetricsReplicas", verdict.error)
            return None
        return verdict.replicas, verdict.name

    async def _selected(self, key: Key, hpa: Obj, conditions: Conditions, selector: str) -> list[Obj]:
        """Return the target's pods. MetricError when they are nobody's, or another autoscaler's too."""
        if not selector:
            await self._say(hpa, "Warning", "SelectorRequired", "selector is required")
            conditions.set(ACTIVE, False, "InvalidSelector", NO_SELECTOR)
            raise MetricError("selector is required")
        self._selectors[key] = selector
        pods = self._matching(key[0], selector)
        rivals = [
            other
            for other, theirs in self._selectors.items()
            if other[0] == key[0] and (other == key or any(_matches(theirs, pod) for pod in pods))
        ]
        if len(rivals) > 1:
            named = " ".join(f"{{{name} {namespace}}}" for namespace, name in sorted(rivals))
            why = f"pods by selector {selector} are controlled by multiple HPAs: [{named}]"
            await self._say(hpa, "Warning", "AmbiguousSelector", why)
            conditions.set(ACTIVE, False, "AmbiguousSelector", why)
            raise MetricError(why)
        return pods

    def _matching(self, namespace: str, selector: str) -> list[Obj]:
        return [pod for pod in self._pods.store.values() if key_of(pod)[0] == namespace and _matches(selector, pod)]

    async def _rescale(
        self, hpa: Obj, conditions: Conditions, resource: Resource, scale: Obj, change: tuple[int, str]
    ) -> bool:
        size, why = change
        try:
            await self._targets.resize(resource, scale, size)
        except ApiError as error:
            await self._say(hpa, "Warning", "FailedRescale", f"New size: {size}; reason: {why}; error: {said(error)}")
            text = f"the HPA controller was unable to update the target scale: {said(error)}"
            conditions.set(ABLE, False, "FailedUpdateScale", text)
            return False
        text = f"the HPA controller was able to update the target scale to {size}"
        conditions.set(ABLE, True, "SucceededRescale", text)
        await self._say(hpa, "Normal", "SuccessfulRescale", f"New size: {size}; reason: {why}")
        return True

    async def _write(self, hpa: Obj, status: Obj) -> None:
        before = {name: value for name, value in (hpa.get("status") or {}).items() if value is not None}
        if status == before:
            return
        path = f"{AUTOSCALERS.of(hpa)}/status"
        try:
            self._autoscalers.remember(await self._client.update(path, {**hpa, "status": status}, fieldManager=MANAGER))
        except ApiError as error:
            if error.status != 404:
                await self._say(hpa, "Warning", "FailedUpdateStatus", said(error))

    async def _say(self, hpa: Obj, kind: str, reason: str, message: str) -> None:
        await self._recorder.record(hpa, kind, reason, message, SOURCE)


def _without_metrics(spec: Obj, current: int) -> tuple[int, str]:
    """Return the size where bounds alone decide, and why; the present one and nothing where metrics do."""
    least, most = spec.get("minReplicas", 1), spec["maxReplicas"]
    if current > most:
        return most, "Current number of replicas above Spec.MaxReplicas"
    if 0 < current < least:
        return least, "Current number of replicas below Spec.MinReplicas"
    return current, ""


def _matches(selector: str, pod: Obj) -> bool:
    labels: dict[str, Any] = dict(labels_of(pod))
    return all(test(labels) for test in label_selectors.parse(selector))
