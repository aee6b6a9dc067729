"""Garbage collection by owner references: background, foreground and orphan, over every kind there is.

An object whose owners are all gone goes too. That an owner is gone is believed only after a live read: the
informers may be behind, and a re-created object of the same name has another uid.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import httpx

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers.discovery import discover
from sandbox.lite.controllers.meta import deleting, key_of, uid_of
from sandbox.lite.controllers.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource
from sandbox.lite.controllers.runtime import FIRST_RETRY, LONGEST_RETRY, Manager

log = logging.getLogger(__name__)

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
FIRST_LISTS = 10.0  # seconds


class GarbageCollector:
    """Follows every kind the server offers and deletes what nobody owns any more."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._client = manager.client
        self._kinds: dict[tuple[str, str], Resource] = {}  # by (apiVersion, kind)
        self._followed: dict[Resource, asyncio.Task[None]] = {}
        self._objects: dict[str, tuple[Resource, Obj]] = {}  # by uid
        self._dependents: dict[str, set[str]] = {}  # uid of owner -> uids
        self._loop = manager.controller("garbage", self.reconcile)
        self._changed = asyncio.Event()
        self._changed.set()
        self._settled = asyncio.Event()  # set once every kind had its first list
        crds = manager.informer(CUSTOM_RESOURCE_DEFINITIONS)
        crds.on_change(self._crd_changed)
        manager.background(self._follow_all)

    def _crd_changed(self, kind: str, crd: Obj, old: Obj | None) -> None:
        if old is None or kind == "DELETED" or old.get("spec") != crd.get("spec"):
            self._changed.set()

    async def _follow_all(self) -> None:
        """Start an informer for each kind that appears; stop those of kinds that went."""
        delay = FIRST_RETRY
        async with asyncio.TaskGroup() as group:
            while True:
                await self._changed.wait()
                self._changed.clear()
                try:
                    kinds = await discover(self._client)
                except (ApiError, httpx.HTTPError) as error:
                    log.info("discovery: %s; again in %.2f s", error, delay)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, LONGEST_RETRY)
                    self._changed.set()
                    continue
                delay = FIRST_RETRY
                self._kinds = {(item.api_version, item.kind): item for item in kinds}
                for resource in kinds:
                    if resource not in self._followed:
                        running = self._manager.has_informer(resource)
                        self._followed[resource] = group.create_task(self._follow(resource, running=running))
                for resource in self._followed.keys() - set(kinds):
                    self._followed.pop(resource).cancel()
                await self._settle(kinds)

    async def _settle(self, kinds: list[Resource]) -> None:
        """Judge nobody before all kinds are known; a kind that cannot be listed holds nothing up for long."""
        synced = [asyncio.ensure_future(self._manager.informer(item).synced()) for item in kinds]
        _, late = await asyncio.wait(synced, timeout=FIRST_LISTS)
        for waiting in late:
            waiting.cancel()
        self._settled.set()

    async def _follow(self, resource: Resource, *, running: bool) -> None:
        informer = self._manager.informer(resource)
        informer.on_change(partial(self._seen, resource))
        for obj in list(informer.store.values()):
            self._seen(resource, "ADDED", obj, None)
        if not running:
            await informer.run()

    def _seen(self, resource: Resource, kind: str, obj: Obj, old: Obj | None) -> None:
        uid = uid_of(obj)
        if kind == "DELETED":
            self._forget(uid, obj)
            return
        known = self._objects.get(uid)
        owners = _owners(obj)
        if known is not None:
            for owner in _owners(known[1]) - owners:
                self._dependents.get(owner, set()).discard(uid)
        self._objects[uid] = (resource, obj)
        for owner in owners:
            self._dependents.setdefault(owner, set()).add(uid)
        if deleting(obj):
            if {FOREGROUND, ORPHAN} & set(obj["metadata"].get("finalizers") or []):
                self._loop.queue.add(uid)
        elif any(owner not in self._objects or deleting(self._objects[owner][1]) for owner in owners):
            self._loop.queue.add(uid)

    def _forget(self, uid: str, obj: Obj) -> None:
        self._objects.pop(uid, None)
        for dependent in self._dependents.pop(uid, set()):
            self._loop.queue.add(dependent)
        for owner in _owners(obj):
            members = self._dependents.get(owner)
            if members is not None:
                members.discard(uid)
            if owner in self._objects and deleting(self._objects[owner][1]):
                self._loop.queue.add(owner)  # it may have waited for this one

    async def reconcile(self, uid: str) -> float | None:
        """Decide about one object: let it be, drop dead references, delete it, or finish its own deletion."""
        await self._settled.wait()
        known = self._objects.get(uid)
        if known is None:
            return None
        resource, obj = known
        finalizers = obj["metadata"].get("finalizers") or []
        if deleting(obj):
            if ORPHAN in finalizers:
                await self._orphan(resource, obj)
            elif FOREGROUND in finalizers:
                await self._foreground(resource, obj)
            return None
        solid, dead = await self._judge(obj)
        if not dead:
            return None
        if solid:
            await self._drop_references(resource, obj, dead)
        else:
            await self._delete(resource, obj)
        return None

    async def _judge(self, obj: Obj) -> tuple[list[Obj], set[str]]:
        """Split the owners into those that stay and the uids of those that are gone or going in the foreground."""
        solid, dead = [], set()
        for reference in obj["metadata"].get("ownerReferences") or []:
            owner = self._objects.get(reference["uid"])
            if owner is not None:
                waiting = deleting(owner[1]) and FOREGROUND in (owner[1]["metadata"].get("finalizers") or [])
                gone = waiting and bool(reference.get("blockOwnerDeletion"))
            else:
                gone = await self._absent(reference, key_of(obj)[0])
            if gone:
                dead.add(reference["uid"])
            else:
                solid.append(reference)
        return solid, dead

    async def _absent(self, reference: Obj, namespace: str) -> bool:
        resource = self._kinds.get((reference["apiVersion"], reference["kind"]))
        if resource is None:
            return False  # of a kind we cannot ask about: rather keep too much
        try:
            there = await self._client.get(resource.path(namespace if resource.namespaced else "", reference["name"]))
        except ApiError as error:
            if error.status != 404:
                raise
            return True
        return uid_of(there) != str(reference["uid"])

    async def _drop_references(self, resource: Resource, obj: Obj, dead: set[str]) -> None:
        kept = [item for item in obj["metadata"]["ownerReferences"] if item["uid"] not in dead]
        change = {"metadata": {"ownerReferences": kept, "resourceVersion": obj["metadata"]["resourceVersion"]}}
        await self._client.patch(resource.of(obj), change)

    async def _delete(self, resource: Resource, obj: Obj) -> None:
        has_blocking = any(self._blocks(item, uid_of(obj)) for item in self._dependents.get(uid_of(obj), ()))
        waiting = any(owner in self._objects and deleting(self._objects[owner][1]) for owner in _owners(obj))
        policy = "Foreground" if waiting and has_blocking else "Background"
        options = {"preconditions": {"uid": uid_of(obj)}, "propagationPolicy": policy}
        try:
            await self._client.delete(resource.of(obj), options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        log.debug("collected %s %s", resource.kind, key_of(obj))

    def _blocks(self, dependent: str, owner: str) -> bool:
        known = self._objects.get(dependent)
        if known is None:
            return False
        references = known[1]["metadata"].get("ownerReferences") or []
        return any(item["uid"] == owner and item.get("blockOwnerDeletion") for item in references)

    async def _foreground(self, resource: Resource, obj: Obj) -> None:
        """Delete what holds the object up; when nothing does any more, let it go."""
        blocking = [item for item in self._dependents.get(uid_of(obj), ()) if self._blocks(item, uid_of(obj))]
        if not blocking:
            await self._remove_finalizer(resource, obj, FOREGROUND)
            return
        for dependent in blocking:
            if not deleting(self._objects[dependent][1]):
                self._loop.queue.add(dependent)

    async def _orphan(self, resource: Resource, obj: Obj) -> None:
        for dependent in list(self._dependents.get(uid_of(obj), ())):
            known = self._objects.get(dependent)
            if known is not None:
                await self._drop_references(*known, {uid_of(obj)})
        await self._remove_finalizer(resource, obj, ORPHAN)

    async def _remove_finalizer(self, resource: Resource, obj: Obj, name: str) -> None:
        left = [item for item in obj["metadata"].get("finalizers") or [] if item != name]
        change = {"metadata": {"finalizers": left, "resourceVersion": obj["metadata"]["resourceVersion"]}}
        try:
            await self._client.patch(resource.of(obj), change)
        except ApiError as error:
            if error.status != 404:
                raise


def _owners(obj: Obj) -> set[str]:
    return {item["uid"] for item in obj["metadata"].get("ownerReferences") or []}
