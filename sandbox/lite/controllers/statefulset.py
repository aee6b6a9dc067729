"""StatefulSets, done: numbered pods with their claims, revisions of their templates, status (see statefulset_plan)."""

from __future__ import annotations

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers import statefulset_plan as plan
from sandbox.lite.controllers.deployment_plan import template_hash
from sandbox.lite.controllers.meta import Key, controller_uid, deleting, key_of, now, uid_of
from sandbox.lite.controllers.pod_owner import NotMade, PodHook, PodOwner
from sandbox.lite.controllers.resources import (
    CONTROLLER_REVISIONS,
    PERSISTENT_VOLUME_CLAIMS,
    STATEFUL_SETS,
)
from sandbox.lite.controllers.runtime import Manager, TryAgain

SOURCE = "statefulset-controller"


class StatefulSetController(PodOwner):
    """Keeps the numbered pods of StatefulSets. `hooks` change each pod before it is sent, as webhooks would."""

    def __init__(self, manager: Manager, hooks: list[PodHook]) -> None:
        super().__init__(manager, STATEFUL_SETS, SOURCE, hooks)
        self._revisions = manager.informer(CONTROLLER_REVISIONS)
        self._claims = manager.informer(PERSISTENT_VOLUME_CLAIMS)
        self._revisions.index("controller", lambda item: [controller_uid(item)])

    async def reconcile(self, key: Key) -> float | None:
        """Take one step; the pods' changes wake the next one."""
        stateful_set = self._owners.get(*key)
        if stateful_set is None:
            return None
        update = await self._revision(stateful_set)
        current = (stateful_set.get("status") or {}).get("currentRevision") or update
        failure = None
        if not deleting(stateful_set):
            steps = plan.steps(stateful_set, self._owned(stateful_set), update)
            failure = await self._act(stateful_set, steps, current, update)
        pods = self._owned(stateful_set)
        status = plan.status_of(stateful_set, pods, current, update, now())
        if status != stateful_set.get("status"):
            body = {**stateful_set, "status": status}
            self._owners.remember(await self._client.update(f"{STATEFUL_SETS.of(stateful_set)}/status", body))
        if failure is not None:
            raise TryAgain(failure)
        await self._forget(stateful_set, {status["currentRevision"], update})
        return plan.until_available(stateful_set, pods, now())

    # Revisions ----------------------------------------------------------------------------------------------

    async def _revision(self, stateful_set: Obj) -> str:
        """Return the name of the present template's revision, made when it is new and renumbered when it is back."""
        known = self._revisions.by("controller", uid_of(stateful_set))
        latest = max((int(item["revision"]) for item in known), default=0)
        digest = template_hash(stateful_set["spec"]["template"])
        same = next((r for r in known if r["metadata"]["labels"]["controller.kubernetes.io/hash"] == digest), None)
        if same is not None:
            if int(same["revision"]) != latest:
                change = {"revision": latest + 1}
                self._revisions.remember(await self._client.patch(CONTROLLER_REVISIONS.of(same), change))
            return str(same["metadata"]["name"])
        wanted = plan.revision(stateful_set, latest + 1)
        made = await self._client.create(CONTROLLER_REVISIONS.path(wanted["metadata"]["namespace"]), wanted)
        self._revisions.remember(made)
        return str(made["metadata"]["name"])

    async def _forget(self, stateful_set: Obj, used: set[str]) -> None:
        """Remove the oldest revisions beyond revisionHistoryLimit."""
        known = self._revisions.by("controller", uid_of(stateful_set))
        old = sorted((r for r in known if r["metadata"]["name"] not in used), key=lambda r: int(r["revision"]))
        limit = int(stateful_set["spec"].get("revisionHistoryLimit", 10))
        for item in old[: max(0, len(old) - limit)]:
            await self._client.delete(CONTROLLER_REVISIONS.of(item), {"preconditions": {"uid": uid_of(item)}})

    def _template(self, stateful_set: Obj, name: str) -> Obj:
        found = self._revisions.get(stateful_set["metadata"]["namespace"], name)
        template: Obj = plan.template_of(found) if found is not None else stateful_set["spec"]["template"]
        return template

    # Pods ---------------------------------------------------------------------------------------------------

    async def _act(self, stateful_set: Obj, steps: plan.Steps, current: str, update: str) -> str | None:
        for pod, told in steps.delete:
            if told:
                await self._say(stateful_set, "Warning", "RecreatingFailedPod", told)
            await self._delete(stateful_set, pod)
        for ordinal in steps.create:
            name = plan.revision_for(stateful_set, ordinal, current, update)
            failure = await self._create(stateful_set, ordinal, self._template(stateful_set, name), name)
            if failure is not None:
                return failure
        return None

    async def _create(self, stateful_set: Obj, ordinal: int, template: Obj, revision: str) -> str | None:
        """Make one pod and its claims; returns the sentence of a refusal."""
        pod, set_name = plan.pod(stateful_set, ordinal, template, revision), stateful_set["metadata"]["name"]
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        try:
            for claim in plan.claims(stateful_set, ordinal):
                if self._claims.get(*key_of(claim)) is None:
                    path = PERSISTENT_VOLUME_CLAIMS.path(namespace)
                    self._claims.remember(await self._client.create(path, claim))
            made = await self._made(pod)
        except (ApiError, NotMade) as error:
            message = str(error.body.get("message", error)) if isinstance(error, ApiError) else str(error)
            if "because it is being terminated" in message:
                return None  # nothing can be created in this namespace any more
            if error.reason == "AlreadyExists":
                raise TryAgain(message) from error  # the one before is not yet gone from the store
            text = f"Create Pod {name} in StatefulSet {set_name} failed error: {message}"
            await self._say(stateful_set, "Warning", "FailedCreate", text)
            return message
        if made is None:
            return None
        text = f"Create Pod {name} in StatefulSet {set_name} successful"
        await self._say(stateful_set, "Normal", "SuccessfulCreate", text)
        return None

    async def _delete(self, stateful_set: Obj, pod: Obj) -> None:
        if await self._gone(pod):
            text = f"Delete Pod {pod['metadata']['name']} in StatefulSet {stateful_set['metadata']['name']} successful"
            await self._say(stateful_set, "Normal", "SuccessfulDelete", text)
