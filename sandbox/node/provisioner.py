"""The provisioner behind the sandbox's storage class: makes a volume for each claim, and removes it with its content.

An ordinary client of the API server, as external provisioners are. Every node runs one beside its agent, as all nodes
share the files of claims: what one has done the others find done.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx

from sandbox.client import ApiError, Client, Reflector, resource_path
from sandbox.node.claims import Claims

log = logging.getLogger(__name__)

NAME = "files.sandbox.slipway.dev"
MARK = "volume.kubernetes.io/storage-provisioner"
MADE_BY = "pv.kubernetes.io/provisioned-by"
RETRY = 2.0


class Provisioner:
    """Follows claims and volumes of this provisioner."""

    def __init__(self, client: Client, claims: Claims) -> None:
        self._client = client
        self._claims = claims
        self._work: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Make and remove volumes until cancelled."""
        claims = Reflector(self._client, resource_path("v1", "persistentvolumeclaims"), on_change=self._claim_changed)
        volumes = Reflector(self._client, resource_path("v1", "persistentvolumes"), on_change=self._volume_changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(claims.run())
                group.create_task(volumes.run())
        finally:
            for task in self._work:
                task.cancel()

    def _claim_changed(self, kind: str, claim: dict[str, Any]) -> None:
        meta, spec = claim["metadata"], claim["spec"]
        mine = (meta.get("annotations") or {}).get(MARK) == NAME
        if kind != "DELETED" and mine and not spec.get("volumeName") and not meta.get("deletionTimestamp"):
            self._spawn(self._make(volume_for(claim)))

    def _volume_changed(self, kind: str, volume: dict[str, Any]) -> None:
        mine = (volume["metadata"].get("annotations") or {}).get(MADE_BY) == NAME
        released = (volume.get("status") or {}).get("phase") == "Released"
        if kind != "DELETED" and mine and released and not volume["metadata"].get("deletionTimestamp"):
            self._spawn(self._remove(volume))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _make(self, volume: dict[str, Any]) -> None:
        await self._until_done(lambda: self._client.create(resource_path("v1", "persistentvolumes"), volume), done=409)

    async def _remove(self, volume: dict[str, Any]) -> None:
        reference = volume["spec"].get("claimRef") or {}
        self._claims.remove(reference.get("namespace", ""), reference.get("name", ""))
        path = resource_path("v1", "persistentvolumes", name=volume["metadata"]["name"])
        options = {"preconditions": {"uid": volume["metadata"]["uid"]}}
        await self._until_done(lambda: self._client.delete(path, options), done=404)

    async def _until_done(self, call: Any, *, done: int) -> None:
        """Call until it works; the status `done` says that somebody else was faster."""
        while True:
            try:
                await call()
            except ApiError as error:
                if error.status in (done, 409):
                    return
                log.warning("volume: %s", error)
            except httpx.HTTPError as error:
                log.info("volume: %s", error or type(error).__name__)
            else:
                return
            await asyncio.sleep(RETRY)


def volume_for(claim: dict[str, Any]) -> dict[str, Any]:
    """The volume of a claim, kept for it alone."""
    meta, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{meta['uid']}"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {MADE_BY: NAME}},
        "spec": {
            "capacity": dict(spec["resources"]["requests"]),
            "accessModes": list(spec["accessModes"]),
            "volumeMode": spec.get("volumeMode", "Filesystem"),
            "storageClassName": spec.get("storageClassName", ""),
            "persistentVolumeReclaimPolicy": "Delete",
            "csi": {"driver": NAME, "volumeHandle": name},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
        },
    }
