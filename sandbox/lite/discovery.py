"""What this server tells clients about itself: versions, groups, resources, and where OpenAPI documents are."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import orjson

from sandbox.lite import errors, openapi
from sandbox.lite.cluster import Cluster
from sandbox.lite.replies import Reply
from sandbox.lite.requests import Request
from sandbox.lite.resources import Registry, Resource
from sandbox.lite.version import VERSION

Obj = dict[str, Any]

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_SUBRESOURCE_KINDS = {
    "scale": ("autoscaling", "v1", "Scale", ("get", "patch", "update")),
    "log": ("", "v1", "Pod", ("get",)),
    "binding": ("", "v1", "Binding", ("create",)),
    "eviction": ("policy", "v1", "Eviction", ("create",)),
    "token": ("authentication.k8s.io", "v1", "TokenRequest", ("create",)),
    "finalize": ("", "v1", "Namespace", ("update",)),
}


def answer(cluster: Cluster, request: Request) -> Reply:
    """Answer a GET of a path that names no resource. 404 for an unknown one."""
    parts = request.path.strip("/").split("/")
    registry = cluster.registry
    match parts:
        case ["version"]:
            return Reply.json(VERSION)
        case ["healthz" | "readyz" | "livez", *_]:
            return Reply.text("ok")
        case [""]:
            paths = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]
            return Reply.json({"paths": paths})
        case ["api"]:
            return _roots(request, registry, core=True)
        case ["apis"]:
            return _roots(request, registry, core=False)
        case ["api", "v1"]:
            return Reply.json(_resource_list(registry, "", "v1"))
        case ["apis", group] if group in _groups(registry):
            return Reply.json({"kind": "APIGroup", "apiVersion": "v1"} | _group(registry, group))
        case ["apis", group, version] if version in _groups(registry).get(group, ()):
            return Reply.json(_resource_list(registry, group, version))
        case ["openapi", "v3"]:
            return Reply.json(openapi.index(registry, _groups(registry)))
        case ["openapi", "v3", "api", "v1"]:
            return _document(cluster, request, "", "v1")
        case ["openapi", "v3", "apis", group, version] if version in _groups(registry).get(group, ()):
            return _document(cluster, request, group, version)
    raise errors.unknown_path()


def _document(cluster: Cluster, request: Request, group: str, version: str) -> Reply:
    """Answer with an OpenAPI document, packed where the client takes that, or with 304 when it has it already."""
    packed = cluster.documents.packed(cluster.registry, group, version)
    mark = f'"{hashlib.sha256(packed).hexdigest().upper()}"'
    if request.headers.get("if-none-match") == mark:
        return Reply(304, headers={"ETag": mark})
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Reply(200, packed, headers={"ETag": mark, "Vary": "Accept", "Content-Encoding": "gzip"})
    return Reply(200, gzip.decompress(packed), headers={"ETag": mark, "Vary": "Accept"})


def _groups(registry: Registry) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for resource in registry:
        versions = groups.setdefault(resource.group, [])
        if resource.version not in versions:
            versions.append(resource.version)
    return {group: sorted(versions, key=_age) for group, versions in groups.items()}


def _age(version: str) -> tuple[int, str]:
    """Put stable versions first, then betas, then alphas, newer before older."""
    rank = 2 if "alpha" in version else 1 if "beta" in version else 0
    return rank, "".join(chr(0x10FFFF - ord(letter)) for letter in version)


def _group(registry: Registry, group: str) -> Obj:
    versions = [{"groupVersion": f"{group}/{v}", "version": v} for v in _groups(registry)[group]]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _roots(request: Request, registry: Registry, *, core: bool) -> Reply:
    if "as=APIGroupDiscoveryList" in request.headers.get("accept", ""):
        names = [""] if core else sorted(set(_groups(registry)) - {""})
        items = [_aggregated(registry, name) for name in names]
        body = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}
        return Reply(200, orjson.dumps(body), _AGGREGATED)
    if core:
        addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": request.headers.get("host", "")}]
        return Reply.json({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses})
    groups = [_group(registry, name) for name in sorted(set(_groups(registry)) - {""})]
    return Reply.json({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})


def _aggregated(registry: Registry, group: str) -> Obj:
    versions = []
    for version in _groups(registry)[group]:
        resources = [_discovered(r) for r in registry if (r.group, r.version) == (group, version)]
        versions.append({"version": version, "freshness": "Current", "resources": resources})
    meta: Obj = {"creationTimestamp": None} | ({"name": group} if group else {})
    return {"metadata": meta, "versions": versions}


def _discovered(resource: Resource) -> Obj:
    subresources = [
        {"subresource": name, "responseKind": _response_kind(resource, name), "verbs": list(_sub_verbs(name))}
        for name in resource.subresources
    ]
    found = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
        "shortNames": list(resource.short_names),
        "categories": list(resource.categories),
        "subresources": subresources,
    }
    return {key: value for key, value in found.items() if value}


def _response_kind(resource: Resource, name: str) -> Obj:
    own = (resource.group, resource.version, resource.kind, ())
    group, version, kind, _ = _SUBRESOURCE_KINDS.get(name, own)
    return {"group": group, "version": version, "kind": kind}


def _sub_verbs(name: str) -> tuple[str, ...]:
    return _SUBRESOURCE_KINDS[name][3] if name in _SUBRESOURCE_KINDS else ("get", "patch", "update")


def _resource_list(registry: Registry, group: str, version: str) -> Obj:
    items: list[Obj] = []
    for resource in registry:
        if (resource.group, resource.version) != (group, version):
            continue
        item = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
            "shortNames": list(resource.short_names),
            "categories": list(resource.categories),
        }
        items.append({key: value for key, value in item.items() if value not in ([], None)})
        for name in resource.subresources:
            sub = {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "verbs": list(_sub_verbs(name)),
            }
            items.append(sub | _response_kind(resource, name))
    whole = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": whole, "resources": items}
