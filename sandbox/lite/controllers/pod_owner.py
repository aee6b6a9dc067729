"""What ReplicaSets, StatefulSets and Jobs share: they are woken by their pods, and make them from a template."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers.meta import Key, controller_ref, controller_uid, key_of, owner_ref, uid_of
from sandbox.lite.controllers.resources import PODS, Resource
from sandbox.lite.controllers.runtime import Manager

PodHook = Callable[[Obj], Obj]


class PodRefused(Exception):
    """A pod hook (what would be a mutating webhook) does not let the pod be created."""


class NotMade(Exception):
    """A pod was refused; its text is the sentence of who refused it, `reason` the API server's word, if it was it."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class PodOwner(ABC):
    """Watches the objects of one kind and the pods that they own. `hooks` change each pod before it is sent."""

    def __init__(self, manager: Manager, resource: Resource, source: str, hooks: list[PodHook] | None = None) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._kind, self._source = resource.kind, source
        self._hooks = hooks or []
        self._owners = manager.informer(resource)
        self._pods = manager.informer(PODS)
        self._pods.index("controller", lambda item: [controller_uid(item)])
        self._loop = manager.controller(resource.kind.lower(), self.reconcile)
        self._owners.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        self._pods.on_change(self._pod_changed)

    @abstractmethod
    async def reconcile(self, key: Key) -> float | None:
        """Bring one owner a step further; returns the seconds until it is to be looked at again, if it is."""

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        owner = controller_ref(pod)
        if owner is not None and owner["kind"] == self._kind:
            self._loop.queue.add((pod["metadata"]["namespace"], owner["name"]))

    def _owned(self, owner: Obj) -> list[Obj]:
        return self._pods.by("controller", uid_of(owner))

    async def _made(self, pod: Obj) -> Obj | None:
        """Create a pod; None where its namespace ends and takes nothing any more, NotMade for any other refusal."""
        try:
            for hook in self._hooks:
                pod = hook(pod)
            made: Obj = await self._client.create(PODS.path(pod["metadata"]["namespace"]), pod)
        except (ApiError, PodRefused) as error:
            message = str(error.body.get("message", error)) if isinstance(error, ApiError) else str(error)
            if "because it is being terminated" in message:
                return None
            raise NotMade(message, (error.reason or "") if isinstance(error, ApiError) else "") from error
        self._pods.remember(made)
        return made

    async def _gone(self, pod: Obj) -> bool:
        """Delete a pod unless another one has its name by now; False where it was gone before."""
        try:
            answer = await self._client.delete(PODS.of(pod), {"preconditions": {"uid": uid_of(pod)}})
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        if answer["metadata"].get("deletionGracePeriodSeconds"):  # it has time to stop
            self._pods.remember(answer)
        return True

    async def _say(self, owner: Obj, kind: str, reason: str, message: str) -> None:
        await self._recorder.record(owner, kind, reason, message, self._source)


def pod_from(owner: Obj) -> Obj:
    """The next pod of an owner whose pods have no names of their own: the API server completes it."""
    template = copy.deepcopy(owner["spec"]["template"])
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{owner['metadata']['name']}-",
            "namespace": owner["metadata"]["namespace"],
            "labels": meta.get("labels") or {},
            "annotations": meta.get("annotations") or {},
            "ownerReferences": [owner_ref(owner)],
        },
        "spec": template["spec"],
    }
