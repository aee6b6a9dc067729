"""What one object uses of a ResourceQuota, as quantities by the names that quotas have for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sandbox.lite.quantity import canonical, canonical_sum, parse
from sandbox.lite.validation import is_extended

Obj = dict[str, Any]
Amounts = dict[str, str]

PODS, SERVICES, CLAIMS = "/pods", "/services", "/persistentvolumeclaims"
_COUNTED = {
    PODS: "pods",
    SERVICES: "services",
    CLAIMS: "persistentvolumeclaims",
    "/secrets": "secrets",
    "/configmaps": "configmaps",
    "/replicationcontrollers": "replicationcontrollers",
    "/resourcequotas": "resourcequotas",
}
_OF_PORTS = "services.nodeports", "services.loadbalancers"
_PLAIN = "cpu", "memory", "ephemeral-storage"
_OF_PODS = {*_PLAIN, *(f"{kind}.{name}" for kind in ("requests", "limits") for name in _PLAIN)}


def counts(kind: str, name: str) -> bool:
    """Tell whether objects of a storage key use what a quota calls by this name."""
    if name in _count_names(kind):
        return True
    if kind == PODS:
        extended = name.startswith("requests.") and is_extended(name.removeprefix("requests."))
        return name in _OF_PODS or extended
    return (kind == SERVICES and name in _OF_PORTS) or (kind == CLAIMS and name == "requests.storage")


def usage(kind: str, obj: Obj) -> Amounts:
    """Return what one object uses; a finished pod is only counted as an object."""
    if kind == PODS:
        return _of_pod(obj)
    used = dict.fromkeys(_count_names(kind), "1")
    spec = obj.get("spec") or {}
    if kind == SERVICES:
        return used | _of_service(spec)
    if kind == CLAIMS:
        asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
        return used | {"requests.storage": canonical(asked)}
    return used


def added(one: Mapping[str, str], other: Mapping[str, str]) -> Amounts:
    """Add two lots of amounts."""
    return {name: canonical_sum(one.get(name, "0"), other.get(name, "0")) for name in {**one, **other}}


def grown(before: Mapping[str, str], after: Mapping[str, str]) -> Amounts:
    """Return by how much amounts differ, in names where they do."""
    less = {name: canonical(f"-{amount}") for name, amount in before.items()}
    return {name: amount for name, amount in added(after, less).items() if parse(amount)}


def in_scope(quota: Obj, kind: str, obj: Obj) -> bool:
    """Tell whether a quota's scopes take in an object; scopes are of pods, and a quota without them takes in all."""
    scopes = (quota.get("spec") or {}).get("scopes") or ()
    if not scopes or kind != PODS:
        return not scopes
    spec, quality = obj["spec"], (obj.get("status") or {}).get("qosClass")
    answers = {
        "BestEffort": quality == "BestEffort",
        "NotBestEffort": quality != "BestEffort",
        "Terminating": spec.get("activeDeadlineSeconds") is not None,
        "NotTerminating": spec.get("activeDeadlineSeconds") is None,
    }
    return all(answers.get(scope, True) for scope in scopes)


def finished(pod: Obj) -> bool:
    """Tell whether a pod has ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _count_names(kind: str) -> list[str]:
    group, _, plural = kind.partition("/")
    names = [f"count/{plural}.{group}" if group else f"count/{plural}"]
    return [*names, _COUNTED[kind]] if kind in _COUNTED else names


def _of_pod(pod: Obj) -> Amounts:
    if finished(pod):
        return {"count/pods": "1"}
    used = {"count/pods": "1", "pods": "1"}
    for kind in ("requests", "limits"):
        for name, amount in _total(pod["spec"], kind).items():
            if kind == "requests" and name in _PLAIN:
                used[name] = amount
            if kind == "requests" or not is_extended(name):  # no quota counts limits of what a plugin offers
                used[f"{kind}.{name}"] = amount
    return used


def _total(spec: Obj, kind: str) -> Amounts:
    """Add up the containers; each init container must fit by itself, since they run before."""

    def asked(containers: Iterable[Obj]) -> Iterable[Amounts]:
        return (((container.get("resources") or {}).get(kind) or {}) for container in containers)

    first = spec.get("initContainers") or ()
    totals: Amounts = {}
    for amounts in asked(spec.get("containers") or ()):
        totals = added(totals, amounts)
    for container, amounts in zip(first, asked(first), strict=True):
        if container.get("restartPolicy") == "Always":
            totals = added(totals, amounts)
            continue
        most = {name: value for name, value in amounts.items() if parse(value) > parse(totals.get(name, "0"))}
        totals |= {name: canonical(value) for name, value in most.items()}
    return totals


def _of_service(spec: Obj) -> Amounts:
    ports = str(len(spec.get("ports") or ()))
    if spec.get("type") == "NodePort":
        return {"services.nodeports": ports}
    if spec.get("type") == "LoadBalancer":
        given = spec.get("allocateLoadBalancerNodePorts") is not False
        return {"services.loadbalancers": "1", "services.nodeports": ports if given else "0"}
    return {}
