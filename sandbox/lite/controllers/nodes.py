"""Nodes and the pods on them: silence, taints, evictions, and pods left behind by a node that is gone."""

from __future__ import annotations

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers.meta import (
    Key,
    condition,
    deleting,
    is_true,
    key_of,
    now,
    pod_finished,
    stamp,
    uid_of,
)
from sandbox.lite.controllers.node_health import GRACE, heard_from, lost_conditions, must_leave, taints
from sandbox.lite.controllers.resources import LEASES, NODES, PODS
from sandbox.lite.controllers.runtime import Manager

LEASE_NAMESPACE = "kube-node-lease"
SOURCE = "node-controller"


class NodeController:
    """Watches heartbeats and marks what follows from their absence."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._nodes = manager.informer(NODES)
        self._leases = manager.informer(LEASES)
        self._pods = manager.informer(PODS)
        self._pods.index("node", lambda pod: [pod["spec"].get("nodeName") or ""])
        self._loop = manager.controller("node", self.reconcile, workers=2)
        self._nodes.on_change(self._node_changed)
        self._leases.on_change(self._lease_changed)
        self._pods.on_change(self._pod_changed)

    def _node_changed(self, kind: str, node: Obj, old: Obj | None) -> None:
        self._loop.queue.add(key_of(node))

    def _lease_changed(self, kind: str, lease: Obj, old: Obj | None) -> None:
        """A renewal matters only to a node that was given up; the others are looked at when their time is up."""
        name = lease["metadata"]["name"]
        node = self._nodes.get("", name)
        ready = condition((node or {}).get("status", {}).get("conditions"), "Ready")
        if node is not None and (kind == "DELETED" or ready is None or ready["status"] == "Unknown"):
            self._loop.queue.add(("", name))

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        name = pod["spec"].get("nodeName")
        if not name or kind == "DELETED":
            return
        node = self._nodes.get("", name)
        if node is None or any(item["effect"] == "NoExecute" for item in node["spec"].get("taints") or []):
            self._loop.queue.add(("", name))

    async def reconcile(self, key: Key) -> float | None:
        """Look at one node; returns when its silence or a pod's patience would end."""
        node = self._nodes.get(*key)
        if node is None:
            await self._clear_away(key[1])
            return None
        moment = now()
        silent_for = moment - heard_from(node, self._leases.get(LEASE_NAMESPACE, key[1]))
        if silent_for > GRACE:
            node = await self._give_up(node)
        wanted = taints(node, moment)
        if wanted != (node["spec"].get("taints") or []):
            change = {
                "spec": {"taints": wanted or None},
                "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            }
            node = await self._client.patch(NODES.of(node), change)
            self._nodes.remember(node)
        patience = await self._evict(node)
        left = [seconds for seconds in (patience,) if seconds is not None]
        if silent_for <= GRACE:
            left.append((GRACE - silent_for).total_seconds() + 0.5)
        return min(left) if left else None

    async def _give_up(self, node: Obj) -> Obj:
        conditions = lost_conditions(node, now())
        if conditions is None:
            return node
        body = {**node, "status": {**node.get("status", {}), "conditions": conditions}}
        changed = await self._client.update(f"{NODES.of(node)}/status", body)
        self._nodes.remember(changed)
        name = node["metadata"]["name"]
        await self._say(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        for pod in self._pods.by("node", name):
            if is_true(pod.get("status", {}).get("conditions"), "Ready"):
                await self._mark_not_ready(pod)
        return changed

    async def _mark_not_ready(self, pod: Obj) -> None:
        """The kubelet cannot say it, so it is said for it: traffic must not go there."""
        items = []
        for item in pod["status"]["conditions"]:
            if item["type"] == "Ready":
                item = {**item, "status": "False", "lastTransitionTime": stamp(now())}
            items.append(item)
        body = {**pod, "status": {**pod["status"], "conditions": items}}
        self._pods.remember(await self._client.update(f"{PODS.of(pod)}/status", body))
        await self._recorder.record(pod, "Warning", "NodeNotReady", "Node is not ready", SOURCE)

    async def _evict(self, node: Obj) -> float | None:
        """Delete the pods whose patience with the node's taints is over; returns the next one's time."""
        soonest: float | None = None
        for pod in self._pods.by("node", node["metadata"]["name"]):
            left = must_leave(pod, node["spec"].get("taints") or [], now())
            if left is None or deleting(pod) or pod_finished(pod):
                continue
            if left > 0:
                soonest = left if soonest is None else min(soonest, left)
                continue
            text = f"Marking for deletion Pod {'/'.join(key_of(pod))}"
            await self._recorder.record(pod, "Normal", "TaintManagerEviction", text, "taint-eviction-controller")
            await self._remove(pod, {})
        return soonest

    async def _clear_away(self, name: str) -> None:
        """Delete, without waiting for anyone, the pods of a node that no longer exists."""
        for pod in self._pods.by("node", name):
            await self._remove(pod, {"gracePeriodSeconds": 0})

    async def _remove(self, pod: Obj, options: Obj) -> None:
        try:
            await self._client.delete(PODS.of(pod), {"preconditions": {"uid": uid_of(pod)}, **options})
        except ApiError as error:
            if error.status != 404:
                raise

    async def _say(self, node: Obj, reason: str, message: str) -> None:
        await self._recorder.record(node, "Normal", reason, message, SOURCE)
