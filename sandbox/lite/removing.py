"""Delete: at once, or marked and finished when the last finalizer or the kubelet lets go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from sandbox.lite import errors
from sandbox.lite.admission.namespaces import may_be_deleted
from sandbox.lite.apply import now
from sandbox.lite.checking.common import not_one_of
from sandbox.lite.cluster import Cluster, versioned
from sandbox.lite.reading import listed
from sandbox.lite.replies import Reply, success
from sandbox.lite.requests import Request
from sandbox.lite.resources import Resource
from sandbox.lite.selectors import Selection
from sandbox.lite.writing import finished

Obj = dict[str, Any]

# Kinds whose last state is the answer to a delete that takes them away at once; others are answered with a Status.
_SHOWN_GONE = "/pods", "/services", "/serviceaccounts", "/resourcequotas", "/persistentvolumeclaims"
_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


def delete(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """DELETE one object."""
    options = _options(request)
    live = cluster.require(resource, request.namespace, request.name).obj
    obj, gone = delete_object(cluster, resource, live, options, dry_run=_dry(request, options))
    if gone and resource.storage_key not in _SHOWN_GONE:
        meta = live["metadata"]
        return Reply.json(success(resource.group, resource.plural, meta["name"], meta["uid"]))
    return Reply(200, versioned(resource, obj, orjson.dumps(obj)))


def delete_collection(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """DELETE all objects a selection takes in."""
    options = _options(request)
    selection = Selection(
        resource,
        request.namespace if resource.namespaced else "",
        "",
        request.query.get("labelSelector", ""),
        request.query.get("fieldSelector", ""),
    )
    chosen = [s for s in cluster.storage.all(resource.storage_key, request.namespace) if selection.matches(s.obj)]
    dry, version = _dry(request, options), str(cluster.storage.rv)
    items = b",".join(listed(resource, stored) for stored in chosen)  # as they were
    for stored in chosen:
        delete_object(cluster, resource, stored.obj, options, dry_run=dry)
    meta = {"resourceVersion": version} | ({"continue": ""} if resource.crd is not None else {})
    head = orjson.dumps({"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": meta})
    return Reply(200, head[:-1] + b',"items":[' + items + b"]}")


def delete_object(
    cluster: Cluster, resource: Resource, live: Obj, options: Obj, *, dry_run: bool = False
) -> tuple[Obj, bool]:
    """Remove an object or mark it; returns its state and whether it is gone."""
    _check_preconditions(resource, live, options.get("preconditions") or {})
    if resource.storage_key == "/namespaces":
        may_be_deleted(live["metadata"]["name"])
    obj: Obj = orjson.loads(orjson.dumps(live))
    meta = obj["metadata"]
    _add_finalizer(meta, options)
    grace = _grace(resource, obj, options)
    if not meta.get("deletionTimestamp"):
        meta["deletionTimestamp"] = (datetime.now(UTC) + timedelta(seconds=grace)).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta["deletionGracePeriodSeconds"] = grace
        if meta.get("generation"):
            meta["generation"] += 1
    elif grace < meta.get("deletionGracePeriodSeconds", 0):
        meta["deletionGracePeriodSeconds"] = grace
        if grace:
            meta["deletionTimestamp"] = (datetime.now(UTC) + timedelta(seconds=grace)).strftime("%Y-%m-%dT%H:%M:%SZ")
        else:
            meta["deletionTimestamp"] = now()
    if resource.storage_key == "/namespaces":
        obj["status"] = (obj.get("status") or {}) | {"phase": "Terminating"}
    if finished(obj):
        last = obj if resource.storage_key == "/pods" else live
        if not dry_run:
            if last is obj:  # a pod is marked first, even where nobody has to stop it
                last = cluster.storage.put(resource.storage_key, obj).obj
            last = cluster.storage.remove(resource.storage_key, last)
        return last, True
    if dry_run:
        return obj, False
    if obj == live:
        return live, False
    return cluster.storage.put(resource.storage_key, obj).obj, False


def _grace(resource: Resource, obj: Obj, options: Obj) -> int:
    """Return how many seconds a pod gets to stop; nothing else is given time."""
    if resource.storage_key != "/pods":
        return 0
    unbound = not obj["spec"].get("nodeName")
    if unbound or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.get("gracePeriodSeconds")
    seconds = obj["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked
    return 1 if int(seconds) < 0 else int(seconds)


def _add_finalizer(meta: Obj, options: Obj) -> None:
    wanted = _FINALIZERS.get(options.get("propagationPolicy") or "")
    if options.get("orphanDependents"):
        wanted = "orphan"
    others = [name for name in meta.get("finalizers") or () if name not in _FINALIZERS.values()]
    if options.get("propagationPolicy") or options.get("orphanDependents") is not None:
        meta["finalizers"] = others + ([wanted] if wanted else [])
    if not meta.get("finalizers"):
        meta.pop("finalizers", None)


def _check_preconditions(resource: Resource, live: Obj, wanted: Obj) -> None:
    meta = live["metadata"]
    for field, word, guess in (
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "modified"),
    ):
        if wanted.get(field) and wanted[field] != meta[field]:
            why = (
                f"the {word} in the precondition ({wanted[field]}) does not match the {word} in record "
                f"({meta[field]}). The object might have been {guess}"
            )
            raise errors.conflict(resource.group, resource.kind, meta["name"], why)


def _options(request: Request) -> Obj:
    options = request.parsed() if request.body else {}
    if not isinstance(options, dict):
        raise errors.bad_request("the DeleteOptions are not an object")
    options = dict(options)
    if "propagationPolicy" in request.query:
        options.setdefault("propagationPolicy", request.query["propagationPolicy"])
    if "gracePeriodSeconds" in request.query:
        options.setdefault("gracePeriodSeconds", request.number("gracePeriodSeconds", 0))
    policy = options.get("propagationPolicy")
    if policy not in (None, "", "Background", "Foreground", "Orphan"):
        causes = [
            not_one_of("propagationPolicy", policy, ("Foreground", "Background", "Orphan", "nil")),
        ]
        raise errors.invalid("meta.k8s.io", "DeleteOptions", "", causes)
    return options


def _dry(request: Request, options: Obj) -> bool:
    return request.dry_run or "All" in (options.get("dryRun") or ())
