"""PersistentVolumeClaims on their way out: each is let go when no pod uses it any more."""

from __future__ import annotations

from sandbox.client import ApiError, Obj
from sandbox.lite.controllers.meta import Key, claims_of, deleting, key_of, pod_finished
from sandbox.lite.controllers.resources import PERSISTENT_VOLUME_CLAIMS, PODS
from sandbox.lite.controllers.runtime import Manager
from sandbox.lite.defaults import CLAIM_FINALIZER


class ClaimProtection:
    """Takes the finalizer off a claim that is being deleted, as the controller manager does."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._claims = manager.informer(PERSISTENT_VOLUME_CLAIMS)
        self._pods = manager.informer(PODS)
        self._pods.index("claim", lambda pod: [f"{pod['metadata']['namespace']}/{name}" for name in claims_of(pod)])
        self._loop = manager.controller("claim-protection", self.reconcile, workers=1)
        self._claims.on_change(lambda kind, item, old: self._loop.queue.add(key_of(item)))
        self._pods.on_change(self._pod_changed)

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        for name in claims_of(pod):
            self._loop.queue.add((pod["metadata"]["namespace"], name))

    async def reconcile(self, key: Key) -> float | None:
        """Let one claim go when it may."""
        claim = self._claims.get(*key)
        held = (claim or {}).get("metadata", {}).get("finalizers") or []
        if claim is None or not deleting(claim) or CLAIM_FINALIZER not in held:
            return None
        if any(not pod_finished(pod) for pod in self._pods.by("claim", "/".join(key))):
            return None  # the pod's end wakes us
        left = [name for name in held if name != CLAIM_FINALIZER]
        body = {**claim, "metadata": {**claim["metadata"], "finalizers": left}}
        try:
            await self._client.update(PERSISTENT_VOLUME_CLAIMS.of(claim), body)
        except ApiError as error:
            if error.status != 404:
                raise
        return None


def is_bound(claim: Obj) -> bool:
    """Tell whether a claim has its volume."""
    return bool(claim.get("status", {}).get("phase") == "Bound")
