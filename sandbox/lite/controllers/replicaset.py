"""ReplicaSets: as many pods as wanted, made from the template; what the API server refuses is told in its words."""

from __future__ import annotations

from datetime import datetime, timedelta

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers.meta import (
    Key,
    annotations_of,
    condition,
    deleting,
    labels_of,
    now,
    parse_stamp,
    pod_finished,
    pod_ready,
    stamp,
)
from sandbox.lite.controllers.pod_owner import NotMade, PodHook, PodOwner, pod_from
from sandbox.lite.controllers.resources import REPLICA_SETS
from sandbox.lite.controllers.runtime import Manager, TryAgain

SOURCE = "replicaset-controller"
MOST_AT_ONCE = 500


class ReplicaSetController(PodOwner):
    """Creates and deletes pods. `hooks` change each pod before it is sent, as mutating webhooks would."""

    def __init__(self, manager: Manager, hooks: list[PodHook]) -> None:
        super().__init__(manager, REPLICA_SETS, SOURCE, hooks)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one ReplicaSet to its size and its status to the truth."""
        replica_set = self._owners.get(*key)
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
            self._owners.remember(changed)
        if failure is not None:
            raise TryAgain(failure[1])
        return until_available(replica_set, self._owned(replica_set), now())

    async def _create(self, replica_set: Obj, number: int) -> tuple[str, str] | None:
        """Create pods until one is refused; returns the reason and the API server's own sentence."""
        for _ in range(number):
            try:
                made = await self._made(pod_from(replica_set))
            except NotMade as refused:
                await self._say(replica_set, "Warning", "FailedCreate", f"Error creating: {refused}")
                return "FailedCreate", str(refused)
            if made is None:
                return None
            await self._say(replica_set, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return None

    async def _delete(self, replica_set: Obj, pods: list[Obj]) -> tuple[str, str] | None:
        for pod in pods:
            try:
                gone = await self._gone(pod)
            except ApiError as error:
                message = str(error.body.get("message", error))
                await self._say(replica_set, "Warning", "FailedDelete", f"Error deleting: {message}")
                return "FailedDelete", message
            if gone:
                await self._say(replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
        return None


def counts(pod: Obj) -> bool:
    """Tell whether a pod counts towards the wanted number: not finished and not going."""
    return not pod_finished(pod) and not deleting(pod)


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
