"""Whether a Gateway takes a route, whether its backends exist, and what the statuses say of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sandbox.client import Obj

GROUP = "gateway.networking.k8s.io"
CONTROLLER = "slipway.dev/sandbox-gateway"
POOL_GROUP = "inference.networking.k8s.io"
SUPPORTED_FILTERS = {"URLRewrite", "RequestHeaderModifier", "ResponseHeaderModifier"}


@dataclass(frozen=True)
class Known:
    """What deciding takes: our Gateways, all Services and InferencePools, and the labels of namespaces."""

    gateways: Mapping[tuple[str, str], Obj]
    services: Mapping[tuple[str, str], Obj]
    namespace_labels: Mapping[str, Mapping[str, str]]
    pools: Mapping[tuple[str, str], Obj] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One condition before it has a time: a status, its reason and a sentence."""

    status: str
    reason: str
    message: str


_REFUSED = Finding("False", "", "")


def our_gateways(classes: Iterable[Obj], gateways: Iterable[Obj]) -> dict[tuple[str, str], Obj]:
    """Return the Gateways of classes that name us as their controller."""
    ours = {item["metadata"]["name"] for item in classes if item["spec"].get("controllerName") == CONTROLLER}
    return {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item
        for item in gateways
        if item["spec"].get("gatewayClassName") in ours
    }


def accepted(route: Obj, reference: Obj, known: Known) -> Finding | None:
    """Return whether the Gateway a parentRef names takes the route; None when it is not one of ours."""
    gateway = known.gateways.get(_gateway_key(route, reference))
    if gateway is None or reference.get("kind", "Gateway") != "Gateway":
        return None
    listeners = [
        item
        for item in gateway["spec"].get("listeners") or []
        if reference.get("sectionName") in (None, item["name"]) and reference.get("port") in (None, item["port"])
    ]
    if not listeners:
        return Finding("False", "NoMatchingParent", "No listener of the Gateway has this name and port")
    allowed = [item for item in listeners if _namespace_allowed(item, gateway, route, known)]
    if not allowed:
        return Finding("False", "NotAllowedByListeners", "No listener allows routes from this namespace")
    hosts = route["spec"].get("hostnames") or []
    if not any(_hosts_meet(item.get("hostname", ""), hosts) for item in allowed):
        return Finding("False", "NoMatchingListenerHostname", "No listener serves any hostname of the route")
    unknown = sorted(
        {
            item["type"]
            for rule in route["spec"].get("rules") or []
            for item in rule.get("filters") or []
            if item["type"] not in SUPPORTED_FILTERS
        }
    )
    if unknown:
        return Finding("False", "UnsupportedValue", f"Filters not supported: {', '.join(unknown)}")
    return Finding("True", "Accepted", "Route is accepted")


def resolved(route: Obj, known: Known) -> Finding:
    """Return whether every backend of the route exists and may be used by it."""
    namespace = route["metadata"]["namespace"]
    for rule in route["spec"].get("rules") or []:
        for reference in rule.get("backendRefs") or []:
            group, kind = reference.get("group", ""), reference.get("kind", "Service")
            if (group, kind) not in (("", "Service"), (POOL_GROUP, "InferencePool")):
                return Finding("False", "InvalidKind", f"Backends of kind {group}/{kind} are not supported")
            where = reference.get("namespace") or namespace
            if where != namespace:
                text = f"Backend {where}/{reference['name']} is in another namespace and no ReferenceGrant is read"
                return Finding("False", "RefNotPermitted", text)
            if (where, reference["name"]) not in (known.services if kind == "Service" else known.pools):
                return Finding("False", "BackendNotFound", f'{kind} "{reference["name"]}" not found')
    return Finding("True", "ResolvedRefs", "All references are resolved")


def served(routes: Iterable[Obj], known: Known) -> list[Obj]:
    """Return the routes at least one of our Gateways takes."""
    return [
        route
        for route in routes
        if any(
            found is not None and found.status == "True"
            for found in (accepted(route, item, known) for item in route["spec"].get("parentRefs") or [])
        )
    ]


def route_status(route: Obj, known: Known, moment: datetime) -> Obj | None:
    """Return the route's status with our part of `parents` renewed; None when it has none of our Gateways."""
    before = (route.get("status") or {}).get("parents") or []
    others = [item for item in before if item.get("controllerName") != CONTROLLER]
    ours = []
    for reference in route["spec"].get("parentRefs") or []:
        found = accepted(route, reference, known)
        if found is None:
            continue
        old: Obj = next(
            (p for p in before if p.get("controllerName") == CONTROLLER and p["parentRef"] == reference), {}
        )
        findings = {"Accepted": found, "ResolvedRefs": resolved(route, known)}
        conditions = _conditions(findings, route, old.get("conditions"), moment)
        ours.append({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
    if not ours and len(others) == len(before):
        return None
    return {"parents": [*others, *ours]}


def gateway_status(gateway: Obj, routes: Iterable[Obj], known: Known, address: str, moment: datetime) -> Obj:
    """Return the status of one of our Gateways."""
    before = gateway.get("status") or {}
    attached = list(routes)
    listeners = []
    for item in gateway["spec"].get("listeners") or []:
        old: Obj = next((entry for entry in before.get("listeners") or [] if entry["name"] == item["name"]), {})
        findings = {
            "Accepted": Finding("True", "Accepted", "Listener is accepted"),
            "Programmed": Finding("True", "Programmed", "Listener is programmed"),
            "ResolvedRefs": Finding("True", "ResolvedRefs", "All references are resolved"),
            "Conflicted": Finding("False", "NoConflicts", "No conflicts"),
        }
        listeners.append(
            {
                "name": item["name"],
                "supportedKinds": [{"group": GROUP, "kind": "HTTPRoute"}],
                "attachedRoutes": sum(1 for route in attached if _attached(route, gateway, item["name"], known)),
                "conditions": _conditions(findings, gateway, old.get("conditions"), moment),
            }
        )
    findings = {
        "Accepted": Finding("True", "Accepted", "Gateway is accepted"),
        "Programmed": Finding("True", "Programmed", "Gateway is programmed"),
    }
    return {
        "addresses": [{"type": "IPAddress", "value": address}],
        "conditions": _conditions(findings, gateway, before.get("conditions"), moment),
        "listeners": listeners,
    }


def pool_status(pool: Obj, routes: Iterable[Obj], known: Known, moment: datetime) -> Obj | None:
    """Return a pool's status with our Gateways whose routes send to it renewed; None when it has none of them."""
    namespace, name = pool["metadata"]["namespace"], pool["metadata"]["name"]
    before = (pool.get("status") or {}).get("parents") or []
    others = [item for item in before if item.get("controllerName") != CONTROLLER]
    old = {_parent_key(item, namespace): item for item in before if item not in others}
    keys = {
        _gateway_key(route, reference)
        for route in routes
        if route["metadata"]["namespace"] == namespace and _sends_to(route, name)
        for reference in route["spec"].get("parentRefs") or []
        if (accepted(route, reference, known) or _REFUSED).status == "True"
    }
    if not keys and not old:
        return None
    ours = []
    for key in sorted(keys):
        resolved_refs = Finding("True", "ResolvedRefs", "All references are resolved")
        if not _picker_there(pool, known):
            resolved_refs = Finding("False", "InvalidExtensionRef", "The endpoint picker's Service is not found")
        findings = {"Accepted": Finding("True", "Accepted", "InferencePool is accepted"), "ResolvedRefs": resolved_refs}
        conditions = _conditions(findings, pool, old.get(key, {}).get("conditions"), moment)
        parent = {"group": GROUP, "kind": "Gateway", "namespace": key[0], "name": key[1]}
        ours.append({"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions})
    return {"parents": [*others, *ours]}


def _parent_key(parent: Obj, namespace: str) -> tuple[str, str]:
    return parent["parentRef"].get("namespace") or namespace, parent["parentRef"]["name"]


def _sends_to(route: Obj, pool: str) -> bool:
    return any(
        reference.get("group") == POOL_GROUP and reference.get("kind") == "InferencePool" and reference["name"] == pool
        for rule in route["spec"].get("rules") or []
        for reference in rule.get("backendRefs") or []
    )


def _picker_there(pool: Obj, known: Known) -> bool:
    picker = pool["spec"].get("endpointPickerRef") or {}
    return (pool["metadata"]["namespace"], picker.get("name", "")) in known.services


def class_status(gateway_class: Obj, moment: datetime) -> Obj:
    """Return the status of a class that names us."""
    before = gateway_class.get("status") or {}
    findings = {"Accepted": Finding("True", "Accepted", "GatewayClass is accepted")}
    return {**before, "conditions": _conditions(findings, gateway_class, before.get("conditions"), moment)}


def _attached(route: Obj, gateway: Obj, listener: str, known: Known) -> bool:
    key = (gateway["metadata"]["namespace"], gateway["metadata"]["name"])
    for reference in route["spec"].get("parentRefs") or []:
        if _gateway_key(route, reference) != key or reference.get("sectionName") not in (None, listener):
            continue
        found = accepted(route, {**reference, "sectionName": listener}, known)
        if found is not None and found.status == "True":
            return True
    return False


def _conditions(findings: Mapping[str, Finding], obj: Obj, before: list[Obj] | None, moment: datetime) -> list[Obj]:
    known = {item["type"]: item for item in before or []}
    made = []
    for kind, finding in findings.items():
        old: dict[str, Any] = known.get(kind, {})
        same = old.get("status") == finding.status
        made.append(
            {
                "type": kind,
                "status": finding.status,
                "reason": finding.reason,
                "message": finding.message,
                "observedGeneration": obj["metadata"].get("generation", 1),
                "lastTransitionTime": old["lastTransitionTime"] if same else moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )
    return made


def _gateway_key(route: Obj, reference: Obj) -> tuple[str, str]:
    return reference.get("namespace") or route["metadata"]["namespace"], reference["name"]


def _namespace_allowed(listener: Obj, gateway: Obj, route: Obj, known: Known) -> bool:
    rule = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
    namespace = route["metadata"]["namespace"]
    allowed: dict[str, Callable[[], bool]] = {
        "All": lambda: True,
        "None": lambda: False,
        "Same": lambda: namespace == gateway["metadata"]["namespace"],
        "Selector": lambda: _selected(rule.get("selector") or {}, known.namespace_labels.get(namespace, {})),
    }
    return allowed.get(rule.get("from", "Same"), lambda: False)()


def _selected(selector: Obj, labels: Mapping[str, str]) -> bool:
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    for term in selector.get("matchExpressions") or []:
        has, values = term["key"] in labels, term.get("values") or []
        is_in = has and labels[term["key"]] in values
        matches = {"In": is_in, "NotIn": not is_in, "Exists": has, "DoesNotExist": not has}
        if not matches.get(term["operator"], False):
            return False
    return True


def _hosts_meet(listener: str, hosts: list[str]) -> bool:
    if not listener or not hosts:
        return True
    return any(_covers(listener, host) or _covers(host, listener) for host in hosts)


def _covers(pattern: str, host: str) -> bool:
    return pattern == host or (pattern.startswith("*.") and host.endswith(pattern[1:]))
