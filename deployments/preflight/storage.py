"""Which storage class keeps weights that are fetched ahead, and from how many nodes a claim of it can be mounted. Pure.

No API says whether volumes of a class can be mounted by several nodes at once; it follows from what makes them. For
those that are not known here an operator says so (`SLIPWAY_CACHE_CLASS`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MANY, ONE = "ReadWriteMany", "ReadWriteOnce"
DEFAULT = "storageclass.kubernetes.io/is-default-class"
# Drivers of shared file systems, by their names or the ends of them; Rook puts its namespace in front.
SHARED = (
    "nfs.csi.k8s.io",
    "cephfs.csi.ceph.com",
    "efs.csi.aws.com",
    "fsx.csi.aws.com",
    "filestore.csi.storage.gke.io",
    "lustre.csi.storage.gke.io",
    "file.csi.azure.com",
    "azurelustre.csi.azure.com",
    "spectrumscale.csi.ibm.com",
    "csi.weka.io",
    "beegfs.csi.netapp.com",
    "csi.juicefs.com",
    "nfs-subdir-external-provisioner",
    "files.sandbox.slipway.dev",
)

# What the sandbox has.
SANDBOX_STORAGE = [{"name": "sandbox-files", "provisioner": "files.sandbox.slipway.dev", "default": True}]


@dataclass(frozen=True)
class StorageFacts:
    """One storage class; `mode` is how a claim of it can be mounted."""

    name: str
    provisioner: str = ""
    is_default: bool = False
    mode: str = ONE

    @property
    def shared(self) -> bool:
        """True when several nodes can mount a claim at once."""
        return self.mode == MANY


def classes_in(listed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The storage classes of a cluster as they are kept: name, provisioner, and which is the default."""
    return [
        {
            "name": str(item["metadata"]["name"]),
            "provisioner": str(item.get("provisioner", "")),
            "default": (item["metadata"].get("annotations") or {}).get(DEFAULT) == "true",
        }
        for item in listed
    ]


def storage_of(kept: object, wanted: str = "") -> tuple[StorageFacts, ...] | None:
    """The classes that claims can be made of; `wanted` is what the operator says: a name, and perhaps “:” and a mode.

    None while they are not known.
    """
    name, _, mode = wanted.partition(":")
    if not isinstance(kept, list):
        return (StorageFacts(name, mode=mode or ONE),) if name else None
    found = [_facts(item) for item in kept if isinstance(item, Mapping)]
    if not name:
        return tuple(found)
    mine = next((item for item in found if item.name == name), None)
    return () if mine is None else (StorageFacts(name, mine.provisioner, mine.is_default, mode or mine.mode),)


def chosen(storage: Iterable[StorageFacts]) -> StorageFacts | None:
    """The class for weights: one that several nodes can mount before one that only one can, else the default."""
    return min(storage, key=lambda item: (not item.shared, not item.is_default, item.name), default=None)


def _facts(item: Mapping[str, Any]) -> StorageFacts:
    provisioner = str(item.get("provisioner", ""))
    shared = any(provisioner == name or provisioner.endswith((f".{name}", f"/{name}")) for name in SHARED)
    return StorageFacts(str(item.get("name", "")), provisioner, bool(item.get("default")), MANY if shared else ONE)
