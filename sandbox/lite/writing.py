"""Create, update and patch: from what was sent to what is stored."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import orjson

from sandbox.lite import errors, names, patch
from sandbox.lite.admission import Change, admit, mutate
from sandbox.lite.apply import apply, now, track_update
from sandbox.lite.cluster import Cluster, versioned
from sandbox.lite.defaults import fill_builtin
from sandbox.lite.replies import Reply
from sandbox.lite.requests import APPLY, JSON_PATCH, MERGE, STRATEGIC, Request
from sandbox.lite.resources import Resource
from sandbox.lite.structural import drop_nulls, fill_defaults, missing, prune, type_error, validator
from sandbox.lite.validation import updated, validate

Obj = dict[str, Any]

_LOOSE = ("", "core.v1.Event", "events.v1.Event")  # kinds whose required fields are not checked


def create(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """POST: make a new object."""
    obj = _object(resource, request, request.parsed())
    if obj["metadata"].get("resourceVersion"):
        raise errors.bad_request("resourceVersion should not be set on objects to be created")
    return _reply(resource, request, create_object(cluster, resource, request, obj), 201)


def create_object(cluster: Cluster, resource: Resource, request: Request, obj: Obj, *, applied: bool = False) -> Obj:
    """Store a new object and return it."""
    meta = obj["metadata"]
    if not meta.get("name"):
        if not meta.get("generateName"):
            wanted = errors.required("metadata.name", "name or generateName is required")
            raise errors.invalid(resource.group, resource.kind, "", [wanted])
        meta["name"] = names.generate(meta["generateName"])
        generated = True
    else:
        generated = False
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        meta.pop(field, None)
    meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
    if resource.generation:
        meta["generation"] = 1
    if resource.has_status and resource.plural not in ("nodes",) and not applied:
        obj.pop("status", None)
    change = Change(cluster, resource, request, obj, None, generated)
    _settle(change, tracked=not applied)
    existing = cluster.find(resource, request.namespace, meta["name"])
    if existing is not None:
        raise errors.already_exists(resource.group, resource.plural, meta["name"])
    admit(change)
    if request.dry_run:
        return obj
    return cluster.storage.put(resource.storage_key, obj).obj


def update(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """PUT: replace an object, or its status."""
    sent = _object(resource, request, request.parsed())
    live = cluster.require(resource, request.namespace, request.name).obj
    meta = sent["metadata"]
    if meta.get("uid") not in (None, "", live["metadata"]["uid"]):
        raise errors.conflict(
            resource.group, resource.plural, request.name,
            f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {live['metadata']['uid']}",
        )  # fmt: skip
    if resource.crd is not None and not meta.get("resourceVersion"):
        wanted = errors.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
        raise errors.invalid(resource.group, resource.kind, request.name, [wanted])
    stored = replace_object(cluster, resource, request, live, sent)
    return _reply(resource, request, stored, 200)


def patch_object(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """PATCH in any of its four forms."""
    kind = request.content_type
    if kind == APPLY:
        return _apply(cluster, resource, request)
    live = cluster.require(resource, request.namespace, request.name).obj
    change = _patcher(resource, kind)
    sent = request.parsed()
    if kind != JSON_PATCH and not isinstance(sent, dict):
        raise errors.bad_request("the patch is not an object")
    current = live | {"apiVersion": resource.api_version}
    patched = orjson.loads(orjson.dumps(change(current, sent)))
    obj = _object(resource, request, patched)
    obj["metadata"].setdefault("namespace", live["metadata"].get("namespace", ""))
    stored = replace_object(cluster, resource, request, live, obj)
    return _reply(resource, request, stored, 200)


def replace_object(
    cluster: Cluster, resource: Resource, request: Request, live: Obj, obj: Obj, *, applied: bool = False
) -> Obj:
    """Store the next state of an object and return it; the old state when nothing differs."""
    meta, before = obj["metadata"], live["metadata"]
    if meta.get("resourceVersion") not in (None, "", before["resourceVersion"]):
        raise errors.conflict(resource.group, resource.plural, before["name"], errors.MODIFIED)
    if meta.get("uid") not in (None, "", before["uid"]):
        wrong = errors.invalid_value("metadata.uid", meta["uid"], "field is immutable")
        raise errors.invalid(resource.group, resource.kind, before["name"], [wrong])
    if meta.get("name") != before["name"]:
        raise errors.bad_request("the name of the object does not match the name on the URL")
    obj = _keep_other_half(resource, request.subresource, live, obj)
    _keep_identity(obj["metadata"], before)
    change = Change(cluster, resource, request, obj, live)
    _settle(change, tracked=not applied)
    if resource.generation and _counts(resource, obj) != _counts(resource, live):
        obj["metadata"]["generation"] = before.get("generation", 0) + 1
    admit(change)
    if _unchanged(live, obj):
        return live
    if request.dry_run:
        return obj
    if obj["metadata"].get("deletionTimestamp") and finished(obj):
        return cluster.storage.remove(resource.storage_key, obj)
    return cluster.storage.put(resource.storage_key, obj).obj


def finished(obj: Obj) -> bool:
    """Whether nothing holds an object that is being deleted."""
    meta = obj["metadata"]
    held = meta.get("finalizers") or (obj["kind"] == "Namespace" and obj.get("spec", {}).get("finalizers"))
    return not held and not meta.get("deletionGracePeriodSeconds")


def _apply(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """Server-side apply: create or join."""
    if not request.query.get("fieldManager"):
        wanted = errors.required("fieldManager", "is required for apply patch")
        raise errors.invalid("meta.k8s.io", "PatchOptions", "", [wanted])
    sent = request.parsed()
    if not isinstance(sent, dict):
        raise errors.bad_request("error decoding YAML: the body is not an object")
    _check_kind(resource, sent)
    config = _with_meta(resource, request, sent)
    if config["metadata"].get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    stored = cluster.find(resource, request.namespace, request.name)
    live = stored.obj | {"apiVersion": resource.api_version} if stored else None
    manager, force = request.query["fieldManager"], request.flag("force")
    if live is None:
        if request.subresource:
            raise errors.not_found(resource.group, resource.plural, request.name)
        return _apply_new(cluster, resource, request, config, manager, force)
    version = config["metadata"].get("resourceVersion")
    if version and version != live["metadata"]["resourceVersion"]:
        raise errors.conflict(resource.group, resource.plural, request.name, errors.MODIFIED)
    result = apply(resource, live, config, manager, force=force, subresource=request.subresource)
    if result is live:
        return _reply(resource, request, live, 200)
    result = orjson.loads(orjson.dumps(result))
    return _reply(resource, request, replace_object(cluster, resource, request, live, result, applied=True), 200)


def _apply_new(cluster: Cluster, resource: Resource, request: Request, config: Obj, manager: str, force: bool) -> Reply:
    uid = config["metadata"].get("uid")
    if uid:
        why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise errors.conflict(resource.group, resource.plural, request.name, why)
    config["metadata"].pop("resourceVersion", None)
    obj = orjson.loads(orjson.dumps(apply(resource, None, config, manager, force=force)))
    return _reply(resource, request, create_object(cluster, resource, request, obj, applied=True), 201)


def _patcher(resource: Resource, kind: str) -> Callable[[Obj, Any], Any]:
    if kind == MERGE:
        return patch.merge_patch
    if kind == JSON_PATCH:
        return patch.json_patch
    if kind == STRATEGIC and resource.crd is None:
        return lambda target, sent: patch.strategic_merge(target, sent, resource.schema)
    allowed = [JSON_PATCH, MERGE, APPLY] if resource.crd else [JSON_PATCH, MERGE, STRATEGIC, APPLY]
    raise errors.unsupported_media_type(", ".join(allowed))


def _object(resource: Resource, request: Request, sent: Any) -> Obj:
    """Check that what was sent is an object of the right kind, and drop what its schema does not know."""
    if not isinstance(sent, dict):
        raise errors.bad_request("the body of the request is not an object")
    if "kind" not in sent or "apiVersion" not in sent:
        if resource.crd is not None:
            raise errors.bad_request(f"Object 'Kind' is missing in '{orjson.dumps(sent).decode()}'")
        sent = sent | {"apiVersion": resource.api_version, "kind": resource.kind}
    _check_kind(resource, sent)
    obj = _with_meta(resource, request, sent)
    if resource.crd is None and (wrong := type_error(obj, resource.schema)):
        raise errors.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {wrong}'
        )
    unknown = prune(obj, resource.schema)
    drop_nulls(obj, resource.schema)
    if unknown:
        _report_unknown(resource, request, unknown)
    return obj


def _report_unknown(resource: Resource, request: Request, unknown: list[str]) -> None:
    mode = request.query.get("fieldValidation", "Warn")
    words = [f'unknown field "{path}"' for path in sorted(unknown)]
    if mode == "Strict":
        raise errors.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {', '.join(words)}"
        )
    if mode == "Warn":
        request.warnings += words


def _check_kind(resource: Resource, sent: Obj) -> None:
    given = sent.get("apiVersion"), sent.get("kind")
    if given != (resource.api_version, resource.kind):
        raise errors.bad_request(
            f"the API version in the data ({given[0]}, Kind={given[1]}) does not match the expected API version "
            f"({resource.api_version}, Kind={resource.kind})"
        )


def _with_meta(resource: Resource, request: Request, sent: Obj) -> Obj:
    meta = sent.get("metadata")
    if not isinstance(meta, dict):
        meta = {}
    obj = sent | {"metadata": dict(meta)}
    meta = obj["metadata"]
    if resource.namespaced:
        if meta.get("namespace", request.namespace) not in ("", request.namespace):
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        meta["namespace"] = request.namespace
    else:
        meta.pop("namespace", None)
    if request.name and meta.get("name", request.name) != request.name:
        raise errors.bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({request.name})"
        )
    if request.name:
        meta["name"] = request.name
    return obj


def _settle(change: Change, *, tracked: bool) -> None:
    """Fill defaults, note who owns what, let admission complete the object, then check it. 422 when it is wrong.

    What admission adds is nobody's: ownership is noted before. An apply has noted its own.
    """
    resource, obj, request = change.resource, change.obj, change.request
    if not resource.namespaced:
        obj["metadata"].pop("namespace", None)
    _fill(change)
    if tracked:
        track_update(resource, change.old, obj, request.manager, request.subresource)
    mutate(change)
    _fill(change)
    if resource.crd is not None:
        causes = validator(resource).causes(obj)
    else:
        asked = {name: value for name, value in obj.items() if name != "status"}  # nobody checks what parts report
        causes = [] if resource.schema_name in _LOOSE else list(missing(asked, resource.schema))
    causes += validate(resource, obj)
    if change.old is not None:
        causes += updated(resource, change.old, obj, request.subresource)
    if causes:
        raise errors.invalid(resource.group, resource.kind, obj["metadata"]["name"], causes)


def _fill(change: Change) -> None:
    if change.resource.crd is not None:
        fill_defaults(change.obj, change.resource.schema)
    else:
        fill_builtin(change.resource, change.obj, change.old)


def _keep_other_half(resource: Resource, subresource: str, live: Obj, obj: Obj) -> Obj:
    """A write to status changes status alone, any other write all but status."""
    if not resource.has_status:
        return obj
    if subresource == "status":
        kept = orjson.loads(orjson.dumps(live))
        kept["apiVersion"] = obj["apiVersion"]
        kept["metadata"]["managedFields"] = obj["metadata"].get("managedFields") or []
        if "status" in obj:
            kept["status"] = obj["status"]
        else:
            kept.pop("status", None)
        return dict(kept)
    obj = dict(obj)
    obj.pop("status", None)
    if "status" in live:
        obj["status"] = orjson.loads(orjson.dumps(live["status"]))
    return obj


def _keep_identity(meta: Obj, before: Obj) -> None:
    for field in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds",
                  "namespace", "generateName"):  # fmt: skip
        if field in before:
            meta[field] = before[field]
        else:
            meta.pop(field, None)
    meta["resourceVersion"] = before["resourceVersion"]


def _counts(resource: Resource, obj: Obj) -> Obj:
    """What a new generation is counted for: everything but metadata and status."""
    return {k: v for k, v in obj.items() if k not in ("metadata", "status", "apiVersion", "kind")}


def _unchanged(live: Obj, obj: Obj) -> bool:
    """Whether two states differ at most in the times of their managed fields."""
    return _timeless(live) == _timeless(obj)


def _timeless(obj: Obj) -> Obj:
    meta = obj["metadata"]
    entries = [entry | {"time": ""} for entry in meta.get("managedFields") or ()]
    return obj | {"apiVersion": "", "metadata": meta | {"managedFields": entries}}


def _reply(resource: Resource, request: Request, obj: Obj, status: int) -> Reply:
    reply = Reply(status, versioned(resource, obj, orjson.dumps(obj)))
    if request.warnings:
        reply.headers["Warning"] = ", ".join(f'299 - "{_quoted(text)}"' for text in request.warnings)
    return reply


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
