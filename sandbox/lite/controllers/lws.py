"""LeaderWorkerSets, done: one StatefulSet of leaders, one of workers for each leader, groups that restart as one."""

from __future__ import annotations

import copy
from typing import Any

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers import lws_plan as plan
from sandbox.lite.controllers import lws_rollout as moving
from sandbox.lite.controllers.meta import (
    Key,
    annotations_of,
    controller_ref,
    controller_uid,
    deleting,
    key_of,
    labels_of,
    now,
    pod_ready,
    uid_of,
)
from sandbox.lite.controllers.resources import (
    CONTROLLER_REVISIONS,
    LEADER_WORKER_SETS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
)
from sandbox.lite.controllers.runtime import Manager

SOURCE = "leaderworkerset"
_RECREATING = ("RecreateGroupOnPodRestart", "RecreateGroupAfterStart")


class LeaderWorkerSetController:
    """Keeps leaders and workers together."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._groups = manager.informer(LEADER_WORKER_SETS)
        self._sets = manager.informer(STATEFUL_SETS)
        self._revisions = manager.informer(CONTROLLER_REVISIONS)
        self._services = manager.informer(SERVICES)
        self._pods = manager.informer(PODS)
        self._pods.index("leaderworkerset", _group_of)
        self._sets.index("leaderworkerset", _group_of)
        self._revisions.index("controller", lambda item: [controller_uid(item)])
        self._loop = manager.controller("leaderworkerset", self.reconcile)
        self._groups.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        self._sets.on_change(self._member_changed)
        self._pods.on_change(self._member_changed)

    def _member_changed(self, kind: str, item: Obj, old: Obj | None) -> None:
        for name in _group_of(item):
            namespace, _, group = name.partition("/")
            self._loop.queue.add((namespace, group))

    async def reconcile(self, key: Key) -> float | None:
        """Bring leaders, then workers, then the status to where they belong."""
        group = self._groups.get(*key)
        if group is None or deleting(group):
            return None
        leaders = self._sets.get(*key)
        if leaders is not None and deleting(leaders):
            return 5.0
        revision, changed = await self._revision(group, leaders)
        revision_key = labels_of(revision)[plan.REVISION]
        partition, replicas = moving.rollout(group, leaders, self._states(group, revision_key), changed=changed)
        await self._put_leaders(group, leaders, plan.leader_set(group, partition, replicas, revision_key))
        if plan.shared_subdomain(group):
            await self._name(group, group, key[1], {plan.NAME: key[1]})
        for pod in self._members(group):
            if not await self._restart_group(group, pod) and labels_of(pod).get(plan.WORKER) == "0":
                await self._make_workers(group, pod)
        await self._describe(group, revision_key)
        return None

    def _members(self, group: Obj) -> list[Obj]:
        return self._pods.by("leaderworkerset", "/".join(key_of(group)))

    def _states(self, group: Obj, revision_key: str) -> list[moving.Group]:
        leaders = [pod for pod in self._members(group) if labels_of(pod).get(plan.WORKER) == "0"]
        sets = {item["metadata"]["name"]: item for item in self._sets.by("leaderworkerset", "/".join(key_of(group)))}
        return moving.groups_of(group, leaders, sets, revision_key)

    # Revisions ----------------------------------------------------------------------------------------------

    async def _revision(self, group: Obj, leaders: Obj | None) -> tuple[Obj, bool]:
        """Return the revision to run, and whether it was just made because the templates changed."""
        known = self._revisions.by("controller", uid_of(group))
        wanted = plan.revision(group, max((int(item["revision"]) for item in known), default=0) + 1)
        running = labels_of(leaders).get(plan.REVISION) if leaders is not None else None
        same = [item for item in known if item["data"] == wanted["data"]]
        if same:
            found = max(same, key=lambda item: int(item["revision"]))
            return found, running is not None and labels_of(found)[plan.REVISION] != running
        made = await self._client.create(CONTROLLER_REVISIONS.path(group["metadata"]["namespace"]), wanted)
        self._revisions.remember(made)
        what = "updated LWS" if running else "a newly created LeaderWorkerSet"
        text = f"Creating revision with key {labels_of(made)[plan.REVISION]} for {what}"
        await self._say(group, "Normal", "CreatingRevision", text)
        return made, running is not None

    # Leaders and workers ------------------------------------------------------------------------------------

    async def _put_leaders(self, group: Obj, there: Obj | None, wanted: Obj) -> None:
        name = group["metadata"]["name"]
        if there is None:
            try:
                made = await self._client.create(STATEFUL_SETS.path(group["metadata"]["namespace"]), wanted)
            except ApiError as error:
                text = f"Failed to create leader statefulset {name}: {error.body.get('message', error)}"
                await self._say(group, "Warning", "FailedCreate", text)
                raise
            self._sets.remember(made)
            await self._say(group, "Normal", "GroupsProgressing", f"Created leader statefulset {name}")
            return
        body = _changed(there, wanted)
        if body == there:
            return
        before = int(there["spec"]["updateStrategy"]["rollingUpdate"].get("partition") or 0)
        after = int(wanted["spec"]["updateStrategy"]["rollingUpdate"]["partition"])
        same = labels_of(there).get(plan.REVISION) == labels_of(wanted)[plan.REVISION]
        self._sets.remember(await self._client.update(STATEFUL_SETS.of(there), body))
        if same and after < before:
            one = f"Updating replica {after}"
            text = one if before - 1 == after else f"Updating replicas {after} to {before - 1} (inclusive)"
            await self._say(group, "Normal", "GroupsUpdating", text)

    async def _name(self, group: Obj, owner: Obj, name: str, selector: dict[str, str]) -> None:
        namespace = group["metadata"]["namespace"]
        if self._services.get(namespace, name) is None:
            wanted = plan.headless_service(group, owner, name, selector)
            self._services.remember(await self._client.create(SERVICES.path(namespace), wanted))

    async def _make_workers(self, group: Obj, leader: Obj) -> None:
        """Give a leader its workers, in the templates of the leader's own revision."""
        if deleting(leader) or plan.GROUP not in labels_of(leader):
            return
        namespace, name = key_of(leader)
        if not plan.shared_subdomain(group):
            of = {plan.NAME: group["metadata"]["name"], plan.GROUP: labels_of(leader)[plan.GROUP]}
            await self._name(group, leader, name, of)
        later = group["spec"].get("startupPolicy") == "LeaderReady" and not pod_ready(leader)
        if plan.size_of(group) == 1 or later or self._sets.get(namespace, name) is not None:
            return
        revisions = self._revisions.by("controller", uid_of(group))
        wanted = labels_of(leader).get(plan.REVISION)
        found = [item for item in revisions if labels_of(item).get(plan.REVISION) == wanted]
        if not found:
            return
        template = max(found, key=lambda item: int(item["revision"]))["data"]["spec"]["leaderWorkerTemplate"]
        workers = plan.worker_set(group, leader, template["workerTemplate"])
        try:
            made = await self._client.create(STATEFUL_SETS.path(namespace), workers)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                text = f"Failed to create worker statefulset for leader pod {name}: {error.body.get('message', error)}"
                await self._say(group, "Warning", "FailedCreate", text)
            raise
        self._sets.remember(made)
        await self._say(group, "Normal", "GroupsProgressing", f"Created worker statefulset for leader pod {name}")

    async def _restart_group(self, group: Obj, pod: Obj) -> bool:
        """When one pod of a group restarts or goes, the leader goes, and all its workers with it."""
        policy = group["spec"]["leaderWorkerTemplate"].get("restartPolicy")
        if policy not in _RECREATING or not (_restarted(pod) or deleting(pod)):
            return False
        if policy == "RecreateGroupAfterStart" and self._pending(group, pod):
            return False
        leader: Obj | None = pod
        if labels_of(pod).get(plan.WORKER) != "0":
            namespace, name = key_of(pod)
            leader = self._pods.get(namespace, name.rpartition("-")[0])
            if leader is None or not self._follows(pod, leader):
                return False
        if leader is None or deleting(leader):
            return True
        options = {"preconditions": {"uid": uid_of(leader)}, "propagationPolicy": "Foreground"}
        answer = await self._client.delete(PODS.of(leader), options)
        if answer["metadata"].get("deletionGracePeriodSeconds"):  # it has time to stop
            self._pods.remember(answer)
        text = (
            f"Worker pod {pod['metadata']['name']} failed, deleted leader pod {leader['metadata']['name']} to "
            f"recreate group {labels_of(leader).get(plan.GROUP, '')}"
        )
        await self._say(group, "Normal", "RecreateGroup", text)
        return True

    def _pending(self, group: Obj, pod: Obj) -> bool:
        index = labels_of(pod).get(plan.GROUP)
        same = [item for item in self._members(group) if labels_of(item).get(plan.GROUP) == index]
        return len(same) != plan.size_of(group) or any(item["status"].get("phase") == "Pending" for item in same)

    def _follows(self, pod: Obj, leader: Obj) -> bool:
        """Tell whether a worker belongs to this very leader, not to one of the same name before it."""
        owner = controller_ref(pod)
        workers = self._sets.get(pod["metadata"]["namespace"], owner["name"]) if owner is not None else None
        same = labels_of(leader).get(plan.REVISION) == labels_of(pod).get(plan.REVISION)
        if workers is None or owner is None or uid_of(workers) != owner["uid"]:
            return False
        return same and controller_uid(workers) == uid_of(leader)

    # Status -------------------------------------------------------------------------------------------------

    async def _describe(self, group: Obj, revision_key: str) -> None:
        states = self._states(group, revision_key)
        status, fresh = moving.status_of(group, self._sets.get(*key_of(group)), states, now())
        if _bare(status) == _bare(group.get("status") or {}):
            return
        body = {**group, "status": status}
        self._groups.remember(await self._client.update(f"{LEADER_WORKER_SETS.of(group)}/status", body))
        if fresh is not None:
            reason, message = moving.words_of(fresh)
            ready = sum(item.ready for item in states)
            text = f"{message}, with {ready} groups ready of total {group['spec']['replicas']} groups"
            await self._say(group, "Normal", reason, text)
        if "Available" in (fresh or "") and all(item.updated for item in states):
            await self._forget(group, revision_key)

    async def _forget(self, group: Obj, revision_key: str) -> None:
        for item in self._revisions.by("controller", uid_of(group)):
            if labels_of(item).get(plan.REVISION) != revision_key:
                await self._client.delete(CONTROLLER_REVISIONS.of(item), {"preconditions": {"uid": uid_of(item)}})

    async def _say(self, group: Obj, kind: str, reason: str, message: str) -> None:
        await self._recorder.record(group, kind, reason, message, SOURCE)


def _group_of(item: Obj) -> list[str]:
    name = labels_of(item).get(plan.NAME)
    return [f"{item['metadata']['namespace']}/{name}"] if name else []


def _restarted(pod: Obj) -> bool:
    status = pod.get("status") or {}
    if status.get("phase") not in ("Running", "Pending"):
        return False
    states = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return any(item.get("restartCount", 0) > 0 for item in states)


def _changed(there: Obj, wanted: Obj) -> Obj:
    """Return the StatefulSet with what the controller keeps put over it; the very same when nothing differs."""
    body: dict[str, Any] = copy.deepcopy(there)
    body["metadata"]["labels"] = {**labels_of(there), **labels_of(wanted)}
    body["metadata"]["annotations"] = {**annotations_of(there), **annotations_of(wanted)}
    body["spec"]["replicas"] = wanted["spec"]["replicas"]
    body["spec"]["updateStrategy"] = wanted["spec"]["updateStrategy"]
    if labels_of(there).get(plan.REVISION) != labels_of(wanted)[plan.REVISION]:
        body["spec"]["template"] = wanted["spec"]["template"]
    return body


def _bare(status: Obj) -> Obj:
    items = [{k: v for k, v in item.items() if k != "lastTransitionTime"} for item in status.get("conditions") or []]
    return {**status, "conditions": items}
