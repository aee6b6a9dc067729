"""PATCH: from a patch or an applied configuration to what is stored."""

from __future__ import annotations

from typing import Any

import orjson

from sandbox.lite import decoding, errors, options, patching
from sandbox.lite.admission import Change, admit
from sandbox.lite.apply import apply
from sandbox.lite.cluster import Cluster
from sandbox.lite.replies import Reply
from sandbox.lite.requests import APPLY, Request
from sandbox.lite.resources import Resource
from sandbox.lite.structural import drop_nulls
from sandbox.lite.writing import create_object, replace_object, reply, require_version

Obj = dict[str, Any]


def patch_object(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """PATCH in any of its four forms."""
    patching.check_type(resource, request)
    options.check_write(request)
    if request.content_type == APPLY:
        return _apply(cluster, resource, request)
    live = cluster.require(resource, request.namespace, request.name).obj
    obj = patching.patched(resource, request, live | {"apiVersion": resource.api_version})
    require_version(resource, obj["metadata"], request.name)
    stored = replace_object(cluster, resource, request, live, obj)
    return reply(resource, stored, 200)


def _apply(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """Server-side apply: create or join."""
    sent = request.parsed()
    if not isinstance(sent, dict):
        raise errors.bad_request("error decoding YAML: the body is not an object")
    stored = cluster.find(resource, request.namespace, request.name)
    if stored is None and request.subresource:
        raise errors.not_found(resource.group, resource.plural, request.name)
    if stored is None:
        _refuse_uid(resource, request, sent)
    live = stored.obj | {"apiVersion": resource.api_version} if stored else None
    if live is not None:
        _refuse_conflicts(resource, request, live, sent)
    config = _named(resource, request, sent)
    if config["metadata"].get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    if live is None:
        if not (sent.get("metadata") or {}).get("name"):
            raise decoding.nameless(request)
        return _apply_new(cluster, resource, request, config)
    return reply(resource, applied_object(cluster, resource, request, live, config), 200)


def applied_object(cluster: Cluster, resource: Resource, request: Request, live: Obj, config: Obj) -> Obj:
    """Apply a configuration to an object and return its new state; the old one when nothing changed."""
    manager, force = request.query.get("fieldManager", ""), request.flag("force")
    result = apply(resource, live, config, manager, force=force, subresource=request.subresource)
    version = config["metadata"].get("resourceVersion")
    if version and version != live["metadata"]["resourceVersion"]:
        raise errors.conflict(resource.group, resource.plural, request.name, errors.MODIFIED)
    if result is live:
        admit(Change(cluster, resource, request, live, live))  # what it is warned of, it is warned of again
        return live
    return replace_object(cluster, resource, request, live, _copied(resource, result), applied=True)


def _copied(resource: Resource, applied: Obj) -> Obj:
    """A copy of what an apply made, of a built-in kind without what is empty."""
    obj: Obj = orjson.loads(orjson.dumps(applied))
    if resource.crd is None:
        drop_nulls(obj, resource.schema)
    return obj


def _named(resource: Resource, request: Request, sent: Obj) -> Obj:
    """Return an applied configuration with the name on the URL where it has none, and the namespace it gave."""
    _check_type(resource, sent)
    given = (sent.get("metadata") or {}).get("namespace")
    config = decoding.with_meta(resource, request, sent)
    if given is None:
        config["metadata"].pop("namespace", None)  # complaints show the namespace only where it was given
    return config


def _check_type(resource: Resource, sent: Obj) -> None:
    if (sent.get("apiVersion"), sent.get("kind")) != (resource.api_version, resource.kind):
        version = str(sent.get("apiVersion") or "")
        shown = version if "/" in version else f"/{version}"
        raise errors.bad_request(f"invalid object type: {shown}, Kind={sent.get('kind') or ''}")


def _apply_new(cluster: Cluster, resource: Resource, request: Request, config: Obj) -> Reply:
    manager, force = request.query["fieldManager"], request.flag("force")
    obj = _copied(resource, apply(resource, None, config, manager, force=force))
    if not request.dry_run:
        obj["metadata"].pop("resourceVersion", None)
    if resource.namespaced:
        obj["metadata"]["namespace"] = request.namespace
    return reply(resource, create_object(cluster, resource, request, obj, applied=True), 201)


def _refuse_conflicts(resource: Resource, request: Request, live: Obj, sent: Obj) -> None:
    """409 for an apply to another place than it says, where it conflicts too: that is found first."""
    meta = sent.get("metadata")
    if not isinstance(meta, dict):
        return
    named = meta.get("name") in (None, "", request.name)
    placed = not resource.namespaced or meta.get("namespace") in (None, "", request.namespace)
    if named and placed:
        return
    _check_type(resource, sent)
    config = sent | {"metadata": meta | ({"namespace": request.namespace} if resource.namespaced else {})}
    manager, force = request.query["fieldManager"], request.flag("force")
    apply(resource, live, config, manager, force=force, subresource=request.subresource)


def _refuse_uid(resource: Resource, request: Request, sent: Obj) -> None:
    """409 for an apply that names the uid of an object that is not there, said before its place is looked at."""
    meta = sent.get("metadata")
    uid = meta.get("uid") if isinstance(meta, dict) else None
    _check_type(resource, sent)
    if uid:
        apply(resource, None, sent, request.query["fieldManager"], force=request.flag("force"))  # it fits its schema
        why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise errors.conflict(resource.group, resource.plural, request.name, why)
