"""Create and update: from what was sent to what is stored."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson

from sandbox.lite import decoding, errors, managers, names, options, rules
from sandbox.lite.admission import Change, admit, mutate
from sandbox.lite.apply import now, track_update
from sandbox.lite.checking.scales import wanted_replicas
from sandbox.lite.cluster import Cluster, versioned
from sandbox.lite.defaults import fill_builtin, prepare
from sandbox.lite.fields import TypedError
from sandbox.lite.replies import Reply
from sandbox.lite.requests import Request
from sandbox.lite.resources import Resource
from sandbox.lite.schema_validator import validator
from sandbox.lite.structural import fill_defaults, missing
from sandbox.lite.validation import checked_whole, content, validate

Obj = dict[str, Any]

_BLOCKING = (
    "FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid",
)  # fmt: skip
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)
_CONDITIONAL = ("policy/poddisruptionbudgets",)  # built-in kinds that no update replaces unseen
_RBAC = "rbac.authorization.k8s.io"
# Kinds of which an update makes the object where there is none.
_MADE_BY_UPDATE = (
    "/services", "/limitranges", "/endpoints", "/events", "coordination.k8s.io/leases", f"{_RBAC}/roles",
    f"{_RBAC}/clusterroles", f"{_RBAC}/rolebindings", f"{_RBAC}/clusterrolebindings",
)  # fmt: skip
_LOOSE = ("", "core.v1.Event", "events.v1.Event")  # kinds whose required fields are not checked


def create(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """POST: make a new object."""
    options.check_write(request)
    obj = decoding.read(resource, request)
    if obj["metadata"].get("resourceVersion"):
        raise errors.bad_request("resourceVersion should not be set on objects to be created")
    return reply(resource, create_object(cluster, resource, request, obj), 201)


def create_object(cluster: Cluster, resource: Resource, request: Request, obj: Obj, *, applied: bool = False) -> Obj:
    """Store a new object and return it."""
    meta = obj["metadata"]
    if not meta.get("name"):
        generated = bool(meta.get("generateName"))
        unnamed = str(uuid.uuid4()) if resource.storage_key == "/limitranges" else ""
        meta["name"] = names.generate(meta["generateName"]) if generated else unnamed
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
    admit(change)
    existing = cluster.find(resource, request.namespace, meta["name"])
    if existing is not None:
        error = errors.already_exists(resource.group, resource.plural, meta["name"])
        if existing.obj["metadata"].get("deletionTimestamp"):
            error.message = f"object is being deleted: {error.message}"
        raise error
    if request.dry_run:
        return obj
    return cluster.storage.put(resource.storage_key, obj).obj


def update(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """PUT: replace an object, or its status."""
    options.check_write(request)
    sent = decoding.read(resource, request)
    meta = sent["metadata"]
    made = resource.storage_key in _MADE_BY_UPDATE and not request.subresource
    if made and cluster.find(resource, request.namespace, request.name) is None:
        if meta.get("uid"):
            raise _stranger(resource, request, meta["uid"], "")
        version_of(meta)  # nobody asks which it is, but a number it has to be
        if not request.dry_run:
            meta.pop("resourceVersion", None)
        return reply(resource, create_object(cluster, resource, request, sent), 201)
    live = cluster.require(resource, request.namespace, request.name).obj
    if meta.get("uid") not in (None, "", live["metadata"]["uid"]):
        raise _stranger(resource, request, meta["uid"], live["metadata"]["uid"])
    require_version(resource, meta, request.name)
    stored = replace_object(cluster, resource, request, live, sent)
    return reply(resource, stored, 200)


def require_version(resource: Resource, meta: Obj, name: str) -> None:
    """422 for an update that does not say which state it was made of, of a kind that wants it said."""
    if (resource.crd is not None or resource.storage_key in _CONDITIONAL) and version_of(meta) is None:
        wanted = errors.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
        raise errors.invalid(resource.group, resource.plural, name, [wanted])


def _stranger(resource: Resource, request: Request, wanted: str, found: str) -> errors.StatusError:
    """409 for an update of an object with another uid; it tells where etcd would keep it."""
    place = {"/services": "services/specs"}.get(resource.storage_key, resource.plural)
    place = f"{resource.group}/{place}" if resource.crd is not None else place
    key = "/".join(filter(None, (place, request.namespace, request.name)))
    root = "" if request.dry_run else "/registry"
    why = (
        f"StorageError: invalid object, Code: 4, Key: {root}/{key}, ResourceVersion: 0, AdditionalErrorMsg: "
        f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    )
    return errors.conflict(resource.group, resource.plural, request.name, why)


def replace_object(
    cluster: Cluster, resource: Resource, request: Request, live: Obj, obj: Obj, *, applied: bool = False
) -> Obj:
    """Store the next state of an object and return it; the old state when nothing differs."""
    meta, before = obj["metadata"], live["metadata"]
    if version_of(meta) not in (None, before["resourceVersion"]):
        raise errors.conflict(resource.group, resource.plural, before["name"], errors.MODIFIED)
    wrong = []
    if meta.get("uid") not in (None, "", before["uid"]):
        wrong.append(errors.invalid_value("metadata.uid", meta["uid"], "field is immutable"))
    if meta.get("name") != before["name"]:
        raise errors.bad_request("the name of the object does not match the name on the URL")
    obj = _keep_other_half(resource, request.subresource, live, obj)
    _keep_identity(obj["metadata"], before)
    change = Change(cluster, resource, request, obj, live)
    _settle(change, tracked=not applied, wrong=wrong)
    # A status write may change a Deployment's annotations, as its controller does, and is no new generation.
    whole = request.subresource != "status"
    if resource.generation and whole and _counts(resource, obj) != _counts(resource, live):
        obj["metadata"]["generation"] = before.get("generation", 0) + 1
    admit(change)
    if _unchanged(live, obj):
        return live
    if request.dry_run:
        return obj
    if obj["metadata"].get("deletionTimestamp") and finished(obj):
        cluster.storage.remove(resource.storage_key, live)  # the write that lets go is answered, but never stored
        return obj
    return cluster.storage.put(resource.storage_key, obj).obj


def version_of(meta: Obj) -> str | None:
    """Return the version that a writer has seen, None for whichever is there. 500 for what is no number."""
    text = meta.get("resourceVersion") or "0"
    if not text.isascii() or not text.isdigit():
        raise errors.StatusError(500, "", f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return text if int(text) else None


def finished(obj: Obj) -> bool:
    """Whether nothing holds an object that is being deleted."""
    meta = obj["metadata"]
    held = meta.get("finalizers") or (obj["kind"] == "Namespace" and obj.get("spec", {}).get("finalizers"))
    return not held and not meta.get("deletionGracePeriodSeconds")


def _settle(change: Change, *, tracked: bool, wrong: Sequence[errors.Cause] = ()) -> None:
    """Fill defaults, note who owns what, let admission complete the object, then check it. 422 when it is wrong.

    `wrong` is what was found before.

    What admission adds is nobody's: ownership is noted before. An apply has noted its own.
    """
    resource, obj, request = change.resource, change.obj, change.request
    if obj["kind"] != resource.kind:
        raise _of_another_kind(change)
    for name in ("labels", "annotations", "ownerReferences", "finalizers"):
        if not obj["metadata"].get(name):
            obj["metadata"].pop(name, None)
    if not resource.namespaced:
        obj["metadata"].pop("namespace", None)
    _fill(change)
    if tracked:
        with suppress(TypedError):  # validation tells what is wrong
            track_update(resource, change.old, obj, request.manager, request.subresource)
    mutate(change)
    _fill(change)
    if change.creating:
        prepare(resource, obj)
    causes = [*validate(resource, obj, change.old), *wrong]
    if resource.crd is not None:
        causes = _custom_causes(change, causes)
        if not causes:
            request.warnings += _advice(obj, change.old)
    else:
        if resource.schema_name not in _LOOSE and not checked_whole(resource):
            asked = {
                name: value for name, value in obj.items() if name not in ("metadata", "status")
            }  # nobody checks what parts report
            causes += missing(asked, resource.schema)
        causes += content(resource, obj, change.old, request.subresource)
    if causes:
        raise errors.invalid(resource.group, resource.kind, obj["metadata"]["name"], causes)


def _of_another_kind(change: Change) -> errors.StatusError:
    """422 for what is no such custom resource. Its schema is not asked; its lists and its CEL rules are checked."""
    resource, obj = change.resource, change.obj
    causes = [errors.invalid_value("kind", obj["kind"], f"must be {resource.kind}")]
    causes += rules.duplicates(obj, resource.schema)
    if rules.rules_of(resource) is not None:
        causes += rules.check(resource, obj, change.old).causes
    return errors.invalid(resource.group, obj["kind"], obj["metadata"]["name"], causes)


def _advice(obj: Obj, old: Obj | None) -> list[str]:
    """Warn of new finalizers of a custom resource that could be anybody's."""
    before = (old or {}).get("metadata", {}).get("finalizers") or ()
    text = "prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
    return [
        f"metadata.finalizers: {errors.spell(name)}: {text}"
        for name in obj["metadata"].get("finalizers") or ()
        if "/" not in name and name not in names.FINALIZERS and name not in before
    ]


def _custom_causes(change: Change, found: list[errors.Cause]) -> list[errors.Cause]:
    """Return what is wrong with a custom resource, by its metadata (`found`), schema and rules; those may warn."""
    resource, obj, old = change.resource, change.obj, change.old
    causes = found + validator(resource).causes(obj, old, change.request.subresource)
    if not change.request.subresource:
        causes += wanted_replicas(resource, obj)
    if old is None or not any(rules.duplicates(old, resource.schema)):
        causes += rules.duplicates(obj, resource.schema)
    if rules.rules_of(resource) is None:
        return causes
    if any(cause.reason in _BLOCKING for cause in causes):
        return [*causes, errors.Cause(errors.NOWHERE, "FieldValueInvalid", f"Invalid value: null: {_UNCHECKED}")]
    verdict = rules.check(resource, obj, old)
    change.request.warnings += verdict.warnings
    return causes + verdict.causes


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
        _take_metadata(resource, kept["metadata"], obj["metadata"])
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


def _take_metadata(resource: Resource, kept: Obj, sent: Obj) -> None:
    """Lay over `kept` what a write to status changes of metadata: all of it, but for what its kind holds back."""
    held = managers.held_back(resource)
    names = {*kept, *sent} if held is not None else {"managedFields"}
    for name in names - (held or set()):
        if sent.get(name):
            kept[name] = sent[name]
        else:
            kept.pop(name, None)


def _keep_identity(meta: Obj, before: Obj) -> None:
    for field in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds",
                  "namespace", "generateName"):  # fmt: skip
        if field in before:
            meta[field] = before[field]
        else:
            meta.pop(field, None)
    meta["resourceVersion"] = before["resourceVersion"]


def _counts(resource: Resource, obj: Obj) -> Obj:
    """What a new generation is counted for: everything but metadata and status, and a Deployment's annotations."""
    if resource.storage_key == "apps/deployments":
        return {"spec": obj.get("spec"), "annotations": obj["metadata"].get("annotations")}
    return {k: v for k, v in obj.items() if k not in ("metadata", "status", "apiVersion", "kind")}


def _unchanged(live: Obj, obj: Obj) -> bool:
    """Whether two states differ at most in the times of their managed fields."""
    return _timeless(live) == _timeless(obj)


def _timeless(obj: Obj) -> Obj:
    meta = obj["metadata"]
    entries = [entry | {"time": ""} for entry in meta.get("managedFields") or ()]
    return obj | {"apiVersion": "", "metadata": meta | {"managedFields": entries}}


def reply(resource: Resource, obj: Obj, status: int) -> Reply:
    """Answer with an object."""
    return Reply(status, versioned(resource, obj, orjson.dumps(obj)))
