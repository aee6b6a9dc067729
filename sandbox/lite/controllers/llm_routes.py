"""The HTTPRoute of an LLMInferenceService, whether Gateway, route and pool are ready, and its addresses. Pure.

The route begins at the pool of the version before and moves to the present one, for good, when the Gateway takes the
present one or refuses the other.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from sandbox.client import Obj
from sandbox.lite.controllers.llm_config import MODEL_ROUTING, Settings, default_backends, pool_ref, route_spec
from sandbox.lite.controllers.llm_template import child_name
from sandbox.lite.controllers.llm_workloads import labels, metadata
from sandbox.lite.controllers.meta import Key, annotations_of, condition

GROUP = "gateway.networking.k8s.io"
POOL_GROUP, OLD_POOL_GROUP = "inference.networking.k8s.io", "inference.networking.x-k8s.io"
MIGRATED = "serving.kserve.io/inference-pool-migrated"
PUBLISHERS = "/publishers/"
_LOCAL_SUFFIXES = ("cluster.local", ".local", ".localhost", ".internal")


def route_name(service: Obj) -> str:
    """Return the name of the managed route."""
    return child_name(service["metadata"]["name"], "-kserve-route")


def http_route(service: Obj, combined: Obj, known: Obj | None, settings: Settings) -> Obj:
    """Return the managed route; `known` is the one there is, which tells which pool the Gateway takes."""
    spec = copy.deepcopy(route_spec(combined) or {})
    if not routes_by_model(combined, settings):
        spec["rules"] = _without_model_rules(spec.get("rules") or [], settings.model_header)
    made: Obj = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(service, route_name(service), labels(service, "llminferenceservice-router")),
        "spec": spec,
    }
    if (combined.get("router") or {}).get("scheduler") is None or pool_ref(combined):
        return made
    new = _takes_present_pool(known)
    for backend in default_backends(service, spec):
        backend["group"] = POOL_GROUP if new else OLD_POOL_GROUP
    if new:
        made["metadata"]["annotations"] = {MIGRATED: "v1"}
    return made


def routes_by_model(combined: Obj, settings: Settings) -> bool:
    """Tell whether requests may name the model in a header."""
    own = (combined.get("annotations") or {}).get(MODEL_ROUTING) == "true"
    return own and settings.model_routing != "disabled"


def _without_model_rules(rules: list[Obj], header: str) -> list[Obj]:
    kept = []
    for rule in rules:
        matches = [match for match in rule.get("matches") or [] if not _by_model(match, header)]
        if matches:
            kept.append({**rule, "matches": matches})
    return kept


def _by_model(match: Obj, header: str) -> bool:
    return any(item["name"] == header for item in match.get("headers") or [])


def _takes_present_pool(route: Obj | None) -> bool:
    if route is None:
        return False
    if annotations_of(route).get(MIGRATED) == "v1":
        return True
    groups = {
        backend.get("group")
        for rule in route["spec"].get("rules") or []
        for backend in rule.get("backendRefs") or []
        if backend.get("kind") == "InferencePool"
    }
    said = _backend_support(route)
    return (POOL_GROUP in groups and said == "True") or (OLD_POOL_GROUP in groups and said == "False")


def _backend_support(route: Obj) -> str:
    """Return whether any Gateway can send to this kind of backend at all: only InvalidKind says no."""
    parents = (route.get("status") or {}).get("parents") or []
    found = [condition(parent.get("conditions"), "ResolvedRefs") for parent in parents]
    refused = [item["status"] == "False" and item.get("reason") == "InvalidKind" for item in found if item is not None]
    return "Unknown" if not refused else "False" if all(refused) else "True"


# Readiness --------------------------------------------------------------------------------------------------


def route_trouble(route: Obj) -> str | None:
    """Return what keeps a route from being ready, in KServe's words; None when it is."""
    where = f"{route['metadata']['namespace']}/{route['metadata']['name']}"
    parents = (route.get("status") or {}).get("parents") or []
    generation = int(route["metadata"].get("generation") or 0)
    said = [parent for parent in parents if condition(parent.get("conditions"), "Accepted") is not None]
    for parent in said:
        for kind in ("Accepted", "ResolvedRefs"):
            found = condition(parent["conditions"], kind)
            if found is None:
                text = "ResolvedRefs condition not yet reported by gateway controller"
                return f'{where}: "Unknown" (reason "ConditionMissing", message "{text}")'
            if found["status"] != "True" or 0 < int(found.get("observedGeneration") or 0) < generation:
                reason, message = found.get("reason", ""), found.get("message", "")
                return f'{where}: "{found["status"]}" (reason "{reason}", message "{message}")'
    wanted = {parent_key(item, route) for item in route["spec"].get("parentRefs") or []}
    if wanted and wanted <= {parent_key(parent["parentRef"], route) for parent in said}:
        return None
    listed = "[]v1.RouteParentStatus(nil)" if not parents else "[]v1.RouteParentStatus{...}"
    return f"{where}: v1.HTTPRouteStatus{{RouteStatus:v1.RouteStatus{{Parents:{listed}}}}}"


def parent_key(reference: Obj, route: Obj) -> Key:
    """Return (namespace, name) of the Gateway a parentRef names."""
    return reference.get("namespace") or route["metadata"]["namespace"], reference["name"]


def pool_trouble(pool: Obj, gateways: Iterable[Key]) -> tuple[str, str] | None:
    """Return reason and message of a pool that is not ready for these Gateways; None when it is."""
    namespace, name = pool["metadata"]["namespace"], pool["metadata"]["name"]
    keys = list(gateways)
    parents = {
        (parent["parentRef"].get("namespace") or namespace, parent["parentRef"]["name"]): parent
        for parent in (pool.get("status") or {}).get("parents") or []
    }
    relevant = {key: parents[key] for key in keys if key in parents}
    if not relevant:
        text = f"Inference Pool {namespace}/{name} exists but no Gateway controller has accepted it yet"
        return "WaitingForGateway", text
    for key in keys:
        if key not in relevant:
            text = f"Inference Pool {namespace}/{name} is not yet accepted by gateway {key[0]}/{key[1]}"
            return "WaitingForGateway", text
    generation = int(pool["metadata"].get("generation") or 0)
    for parent in relevant.values():
        found = condition(parent.get("conditions"), "Accepted")
        if found is None:
            return "InferencePoolNotReady", f"The inference pool {namespace}/{name} is not ready"
        if found["status"] != "True" or 0 < int(found.get("observedGeneration") or 0) < generation:
            told = f'reason "{found.get("reason", "")}", message "{found.get("message", "")}"'
            return "InferencePoolNotReady", f'{namespace}/{name}: Accepted="{found["status"]}" ({told})'
    return None


# Addresses --------------------------------------------------------------------------------------------------


def addresses(service: Obj, model: str, route: Obj, gateways: list[Obj], settings: Settings) -> list[Obj]:
    """Return `status.addresses` for one route behind these Gateways, in the order of their URLs."""
    found = []
    for gateway in gateways:
        meta = gateway["metadata"]
        origin = {"group": GROUP, "kind": "Gateway", "name": meta["name"], "namespace": meta["namespace"]}
        for path in _paths(route, settings.model_header):
            for url in _urls(route, gateway, path, settings.kserve.scheme):
                found.append({**_address(service, model, url), "origin": origin})
    return sorted(found, key=lambda item: str(item["url"]))


def _address(service: Obj, model: str, url: str) -> Obj:
    host = urlsplit(url).hostname or ""
    kind = "gateway-external"
    if host.endswith("cluster.local"):
        kind = "gateway-internal"
    elif internal(url):
        kind = "internal"
    names = [f"publishers/{service['metadata']['namespace']}/models/{model}"]
    if urlsplit(url).path in ("", "/"):
        kind += "-model-routing"
    else:
        names.append(model)
    return {"name": kind, "url": url, "models": [{"name": name} for name in names]}


def internal(url: str) -> bool:
    """Tell whether a URL names a private address or a name of the cluster."""
    host = (urlsplit(url).hostname or "").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(_LOCAL_SUFFIXES)
    return address.is_private and not address.is_loopback


def best_url(service: Obj, found: list[Obj]) -> str | None:
    """Return `status.url`: an external address with the service's own path before any other."""
    urls = [str(item["url"]) for item in found]
    candidates = [url for url in urls if not internal(url)] or urls
    prefix = f"/{service['metadata']['namespace']}/{service['metadata']['name']}"
    own = [url for url in candidates if urlsplit(url).path.startswith(prefix)]
    return next(iter(own or candidates), None)


def _paths(route: Obj, header: str) -> list[str]:
    """Return one path for each way in: the service's own, the model's, and the header's."""
    buckets: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in ("own", "publisher", "model")}
    for rule in route["spec"].get("rules") or []:
        to_service = any(item.get("kind", "Service") == "Service" for item in rule.get("backendRefs") or [])
        for match in rule.get("matches") or []:
            path = (match.get("path") or {}).get("value") or "/"
            if not match.get("headers"):
                name = "publisher" if path.startswith(PUBLISHERS) else "own"
            elif _by_model(match, header):
                name = "model"
            else:
                continue  # somebody's own header rule is no address
            buckets[name][0 if to_service else 1].append(path)

    def depth(path: str) -> tuple[int, int]:
        return path.count("/"), len(path)

    shallow = [min(direct or others, key=depth) for direct, others in buckets.values() if direct or others]
    return sorted(set(shallow), key=depth) or ["/"]


def _urls(route: Obj, gateway: Obj, path: str, preferred: str) -> list[str]:
    schemes = {"HTTP": "http", "HTTPS": "https", "TLS": "https"}
    listeners = [item for item in gateway["spec"].get("listeners") or [] if item.get("protocol") in schemes]
    listeners.sort(key=lambda item: (schemes[item["protocol"]] != preferred, item["protocol"] == "HTTP"))
    values = [item["value"] for item in (gateway.get("status") or {}).get("addresses") or [] if item.get("value")]
    urls = []
    for listener in listeners if values else []:
        hosts = [host for host in route["spec"].get("hostnames") or [] if host not in ("", "*")]
        named = str(listener.get("hostname") or "")
        if not hosts and named:
            hosts = [f"inference.{named[2:]}" if named.startswith("*.") else named]
        scheme, port = schemes[listener["protocol"]], int(listener["port"])
        usual = port == (443 if scheme == "https" else 80)
        for host in sorted(hosts or values):
            literal = f"[{host}]" if ":" in host else host
            urls.append(f"{scheme}://{literal}{'' if usual else f':{port}'}{path}")
    return urls


def observed_gateways(routes: list[Obj]) -> list[Obj]:
    """Return `status.router.gateways`."""
    found: dict[Key, Obj] = {}
    for route in routes:
        meta = route["metadata"]
        named = {"group": GROUP, "kind": "HTTPRoute", "name": meta["name"], "namespace": meta["namespace"]}
        for reference in route["spec"].get("parentRefs") or []:
            key = parent_key(reference, route)
            entry = found.setdefault(
                key, {"group": GROUP, "kind": "Gateway", "name": key[1], "namespace": key[0], "httpRoutes": []}
            )
            if reference.get("sectionName"):
                entry["listeners"] = sorted({*entry.get("listeners", []), reference["sectionName"]})
            if named not in entry["httpRoutes"]:
                entry["httpRoutes"] = sorted([*entry["httpRoutes"], named], key=lambda item: str(item["name"]))
    return [found[key] for key in sorted(found)]
