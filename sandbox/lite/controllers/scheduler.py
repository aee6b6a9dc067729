"""The scheduler: pending pods, oldest first, each to the node `scheduling.place` chooses.

One pass at a time over all waiting pods. A pass runs when something changed that could help: a new pod, a node,
a claim, or a pod that went away.
"""

from __future__ import annotations

import asyncio
import logging

import httpx

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers.claims import is_bound
from sandbox.lite.controllers.meta import (
    condition,
    deleting,
    key_of,
    now,
    pod_finished,
    pod_resources,
    stamp,
)
from sandbox.lite.controllers.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PODS
from sandbox.lite.controllers.runtime import FIRST_RETRY, LONGEST_RETRY, Manager
from sandbox.lite.controllers.scheduling import Room, place, rooms

log = logging.getLogger(__name__)

SOURCE = "default-scheduler"


class Scheduler:
    """Binds pods to nodes."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._pods = manager.informer(PODS)
        self._nodes = manager.informer(NODES)
        self._claims = manager.informer(PERSISTENT_VOLUME_CLAIMS)
        self._changed = asyncio.Event()
        self._changed.set()
        self._pods.on_change(self._pod_changed)
        self._nodes.on_change(self._node_changed)
        self._claims.on_change(lambda kind, item, old: self._changed.set())
        manager.background(self.run)

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        gone = kind == "DELETED" or pod_finished(pod)
        if gone or (old is None and waits(pod)):
            self._changed.set()

    def _node_changed(self, kind: str, node: Obj, old: Obj | None) -> None:
        """Heartbeats change nodes all the time; only what placing looks at counts."""
        if old is None or kind == "DELETED" or _face(node) != _face(old):
            self._changed.set()

    async def run(self) -> None:
        """Place pods until cancelled."""
        delay = FIRST_RETRY
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._pass()
                delay = FIRST_RETRY
            except (ApiError, httpx.HTTPError) as error:
                log.info("scheduling: %s; again in %.2f s", error, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_RETRY)
                self._changed.set()

    async def _pass(self) -> None:
        waiting = sorted((pod for pod in self._pods.store.values() if waits(pod)), key=_order)
        if not waiting:
            return
        space = rooms(self._nodes.store.values(), self._pods.store.values())
        for pod in waiting:
            namespace = pod["metadata"]["namespace"]
            claims = {name for where, name in self._claims.store if where == namespace}
            unbound = {name for name in claims if not is_bound(self._claims.store[namespace, name])}
            verdict = place(pod, space, claims, unbound)
            try:
                if verdict.node is None:
                    await self._refuse(pod, verdict.message)
                else:
                    await self._bind(pod, verdict.node, space)
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
                log.debug("scheduling %s: %s", key_of(pod), error)  # deleted or changed meanwhile
                self._changed.set()
                await asyncio.sleep(FIRST_RETRY)

    async def _bind(self, pod: Obj, node: str, space: list[Room]) -> None:
        namespace, name = key_of(pod)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._client.create(f"{PODS.of(pod)}/binding", binding)
        self._pods.remember({**pod, "spec": {**pod["spec"], "nodeName": node}})
        room = next(item for item in space if item.node["metadata"]["name"] == node)
        room.pods += 1
        for resource, amount in pod_resources(pod).items():
            room.asked[resource] = room.asked.get(resource, 0.0) + amount
        message = f"Successfully assigned {namespace}/{name} to {node}"
        await self._recorder.record(pod, "Normal", "Scheduled", message, SOURCE)

    async def _refuse(self, pod: Obj, message: str) -> None:
        status = pod.get("status") or {}
        known = condition(status.get("conditions"), "PodScheduled")
        if known is not None and known.get("message") == message:
            return
        since = known["lastTransitionTime"] if known and known["status"] == "False" else stamp(now())
        fresh = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "observedGeneration": pod["metadata"].get("generation", 1),
            "lastProbeTime": None,
            "lastTransitionTime": since,
        }
        others = [item for item in status.get("conditions") or [] if item["type"] != "PodScheduled"]
        body = {**pod, "status": {**status, "conditions": [*others, fresh]}}
        self._pods.remember(await self._client.update(f"{PODS.of(pod)}/status", body))
        await self._recorder.record(pod, "Warning", "FailedScheduling", message, SOURCE)


def waits(pod: Obj) -> bool:
    """Tell whether this scheduler still has to find a place for a pod."""
    spec = pod["spec"]
    ours = spec.get("schedulerName", SOURCE) == SOURCE
    return ours and not (spec.get("nodeName") or spec.get("schedulingGates") or deleting(pod) or pod_finished(pod))


def _order(pod: Obj) -> tuple[int, str, str]:
    meta = pod["metadata"]
    return -int(pod["spec"].get("priority") or 0), meta.get("creationTimestamp", ""), meta["name"]


def _face(node: Obj) -> tuple[object, ...]:
    spec, status = node["spec"], node.get("status", {})
    labels = node["metadata"].get("labels")
    return spec.get("taints"), spec.get("unschedulable"), labels, status.get("allocatable")
