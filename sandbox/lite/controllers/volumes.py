"""PersistentVolumeClaims and PersistentVolumes: which belong together, and who is to make what is missing.

As in the controller manager: a claim without a class gets the default one, one whose class has a provisioner is marked
for it, and claim and volume that name each other are bound. Volumes are made and removed by that provisioner.
"""

from __future__ import annotations

from sandbox.client import Obj
from sandbox.lite.controllers.meta import Key, annotations_of, deleting, key_of, uid_of
from sandbox.lite.controllers.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from sandbox.lite.controllers.runtime import Manager

SOURCE = "persistentvolume-controller"
DEFAULT = "storageclass.kubernetes.io/is-default-class"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
OLD_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
COMPLETED, BY_CONTROLLER = "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"
NO_VOLUME = "no persistent volumes available for this claim and no storage class is set"
WAITING = (
    "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system "
    "administrator. If volume creation is delayed, please verify that the provisioner is running and correctly "
    "registered."
)


class VolumeBinder:
    """Binds claims to volumes, and lets volumes go whose claim is gone."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._recorder = manager.recorder
        self._claims = manager.informer(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = manager.informer(PERSISTENT_VOLUMES)
        self._classes = manager.informer(STORAGE_CLASSES)
        self._volumes.index("claim", lambda volume: [claim_of(volume)])
        self._of_claims = manager.controller("volume-binder", self.reconcile, workers=1)
        self._of_volumes = manager.controller("volume-releaser", self.release, workers=1)
        self._claims.on_change(self._claim_changed)
        self._volumes.on_change(self._volume_changed)

    def _claim_changed(self, kind: str, claim: Obj, old: Obj | None) -> None:
        self._of_claims.queue.add(key_of(claim))
        for volume in self._volumes.by("claim", "/".join(key_of(claim))):
            self._of_volumes.queue.add(key_of(volume))

    def _volume_changed(self, kind: str, volume: Obj, old: Obj | None) -> None:
        namespace, _, name = claim_of(volume).partition("/")
        self._of_claims.queue.add((namespace, name))
        self._of_volumes.queue.add(key_of(volume))

    async def reconcile(self, key: Key) -> float | None:
        """Bring one claim further: its class, its provisioner, its volume."""
        claim = self._claims.get(*key)
        if claim is None or deleting(claim) or claim.get("status", {}).get("phase") == "Bound":
            return None
        volume = next((item for item in self._volumes.by("claim", "/".join(key)) if fits(item, claim)), None)
        if volume is not None:
            await self._bind(claim, volume)
            return None
        wanted = self._with_class(claim)
        if wanted != claim:
            self._claims.remember(await self._client.update(PERSISTENT_VOLUME_CLAIMS.of(claim), wanted))
        named = annotations_of(wanted).get(PROVISIONER)
        if named:
            await self._recorder.record(claim, "Normal", "ExternalProvisioning", WAITING.format(named), SOURCE)
        elif not wanted["spec"].get("volumeName"):
            await self._recorder.record(claim, "Normal", "FailedBinding", NO_VOLUME, SOURCE)
        return None

    def _with_class(self, claim: Obj) -> Obj:
        """The claim with the class it gets where it names none, and marked for the provisioner of its class."""
        name = claim["spec"].get("storageClassName")
        if name is None:
            name = default_class(list(self._classes.store.values()))
        if not name:
            return claim
        spec = {**claim["spec"], "storageClassName": name}
        found = self._classes.get("", name)
        marks = {} if found is None else dict.fromkeys((PROVISIONER, OLD_PROVISIONER), found["provisioner"])
        notes = {**annotations_of(claim), **marks}
        metadata = {**claim["metadata"], "annotations": notes} if notes else claim["metadata"]
        return {**claim, "metadata": metadata, "spec": spec}

    async def _bind(self, claim: Obj, volume: Obj) -> None:
        reference = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim["metadata"]["namespace"],
            "name": claim["metadata"]["name"],
            "uid": uid_of(claim),
        }
        body = {**volume, "spec": {**volume["spec"], "claimRef": {**volume["spec"]["claimRef"], **reference}}}
        stored = await self._client.update(PERSISTENT_VOLUMES.of(volume), body)
        await self._say_phase(stored, "Bound")
        notes = {**annotations_of(claim), COMPLETED: "yes", BY_CONTROLLER: "yes"}
        spec = {**claim["spec"], "volumeName": volume["metadata"]["name"]}
        bound = {**claim, "metadata": {**claim["metadata"], "annotations": notes}, "spec": spec}
        path = PERSISTENT_VOLUME_CLAIMS.of(claim)
        fresh = await self._client.update(path, bound)
        status = {
            "phase": "Bound",
            "accessModes": volume["spec"].get("accessModes") or [],
            "capacity": volume["spec"].get("capacity") or {},
        }
        self._claims.remember(await self._client.update(f"{path}/status", {**fresh, "status": status}))

    async def release(self, key: Key) -> float | None:
        """A volume whose claim is gone is released: it is never bound again."""
        volume = self._volumes.get(*key)
        if volume is None or deleting(volume):
            return None
        reference = volume["spec"].get("claimRef") or {}
        if not reference.get("uid") or volume.get("status", {}).get("phase") != "Bound":
            return None
        claim = self._claims.get(reference.get("namespace", ""), reference.get("name", ""))
        if claim is None or uid_of(claim) != reference["uid"]:
            await self._say_phase(volume, "Released")
        return None

    async def _say_phase(self, volume: Obj, phase: str) -> None:
        body = {**volume, "status": {**(volume.get("status") or {}), "phase": phase}}
        self._volumes.remember(await self._client.update(f"{PERSISTENT_VOLUMES.of(volume)}/status", body))


def claim_of(volume: Obj) -> str:
    """The claim that a volume is kept for, as namespace/name; “/” for none."""
    reference = volume["spec"].get("claimRef") or {}
    return f"{reference.get('namespace', '')}/{reference.get('name', '')}"


def fits(volume: Obj, claim: Obj) -> bool:
    """Whether a volume that names a claim is for this very one, and the claim wants no other."""
    reference = volume["spec"].get("claimRef") or {}
    wanted = claim["spec"].get("volumeName")
    mine = reference.get("uid") in (None, "", uid_of(claim))
    return mine and not deleting(volume) and wanted in (None, "", volume["metadata"]["name"])


def default_class(classes: list[Obj]) -> str | None:
    """The name of the class for claims that name none; the youngest where several say that they are it."""
    marked = [item for item in classes if annotations_of(item).get(DEFAULT) == "true"]
    newest = max(
        marked, key=lambda item: (item["metadata"].get("creationTimestamp", ""), item["metadata"]["name"]), default=None
    )
    return None if newest is None else str(newest["metadata"]["name"])
