"""Deployments, done: create and scale ReplicaSets, tell it in events, keep the status (see deployment_plan)."""

from __future__ import annotations

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers import deployment_plan as plan
from sandbox.lite.controllers import deployment_status as described
from sandbox.lite.controllers.meta import (
    Key,
    annotations_of,
    controller_ref,
    controller_uid,
    deleting,
    key_of,
    now,
    uid_of,
)
from sandbox.lite.controllers.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from sandbox.lite.controllers.runtime import Manager, TryAgain

SOURCE = "deployment-controller"


class DeploymentController:
    """Keeps one ReplicaSet per pod template and moves pods between them."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._deployments = manager.informer(DEPLOYMENTS)
        self._replica_sets = manager.informer(REPLICA_SETS)
        self._pods = manager.informer(PODS)
        self._replica_sets.index("controller", lambda item: [controller_uid(item)])
        self._pods.index("controller", lambda item: [controller_uid(item)])
        self._loop = manager.controller("deployment", self.reconcile)
        self._deployments.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        self._replica_sets.on_change(self._child_changed)
        self._pods.on_change(self._pod_changed)

    def _child_changed(self, kind: str, item: Obj, old: Obj | None) -> None:
        owner = controller_ref(item)
        if owner is not None and owner["kind"] == "Deployment":
            self._loop.queue.add((item["metadata"]["namespace"], owner["name"]))

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        """Only Recreate looks at pods: it starts the new ones when the last old one is gone."""
        owner = controller_ref(pod)
        if kind != "DELETED" or owner is None or owner["kind"] != "ReplicaSet":
            return
        replica_set = self._replica_sets.get(pod["metadata"]["namespace"], owner["name"])
        if replica_set is not None:
            self._child_changed(kind, replica_set, None)

    async def reconcile(self, key: Key) -> float | None:
        """Take one step; the ReplicaSets' status wakes the next one."""
        deployment = self._deployments.get(*key)
        if deployment is None:
            return None
        owned = self._replica_sets.by("controller", uid_of(deployment))
        new = plan.current(deployment, owned)
        old = [item for item in owned if item is not new]
        if not deleting(deployment):
            if new is None and not deployment["spec"].get("paused"):
                new = await self._begin(deployment, old)
                deployment = self._deployments.get(*key) or deployment
            if new is not None:
                deployment = await self._agree_on_revision(deployment, new, old)
            scaled = [await self._scale(deployment, step) for step in plan.rollout(deployment, new, old)]
            if scaled:
                fresh = {uid_of(item): item for item in scaled}
                new = fresh.get(uid_of(new), new) if new is not None else None
                old = [fresh.get(uid_of(item), item) for item in old]
        await self._describe(deployment, new, old)
        return described.deadline(self._deployments.get(*key) or deployment, now())

    async def _begin(self, deployment: Obj, old: list[Obj]) -> Obj | None:
        """Create the ReplicaSet of a template seen for the first time."""
        recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
        if recreate and any(item["spec"]["replicas"] for item in old):
            return None
        old_pods = [pod for item in old for pod in self._pods.by("controller", uid_of(item))]
        if plan.recreate_must_wait(deployment, old_pods):
            return None
        collisions = int((deployment.get("status") or {}).get("collisionCount", 0))
        wanted = plan.new_replica_set(deployment, old, collisions)
        try:
            made = await self._client.create(REPLICA_SETS.path(wanted["metadata"]["namespace"]), wanted)
        except ApiError as error:
            if error.status != 409 or error.reason != "AlreadyExists":
                raise
            return await self._already_there(deployment, wanted, collisions)
        self._replica_sets.remember(made)
        name, size = made["metadata"]["name"], made["spec"]["replicas"]
        await self._write_status(deployment, described.note_new_replica_set(deployment, name, now(), created=True))
        if size:
            await self._say(deployment, f"Scaled up replica set {name} from 0 to {size}")
        return made

    async def _already_there(self, deployment: Obj, wanted: Obj, collisions: int) -> Obj:
        """The name is taken: by our own ReplicaSet the store has not seen yet, or by another template's."""
        there = await self._client.get(REPLICA_SETS.of(wanted))
        if controller_uid(there) == uid_of(deployment) and plan.current(deployment, [there]) is not None:
            self._replica_sets.remember(there)
            return there
        status = {**(deployment.get("status") or {}), "collisionCount": collisions + 1}
        await self._write_status(deployment, status)
        raise TryAgain(f"hash collision on {wanted['metadata']['name']}")

    async def _agree_on_revision(self, deployment: Obj, new: Obj, old: list[Obj]) -> Obj:
        """Number the ReplicaSet after all older ones (again, when it was rolled back to) and copy that up."""
        revision = max(plan.revision_of(new), plan.next_revision(old) if old else 1)
        wanted = plan.annotations_for(deployment, revision)
        if any(annotations_of(new).get(name) != text for name, text in wanted.items()):
            change = {"metadata": {"annotations": wanted}}
            self._replica_sets.remember(await self._client.patch(REPLICA_SETS.of(new), change))
        if annotations_of(deployment).get(plan.REVISION) == str(revision):
            return deployment
        change = {"metadata": {"annotations": {plan.REVISION: str(revision)}}}
        # By its status, as kube-controller-manager does: the annotation is then no new generation.
        changed = await self._client.patch_status(DEPLOYMENTS.of(deployment), change)
        self._deployments.remember(changed)
        return changed

    async def _scale(self, deployment: Obj, step: plan.Scale) -> Obj:
        item, before = step.replica_set, step.replica_set["spec"]["replicas"]
        change = {
            "metadata": {"annotations": plan.size_annotations(deployment)},
            "spec": {"replicas": step.replicas},
        }
        changed = await self._client.patch(REPLICA_SETS.of(item), change)
        self._replica_sets.remember(changed)
        word = "up" if step.replicas > before else "down"
        name = item["metadata"]["name"]
        await self._say(deployment, f"Scaled {word} replica set {name} from {before} to {step.replicas}")
        return changed

    async def _describe(self, deployment: Obj, new: Obj | None, old: list[Obj]) -> None:
        status = described.status_of(deployment, new, old, now())
        if status != (deployment.get("status") or {}):
            await self._write_status(deployment, status)
        if described.complete(deployment, status) and not deleting(deployment):
            for item in plan.surplus_history(deployment, old):
                options = {"preconditions": {"uid": uid_of(item)}, "propagationPolicy": "Background"}
                await self._client.delete(REPLICA_SETS.of(item), options)

    async def _write_status(self, deployment: Obj, status: Obj) -> None:
        body = {**deployment, "status": status}
        self._deployments.remember(await self._client.update(f"{DEPLOYMENTS.of(deployment)}/status", body))

    async def _say(self, deployment: Obj, message: str) -> None:
        await self._recorder.record(deployment, "Normal", "ScalingReplicaSet", message, SOURCE)
