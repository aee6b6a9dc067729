"""Namespaces: what each one has from birth, and how one goes, emptied first."""

from __future__ import annotations

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers.discovery import discover
from sandbox.lite.controllers.meta import Key, deleting, key_of
from sandbox.lite.controllers.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS, Resource
from sandbox.lite.controllers.runtime import Manager

FINALIZER = "kubernetes"
ROOT_CA = "kube-root-ca.crt"
LOOK_AGAIN = 1.0  # seconds between looks at a namespace that still holds something


class NamespaceController:
    """Gives each namespace its default ServiceAccount and the cluster's CA; empties one that is deleted."""

    def __init__(self, manager: Manager, authority: str) -> None:
        self._client = manager.client
        self._authority = authority
        self._namespaces = manager.informer(NAMESPACES)
        self._accounts = manager.informer(SERVICE_ACCOUNTS)
        self._config_maps = manager.informer(CONFIG_MAPS)
        self._left: dict[str, list[Resource]] = {}
        self._loop = manager.controller("namespace", self.reconcile)
        self._namespaces.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        self._accounts.on_change(self._birthright_changed)
        self._config_maps.on_change(self._birthright_changed)

    def _birthright_changed(self, kind: str, item: Obj, old: Obj | None) -> None:
        if item["metadata"]["name"] in ("default", ROOT_CA) and kind == "DELETED":
            self._loop.queue.add(("", item["metadata"]["namespace"]))

    async def reconcile(self, key: Key) -> float | None:
        """Equip a living namespace, empty a dying one."""
        namespace = self._namespaces.get(*key)
        if namespace is None:
            self._left.pop(key[1], None)
            return None
        if deleting(namespace):
            return await self._empty(namespace)
        await self._equip(key[1])
        return None

    async def _equip(self, name: str) -> None:
        if self._accounts.get(name, "default") is None:
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            await self._ensure(SERVICE_ACCOUNTS, name, account)
        known = self._config_maps.get(name, ROOT_CA)
        if self._authority and (known is None or (known.get("data") or {}).get("ca.crt") != self._authority):
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": ROOT_CA},
                "data": {"ca.crt": self._authority},
            }
            if known is None:
                await self._ensure(CONFIG_MAPS, name, body)
            else:
                await self._client.patch(CONFIG_MAPS.of(known), {"data": body["data"]})

    async def _ensure(self, resource: Resource, namespace: str, body: Obj) -> None:
        try:
            await self._client.create(resource.path(namespace), body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def _empty(self, namespace: Obj) -> float | None:
        """Delete everything in it; let it go when a look at every kind finds nothing."""
        name = namespace["metadata"]["name"]
        kinds = self._left.get(name) or [item for item in await discover(self._client) if item.namespaced]
        left = [resource for resource in kinds if await self._clear(resource, name)]
        if left:
            self._left[name] = left
            return LOOK_AGAIN
        if self._left.pop(name, None):
            return 0.0  # one full look again: something may have been created meanwhile
        if FINALIZER in (namespace.get("spec") or {}).get("finalizers", [FINALIZER]):
            others = [item for item in (namespace.get("spec") or {}).get("finalizers", []) if item != FINALIZER]
            body = {**namespace, "spec": {**(namespace.get("spec") or {}), "finalizers": others}}
            await self._client.update(f"{NAMESPACES.of(namespace)}/finalize", body)
        return None

    async def _clear(self, resource: Resource, namespace: str) -> bool:
        """Ask for the deletion of one kind; True while any of it is left."""
        path = resource.path(namespace)
        try:
            found = (await self._client.list(path))["items"]
            if any(not deleting(item) for item in found):
                await self._client.delete(path)
                found = (await self._client.list(path))["items"]
        except ApiError as error:
            if error.status not in (404, 405):  # the kind is gone, or its objects cannot be deleted
                raise
            return False
        return bool(found)
