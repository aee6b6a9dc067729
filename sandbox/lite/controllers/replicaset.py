"""ReplicaSets: as many pods as wanted, made from the template; what the API server refuses is told in its words."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime, timedelta

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers.meta import (
    Key,
    annotations_of,
    condition,
    controller_ref,
    controller_uid,
    deleting,
    key_of,
    labels_of,
    now,
    owner_ref,
    parse_stamp,
    pod_finished,
    pod_ready,
    stamp,
    uid_of,
)
from sandbox.lite.controllers.resources import PODS, REPLICA_SETS
from sandbox.lite.controllers.runtime import Manager, TryAgain

SOURCE = "replicaset-controller"
MOST_AT_ONCE = 500

PodHook = Callable[[Obj], Obj]


class PodRefused(Exception):
    """A pod hook (what would be a mutating webhook) does not let the pod be created."""


class ReplicaSetController:
    """Creates and deletes pods. `hooks` change each pod before it is sent, as mutating webhooks would."""

    def __init__(self, manager: Manager, hooks: list[PodHook]) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._hooks = hooks
        self._replica_sets = manager.informer(REPLICA_SETS)
        self._pods = manager.informer(PODS)
        self._pods.index("controller", lambda item: [controller_uid(item)])
        self._loop = manager.controller("replicaset", self.reconcile)
        self._replica_sets.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        self._pods.on_change(self._pod_changed)

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        owner = controller_ref(pod)
        if owner is not None and owner["kind"] == "ReplicaSet":
            self._loop.queue.add((pod["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> float | None:
        """Bring one ReplicaSet to its size and its status to the truth."""
        replica_set = self._replica_sets.get(*key)
        if replica_set is None:
            return None
        failure: tuple[str, str] | None = None
        if not deleting(replica_set):
            pods = [pod for pod in self._owned(replica_set) if counts(pod)]
            difference = replica_set["spec"]["replicas"] - len(pods)
            if difference > 0:
                failure = await self._create(replica_set, min(difference, MOST_AT_ONCE))
            elif difference < 0:
                failure = await self._delete(replica_set, doomed(pods, -difference))
        status = status_of(replica_set, self._owned(replica_set), failure, now())
        if status != replica_set.get("status"):
            body = {**replica_set, "status": status}
            changed = await self._client.update(f"{REPLICA_SETS.of(replica_set)}/status", body)
            self._replica_sets.remember(changed)
        if failure is not None:
            raise TryAgain(failure[1])
        return until_available(replica_set, self._owned(replica_set), now())

    def _owned(self, replica_set: Obj) -> list[Obj]:
        return self._pods.by("controller", uid_of(replica_set))

    async def _create(self, replica_set: Obj, number: int) -> tuple[str, str] | None:
        """Create pods until one is refused; returns the reason and the API server's own sentence."""
        path = PODS.path(replica_set["metadata"]["namespace"])
        for _ in range(number):
            try:
                pod = pod_from(replica_set)
                for hook in self._hooks:
                    pod = hook(pod)
                made = await self._client.create(path, pod)
            except (ApiError, PodRefused) as error:
                message = error.body.get("message", str(error)) if isinstance(error, ApiError) else str(error)
                if "because it is being terminated" in message:
                    return None  # nothing can be created in this namespace any more
                await self._say(replica_set, "Warning", "FailedCreate", f"Error creating: {message}")
                return "FailedCreate", message
            self._pods.remember(made)
            await self._say(replica_set, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return None

    async def _delete(self, replica_set: Obj, pods: list[Obj]) -> tuple[str, str] | None:
        for pod in pods:
            name = pod["metadata"]["name"]
            try:
                answer = await self._client.delete(PODS.of(pod), {"preconditions": {"uid": uid_of(pod)}})
            except ApiError as error:
                if error.status == 404:
                    continue
                message = str(error.body.get("message", error))
                await self._say(replica_set, "Warning", "FailedDelete", f"Error deleting: {message}")
                return "FailedDelete", message
            if answer["metadata"].get("deletionGracePeriodSeconds"):  # it has time to stop
                self._pods.remember(answer)
            await self._say(replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")
        return None

    async def _say(self, replica_set: Obj, kind: str, reason: str, message: str) -> None:
        await self._recorder.record(replica_set, kind, reason, message, SOURCE)


def counts(pod: Obj) -> bool:
    """Tell whether a pod counts towards the wanted number: not finished and not going."""
    return not pod_finished(pod) and not deleting(pod)


def pod_from(replica_set: Obj) -> Obj:
    """Return the pod to create; the API server completes the name."""
    template = copy.deepcopy(replica_set["spec"]["template"])
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{replica_set['metadata']['name']}-",
            "namespace": replica_set["metadata"]["namespace"],
            "labels": meta.get("labels") or {},
            "annotations": meta.get("annotations") or {},
            "ownerReferences": [owner_ref(replica_set)],
        },
        "spec": template["spec"],
    }


def doomed(pods: list[Obj], number: int) -> list[Obj]:
    """Return the pods whose loss hurts least: unassigned, then pending, not ready, cheap, and young ones."""

    def rank(pod: Obj) -> tuple[int, int, int, int, float]:
        phase = {"Pending": 0, "Unknown": 1}.get(pod.get("status", {}).get("phase", "Pending"), 2)
        cost = annotations_of(pod).get("controller.kubernetes.io/pod-deletion-cost", "0")
        made = pod["metadata"].get("creationTimestamp")
        age = parse_stamp(made).timestamp() if made else 0.0
        return (
            1 if pod["spec"].get("nodeName") else 0,
            phase,
            1 if pod_ready(pod) else 0,
            int(cost) if cost.lstrip("-").isdigit() else 0,
            -age,
        )

    return sorted(pods, key=rank)[:number]


def status_of(replica_set: Obj, pods: list[Obj], failure: tuple[str, str] | None, moment: datetime) -> Obj:
    """Return the counts and, while pods cannot be made or removed, the ReplicaFailure condition."""
    living = [pod for pod in pods if counts(pod)]
    wanted = replica_set["spec"]["template"].get("metadata", {}).get("labels") or {}
    labelled = [pod for pod in living if wanted.items() <= labels_of(pod).items()]
    ready = [pod for pod in living if pod_ready(pod)]
    status: Obj = {
        "observedGeneration": replica_set["metadata"]["generation"],
        "replicas": len(living),
        "terminatingReplicas": sum(1 for pod in pods if deleting(pod) and not pod_finished(pod)),
    }
    for name, number in (
        ("fullyLabeledReplicas", len(labelled)),
        ("readyReplicas", len(ready)),
        ("availableReplicas", sum(1 for pod in ready if _available(replica_set, pod, moment))),
    ):
        if number:
            status[name] = number
    known = condition((replica_set.get("status") or {}).get("conditions"), "ReplicaFailure")
    if failure is not None:
        # The first sentence stays until pods can be made again, as in kube-controller-manager.
        status["conditions"] = [
            known
            or {
                "type": "ReplicaFailure",
                "status": "True",
                "reason": failure[0],
                "message": failure[1],
                "lastTransitionTime": stamp(moment),
            }
        ]
    return status


def until_available(replica_set: Obj, pods: list[Obj], moment: datetime) -> float | None:
    """Return the seconds until the next ready pod has been ready for minReadySeconds, or None."""
    waiting = [
        (_since_ready(pod) + timedelta(seconds=replica_set["spec"].get("minReadySeconds", 0)) - moment).total_seconds()
        for pod in pods
        if counts(pod) and pod_ready(pod) and not _available(replica_set, pod, moment)
    ]
    return max(0.1, min(waiting)) if waiting else None


def _available(replica_set: Obj, pod: Obj, moment: datetime) -> bool:
    least = replica_set["spec"].get("minReadySeconds", 0)
    return not least or _since_ready(pod) + timedelta(seconds=least) <= moment


def _since_ready(pod: Obj) -> datetime:
    ready = condition(pod["status"]["conditions"], "Ready") or {}
    return parse_stamp(ready.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"])
