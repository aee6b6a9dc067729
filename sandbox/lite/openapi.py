"""OpenAPI v3: what `kubectl apply`, `explain` and `diff` read. Schemas are real, descriptions are left out."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from typing import Any

import orjson

from sandbox.lite.requests import PATCHES, STRATEGIC
from sandbox.lite.resources import Registry, Resource
from sandbox.lite.schema import definitions
from sandbox.lite.version import VERSION

Obj = dict[str, Any]

_PREFIX = "#/components/schemas/"
_META = "meta.v1.ObjectMeta"
_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")


class Documents:
    """Documents made when they are first asked for, kept packed until a CustomResourceDefinition changes."""

    def __init__(self) -> None:
        self._revision = -1
        self._packed: dict[tuple[str, str], bytes] = {}

    def packed(self, registry: Registry, group: str, version: str) -> bytes:
        """Return a document as gzipped JSON."""
        if self._revision != registry.revision:
            self._packed.clear()
            self._revision = registry.revision
        if (group, version) not in self._packed:
            body = orjson.dumps(document(registry, group, version))
            self._packed[group, version] = gzip.compress(body, 6, mtime=0)
        return self._packed[group, version]


def index(registry: Registry, groups: dict[str, list[str]]) -> Obj:
    """Return where the document of each group and version is, with a hash that changes when CRDs do."""
    paths = {}
    for group, versions in groups.items():
        for version in versions:
            place = f"apis/{group}/{version}" if group else f"api/{version}"
            mark = hashlib.sha256(f"{place}/{registry.revision}".encode()).hexdigest()[:32].upper()
            paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={mark}"}
    return {"paths": paths}


def document(registry: Registry, group: str, version: str) -> Obj:
    """Return paths and schemas of one group and version."""
    paths: Obj = {}
    schemas: Obj = {}
    for resource in registry:
        if (resource.group, resource.version) != (group, version) or "patch" not in resource.verbs:
            continue
        gvk = {"group": group, "version": version, "kind": resource.kind}
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        name = _name(resource)
        paths[f"{resource.root}{scope}/{resource.plural}/{{name}}"] = {
            "get": _operation("get", gvk, name),
            "patch": _operation("patch", gvk, name, custom=resource.crd is not None),
        }
        schemas[name] = _schema(resource, schemas) | {"x-kubernetes-group-version-kind": [gvk]}
    info = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _name(resource: Resource) -> str:
    return resource.schema_name or f"{resource.group}.{resource.version}.{resource.kind}"


def _operation(action: str, gvk: Obj, name: str, *, custom: bool = False) -> Obj:
    operation: Obj = {
        "operationId": f"{action}{gvk['group']}{gvk['version']}{gvk['kind']}",
        "parameters": [
            {"name": word, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for word in _PARAMETERS
        ],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": f"{_PREFIX}{name}"}}}}
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
    }
    if action == "patch":
        kinds = [kind for kind in PATCHES if not custom or kind != STRATEGIC]  # kubectl apply goes by this
        operation["requestBody"] = {"content": {kind: {"schema": {}} for kind in kinds}}
    return operation


def _schema(resource: Resource, schemas: Obj) -> Obj:
    """Return the schema of a kind and add all it refers to."""
    if resource.crd_schema is not None:
        raw = dict(resource.crd_schema)
        raw["properties"] = {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            **raw.get("properties", {}),
            "metadata": {"$ref": _META},
        }
        raw.setdefault("type", "object")
    elif resource.schema_name:
        raw = definitions()[resource.schema_name]
    else:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for name in _references(raw):
        _add(name, schemas)
    found: Obj = _rewritten(raw)
    return found


def _add(name: str, schemas: Obj) -> None:
    if name in schemas:
        return
    raw = definitions()[name]
    schemas[name] = _rewritten(raw)
    for other in _references(raw):
        _add(other, schemas)


def _references(raw: Any) -> Iterator[str]:
    if isinstance(raw, list):
        for item in raw:
            yield from _references(item)
    elif isinstance(raw, dict):
        if isinstance(raw.get("$ref"), str):
            yield raw["$ref"]
        for value in raw.values():
            yield from _references(value)


def _rewritten(raw: Any, *, of_properties: bool = False) -> Any:
    if isinstance(raw, list):
        return [_rewritten(item) for item in raw]
    if not isinstance(raw, dict):
        return raw
    if isinstance(raw.get("$ref"), str):
        # a reference may have no siblings, and some readers want one in allOf
        return {"allOf": [{"$ref": _PREFIX + raw["$ref"]}], "default": {}}
    if of_properties:
        return {key: _rewritten(_free(value) if key in ("apiVersion", "kind") else value) for key, value in raw.items()}
    return {key: _rewritten(value, of_properties=key == "properties") for key, value in raw.items()}


def _free(raw: Any) -> Any:
    """Leave the one allowed value of apiVersion and kind out: kube-apiserver does not tell it either."""
    return {key: value for key, value in raw.items() if key != "enum"} if raw.get("type") == "string" else raw
