"""The state of one lite cluster: storage, what it serves, who watches, and who may do what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from sandbox.lite import errors
from sandbox.lite.auth import Authorizer, Tokens
from sandbox.lite.openapi import Documents
from sandbox.lite.requests import Request
from sandbox.lite.resources import Registry, Resource
from sandbox.lite.schema import of_crd
from sandbox.lite.storage import Change, Storage, Stored
from sandbox.lite.structural import fill_defaults
from sandbox.lite.watch import Hub

Obj = dict[str, Any]

CRDS = "apiextensions.k8s.io/customresourcedefinitions"
_POLICY = "internalTrafficPolicy"


class Cluster:
    """Everything requests share. One event loop owns it; no method waits for anything."""

    def __init__(self, path: Path | str) -> None:
        self.storage = Storage(path)
        self.webhooks = True  # those of KServe, LeaderWorkerSet and KEDA are asked
        self.registry = Registry()
        self.documents = Documents()
        self.hub = Hub(self.storage)
        self.tokens = Tokens(self.storage)
        self.authorizer = Authorizer(self.storage)
        for stored in self.storage.all(CRDS):
            self._serve(stored.obj)
        self.storage.listen(self._follow_crds)

    def resource(self, request: Request) -> Resource:
        """Return what a request is about. 404 when this server does not serve it."""
        resource = self.registry.find(request.group, request.version, request.resource)
        if resource is None:
            raise errors.unknown_path()
        if resource.namespaced != bool(request.namespace) and not _allowed_scope(resource, request):
            raise errors.unknown_path()
        return resource

    def find(self, resource: Resource, namespace: str, name: str) -> Stored | None:
        """Return one object, if it exists."""
        return self.storage.get(resource.storage_key, namespace if resource.namespaced else "", name)

    def require(self, resource: Resource, namespace: str, name: str) -> Stored:
        """Return one object. 404 when it does not exist."""
        stored = self.find(resource, namespace, name)
        if stored is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return stored

    def read(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Return an object by storage key, for admission steps. Never change it in place."""
        stored = self.storage.get(kind, namespace, name)
        return stored.obj if stored else None

    def read_all(self, kind: str, namespace: str = "") -> list[Obj]:
        """Return all objects of a storage key, for admission steps. Never change them in place."""
        return [stored.obj for stored in self.storage.all(kind, namespace)]

    def close(self) -> None:
        """End all watches and close the database."""
        self.hub.close()
        self.storage.close()

    def _follow_crds(self, change: Change) -> None:
        if change.kind != CRDS:
            return
        name = change.obj["metadata"]["name"]
        if change.type == "DELETED":
            self.registry.drop_crd(name)
            spec = change.obj["spec"]
            self.hub.close(f"{spec['group']}/{spec['names']['plural']}")
        elif change.previous is None or change.previous["spec"] != change.obj["spec"]:
            self._serve(change.obj)

    def _serve(self, crd: Obj) -> None:
        """Serve what a CustomResourceDefinition describes; objects stored before are read with its defaults."""
        self.registry.put_crd(crd)
        spec = crd["spec"]
        stored = next(version for version in spec["versions"] if version["storage"])
        schema = of_crd(stored.get("schema", {}).get("openAPIV3Schema", {}))
        if schema.has_defaults:
            kind = f"{spec['group']}/{spec['names']['plural']}"
            self.storage.reread(kind, lambda obj: fill_defaults(obj, schema))


def versioned(resource: Resource, obj: Obj, body: bytes) -> bytes:
    """Encode an object for a reader of one version; custom resources convert by name alone."""
    seen = as_read(resource, obj)
    if resource.crd is None or obj["apiVersion"] == resource.api_version:
        return body if seen is obj else orjson.dumps(seen)
    return orjson.dumps(obj | {"apiVersion": resource.api_version})


def as_read(resource: Resource, obj: Obj) -> Obj:
    """Return an object as readers see it: of a Service that is but a name, a traffic policy is kept and not shown.

    So a patch of such a Service leaves the policy and who owns it alone, an update takes both away.
    """
    spec = obj.get("spec") or {}
    if resource.storage_key != "/services" or spec.get("type") != "ExternalName" or _POLICY not in spec:
        return obj
    return obj | {"spec": {name: value for name, value in spec.items() if name != _POLICY}}


def _allowed_scope(resource: Resource, request: Request) -> bool:
    """Namespaced collections can be read across namespaces; a Namespace carries its own name."""
    if resource.namespaced:
        return not request.name and request.verb in ("list", "watch")
    return resource.plural == "namespaces"
