"""Cluster addresses of Services."""

from __future__ import annotations

import random

from sandbox.lite import errors
from sandbox.lite.admission.change import Change

_PREFIX = "10.96"


def give_address(change: Change) -> None:
    """Give a Service a free cluster address, or the one it has. 500 when none is left."""
    if change.resource.storage_key != "/services":
        return
    spec = change.obj["spec"]
    if spec["type"] == "ExternalName":
        before = change.old["spec"] if change.old else spec
        if before["type"] != "ExternalName" and spec.get("clusterIP") in (None, "", before.get("clusterIP")):
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(name, None)
        return
    if change.old is not None and change.old["spec"]["type"] != "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not spec.get(name) and name in change.old["spec"]:
                spec[name] = change.old["spec"][name]
    if not spec.get("clusterIP"):
        taken = {service["spec"].get("clusterIP") for service in change.cluster.read_all("/services")}
        free = (f"{_PREFIX}.{random.randrange(1, 255)}.{random.randrange(1, 255)}" for _ in range(1000))  # noqa: S311
        address = next((candidate for candidate in free if candidate not in taken), None)
        if address is None:
            raise errors.internal("failed to allocate IP: range is full")
        spec["clusterIP"] = address
    spec["clusterIPs"] = [spec["clusterIP"]]
    both = spec["clusterIP"] == "None" and not spec.get("selector")  # then endpoints may have any address
    spec.setdefault("ipFamilies", ["IPv4", "IPv6"] if both else ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "RequireDualStack" if both else "SingleStack")


def forget_type(change: Change) -> None:
    """Who changes a Service's type alone means what belongs to the type too; it stays theirs who gave it."""
    if change.resource.storage_key != "/services" or change.old is None:
        return
    spec, before = change.obj["spec"], change.old["spec"]
    open_to_all = spec["type"] in ("NodePort", "LoadBalancer")
    names = () if open_to_all else ("externalTrafficPolicy",)
    for name in (*names, *(() if spec["type"] == "LoadBalancer" else ("allocateLoadBalancerNodePorts",))):
        if spec.get(name) == before.get(name):
            spec.pop(name, None)


def advise(change: Change) -> None:
    """Warn of what has no effect."""
    spec = change.obj.get("spec") or {}
    if change.resource.storage_key != "/services" or change.request.subresource or spec.get("clusterIP") != "None":
        return
    if spec.get("sessionAffinity") not in (None, "None"):
        change.request.warnings.append("spec.SessionAffinity is ignored for headless services")


def check_address(change: Change) -> None:
    """422 for an address asked for that is not of the cluster's range, or taken."""
    if not change.is_new("/services"):
        return
    spec, name = change.obj["spec"], change.shown_name
    address = spec.get("clusterIP")
    if address in (None, "", "None"):
        return
    others = (each for each in change.cluster.read_all("/services") if each["spec"].get("clusterIP") == address)
    if not address.startswith(f"{_PREFIX}."):
        why = "the provided network does not match the current range"
        if change.request.dry_run:  # then another allocator is asked
            why = f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {_PREFIX}.0.0/16"
    elif any(True for _ in others):
        why = "provided IP is already allocated"
    else:
        return
    wrong = errors.invalid_value("spec.clusterIPs", [address], f"failed to allocate IP {address}: {why}")
    raise errors.invalid("", "Service", name, [wrong])
