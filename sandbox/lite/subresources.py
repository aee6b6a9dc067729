"""Doors beside the object itself: scale, binding, eviction, tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import ceil, floor
from typing import Any

import orjson

from sandbox.lite import decoding, errors, options, patching
from sandbox.lite.apply import apply, now
from sandbox.lite.applying import applied_object
from sandbox.lite.cluster import Cluster
from sandbox.lite.removing import delete_object
from sandbox.lite.replies import Reply
from sandbox.lite.requests import APPLY, Request
from sandbox.lite.resources import Resource
from sandbox.lite.selectors import lookup, match_labels
from sandbox.lite.writing import replace_object, reply

Obj = dict[str, Any]

_UNCONVERTIBLE = (
    "failed to convert new object (/{}; autoscaling/v1, Kind=Scale) to proper version: request to convert CR to an "
    "invalid group/version: autoscaling/v1"
)
_SCALE = Resource("autoscaling", "v1", "scales", "Scale", schema_name="autoscaling.v1.Scale")


def scale(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """GET, PUT or PATCH of a Scale."""
    if request.method == "PATCH":
        patching.check_type(_SCALE, request)
    if request.method != "GET":
        options.check_write(request)
    sent = decoding.read(_SCALE, request) if request.method == "PUT" else {}
    live = cluster.require(resource, request.namespace, request.name).obj
    current = _scale_of(resource, live)
    if request.method == "GET":
        return Reply.json(current)
    if request.method == "PATCH" and request.content_type == APPLY:
        return _apply_scale(cluster, resource, request, live)
    if request.method == "PATCH":
        sent = patching.patched(_SCALE, request, current)
    _check_replicas(resource, request, sent)
    version = sent["metadata"].get("resourceVersion")
    if version not in (None, "", live["metadata"]["resourceVersion"]):
        raise errors.conflict(resource.group, resource.plural, request.name, errors.MODIFIED)
    obj = orjson.loads(orjson.dumps(live))
    _set(obj, _paths(resource)["specReplicasPath"], (sent.get("spec") or {}).get("replicas", 0))
    return reply(_SCALE, _scale_of(resource, replace_object(cluster, resource, request, live, obj)), 200)


def _apply_scale(cluster: Cluster, resource: Resource, request: Request, live: Obj) -> Reply:
    """Apply a Scale: its manager comes to own the replicas of the scaled object, through this door."""
    sent = decoding.read(_SCALE, request)
    _check_replicas(_SCALE if resource.crd is not None else resource, request, sent)
    config: Obj = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": request.name, "namespace": request.namespace},
    }
    if "replicas" in (sent.get("spec") or {}):
        _set(config, _paths(resource)["specReplicasPath"], sent["spec"]["replicas"])
    if resource.crd is not None:  # kube-apiserver finds conflicts, and then cannot convert a Scale to the resource
        apply(resource, live, config, request.query["fieldManager"], force=request.flag("force"), subresource="scale")
        raise errors.StatusError(500, "", _UNCONVERTIBLE.format(request.name))
    obj = applied_object(cluster, resource, request, live, config)
    return reply(_SCALE, _scale_of(resource, obj), 200)


def _check_replicas(resource: Resource, request: Request, sent: Obj) -> None:
    replicas = (sent.get("spec") or {}).get("replicas", 0)
    if replicas < 0 and resource.crd is not None:
        wrong = errors.invalid_value(".spec.replicas", replicas, "should be a non-negative integer")
        raise errors.invalid(resource.group, resource.kind, request.name, [wrong])
    if replicas < 0:
        wrong = errors.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise errors.invalid("autoscaling", "Scale", request.name, [wrong])


def bind(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """POST of a Binding: put a pod on a node. 409 when it is on one already."""
    sent = request.parsed()
    target = (sent.get("target") or {}).get("name")
    name = request.name or (sent.get("metadata") or {}).get("name", "")
    pods = cluster.registry.find("", "v1", "pods")
    assert pods is not None
    live = cluster.require(pods, request.namespace, name).obj
    if not target:
        raise errors.invalid("", "Binding", name, [errors.required("target.name")])
    if live["metadata"].get("deletionTimestamp"):
        why = f"pod {name} is being deleted, cannot be assigned to a host"
        raise errors.conflict("", "pods/binding", name, why)
    if live["spec"].get("nodeName"):
        why = f'pod {name} is already assigned to node "{live["spec"]["nodeName"]}"'
        raise errors.conflict("", "pods/binding", name, why)
    obj = orjson.loads(orjson.dumps(live))
    obj["spec"]["nodeName"] = target
    conditions = [c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] != "PodScheduled"]
    conditions.append({"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()})
    obj.setdefault("status", {})["conditions"] = conditions
    if not request.dry_run:
        cluster.storage.put(pods.storage_key, obj)
    return Reply.json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)


def evict(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """POST of an Eviction: delete a pod if its disruption budget has room, else 429."""
    live = cluster.require(resource, request.namespace, request.name).obj
    sent = request.parsed() if request.body else {}
    phase = (live.get("status") or {}).get("phase")
    if phase not in ("Succeeded", "Failed", "Pending") and not live["metadata"].get("deletionTimestamp"):
        labels = live["metadata"].get("labels") or {}
        for budget in cluster.read_all("policy/poddisruptionbudgets", request.namespace):
            if match_labels(budget["spec"].get("selector"), labels):
                _spend(cluster, budget, request.name)
    delete_object(cluster, resource, live, sent.get("deleteOptions") or {}, dry_run=request.dry_run)
    return Reply.json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)


def token(cluster: Cluster, resource: Resource, request: Request) -> Reply:
    """POST of a TokenRequest for a ServiceAccount."""
    account = cluster.require(resource, request.namespace, request.name).obj
    sent = request.parsed() if request.body else {}
    spec = sent.get("spec") or {}
    seconds = int(spec.get("expirationSeconds") or 3600)
    if seconds < 600:
        wrong = errors.invalid_value(
            "spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"
        )
        raise errors.invalid("authentication.k8s.io", "TokenRequest", "", [wrong])
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = cluster.tokens.for_account(account, seconds, spec.get("audiences"))
    body = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": request.name, "namespace": request.namespace, "creationTimestamp": now()},
        "spec": spec | {"expirationSeconds": seconds},
        "status": {"token": text, "expirationTimestamp": expires},
    }
    return Reply.json(body, 201)


def healthy(pod: Obj) -> bool:
    """Whether a pod is ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _spend(cluster: Cluster, budget: Obj, pod_name: str) -> None:
    """Count what the budget still allows, from the pods as they are now."""
    namespace = budget["metadata"]["namespace"]
    spec = budget["spec"]
    pods = [
        pod
        for pod in cluster.read_all("/pods", namespace)
        if match_labels(spec.get("selector"), pod["metadata"].get("labels") or {})
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]
    ready = sum(healthy(pod) and not pod["metadata"].get("deletionTimestamp") for pod in pods)
    me = next((pod for pod in pods if pod["metadata"]["name"] == pod_name), None)
    if me is not None and not healthy(me) and spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return
    expected = len(pods)
    if spec.get("minAvailable") is not None:
        needed = _share(spec["minAvailable"], expected, up=True)
    else:
        needed = expected - _share(spec.get("maxUnavailable", 1), expected, up=True)
    if ready - 1 < needed:
        name = budget["metadata"]["name"]
        text = f"The disruption budget {name} needs {needed} healthy pods and has {ready} currently"
        raise errors.StatusError(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            details={"causes": [{"reason": "DisruptionBudget", "message": text}]},
        )


def _share(value: Any, total: int, *, up: bool) -> int:
    if isinstance(value, str) and value.endswith("%"):
        exact = total * int(value[:-1]) / 100
        return ceil(exact) if up else floor(exact)
    return int(value)


def _paths(resource: Resource) -> Obj:
    if resource.crd is not None:
        version = next(v for v in resource.crd["spec"]["versions"] if v["name"] == resource.version)
        paths: Obj = version["subresources"]["scale"]
        return paths
    return {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".spec.selector",
    }


def _scale_of(resource: Resource, obj: Obj) -> Obj:
    meta = obj["metadata"]
    paths = _paths(resource)
    selector = lookup(obj, paths.get("labelSelectorPath", ".spec.selector").lstrip("."))
    if isinstance(selector, dict):
        labels = selector.get("matchLabels") or {}
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    status = {"replicas": lookup(obj, paths["statusReplicasPath"].lstrip(".")) or 0}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")},
        "spec": {"replicas": lookup(obj, paths["specReplicasPath"].lstrip(".")) or 0},
        "status": status | ({"selector": selector} if selector else {}),
    }


def _set(obj: Obj, path: str, value: Any) -> None:
    *parents, last = path.lstrip(".").split(".")
    for step in parents:
        obj = obj.setdefault(step, {})
    obj[last] = value
