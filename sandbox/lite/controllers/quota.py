"""ResourceQuotas: keeps `status.used` true as pods and other counted objects come and go."""

from __future__ import annotations

from sandbox.client import Obj
from sandbox.lite.controllers.meta import Key, key_of, pod_finished
from sandbox.lite.controllers.quota_usage import used
from sandbox.lite.controllers.resources import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
)
from sandbox.lite.controllers.runtime import Manager

_COUNTED = (PODS, SERVICES, CONFIG_MAPS, SECRETS, PERSISTENT_VOLUME_CLAIMS)


class QuotaController:
    """Writes what is used into each quota."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._quotas = manager.informer(RESOURCE_QUOTAS)
        self._quotas.index("namespace", lambda item: [item["metadata"]["namespace"]])
        self._counted = {resource.plural: manager.informer(resource) for resource in _COUNTED}
        self._loop = manager.controller("resourcequota", self.reconcile, workers=1)
        self._quotas.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        for informer in self._counted.values():
            informer.index("namespace", lambda item: [item["metadata"]["namespace"]])
            informer.on_change(self._counted_changed)

    def _counted_changed(self, kind: str, item: Obj, old: Obj | None) -> None:
        if old is not None and kind != "DELETED" and pod_finished(old) == pod_finished(item):
            return  # what was asked for does not change during a life
        for quota in self._quotas.by("namespace", item["metadata"]["namespace"]):
            self._loop.queue.add(key_of(quota))

    async def reconcile(self, key: Key) -> float | None:
        """Count again for one quota."""
        quota = self._quotas.get(*key)
        if quota is None:
            return None
        hard = (quota.get("spec") or {}).get("hard") or {}
        objects = {plural: informer.by("namespace", key[0]) for plural, informer in self._counted.items()}
        status = {"hard": hard, "used": used(hard, objects)}
        if quota.get("status") != status:
            body = {**quota, "status": status}
            self._quotas.remember(await self._client.update(f"{RESOURCE_QUOTAS.of(quota)}/status", body))
        return None
