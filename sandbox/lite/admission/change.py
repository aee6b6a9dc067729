"""What admission steps look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.lite.requests import Request
from sandbox.lite.resources import Resource

if TYPE_CHECKING:
    from sandbox.lite.cluster import Cluster

Obj = dict[str, Any]


@dataclass
class Change:
    """One create (`old` is None) or update on its way to storage; steps change `obj` in place."""

    cluster: Cluster
    resource: Resource
    request: Request
    obj: Obj
    old: Obj | None
    generated: bool = False

    @property
    def creating(self) -> bool:
        """Whether the object is new."""
        return self.old is None

    @property
    def namespace(self) -> str:
        """The namespace of the object; empty for cluster-wide ones."""
        return str(self.obj["metadata"].get("namespace", ""))

    @property
    def shown_name(self) -> str:
        """The object's name in refusals."""
        return str(self.obj["metadata"]["name"]) or "Unknown"

    @property
    def asked_name(self) -> str:
        """The name as the client sent it: steps that run early know only its prefix."""
        meta = self.obj["metadata"]
        return str(meta["generateName"] if self.generated else meta["name"]) or "Unknown"

    def is_new(self, key: str) -> bool:
        """Whether this is the create of one kind, told by its storage key."""
        return self.old is None and self.resource.storage_key == key
