"""Services."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from sandbox.lite.checking.common import (
    PROTOCOLS,
    dns_label,
    duplicate,
    forbidden,
    not_one_of,
    port,
    port_number,
    subdomain,
)
from sandbox.lite.errors import Cause, invalid_value, required
from sandbox.lite.names import label_causes

Obj = dict[str, Any]

_TYPES = "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"


def service(obj: Obj) -> Iterator[Cause]:
    """Check a Service."""
    spec = obj.get("spec") or {}
    outside = spec.get("type") == "ExternalName"
    ports = spec.get("ports") or []
    if not ports and not outside and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    yield from _of_type(spec)
    seen: set[str] = set()
    for index, item in enumerate(ports):
        yield from _port(item, f"spec.ports[{index}]", seen, alone=len(ports) == 1)
    yield from label_causes(spec.get("selector") or {}, "spec.selector")
    if spec.get("sessionAffinity") not in ("ClientIP", "None"):
        yield not_one_of("spec.sessionAffinity", spec.get("sessionAffinity") or "", ("ClientIP", "None"))
    yield from _same_places(ports)
    if spec.get("type") not in _TYPES:
        yield not_one_of("spec.type", spec.get("type") or "", _TYPES)
    if not outside:
        yield from _address(spec.get("clusterIP") or "")
    if spec.get("type") != "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not None:
        only = "may only be used when `type` is 'LoadBalancer'"
        yield forbidden("spec.allocateLoadBalancerNodePorts", only)


def service_change(old: Obj, new: Obj) -> Iterator[Cause]:
    """Check an update of a Service: its address stays, unless it is or was but a name."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if "ExternalName" in (before.get("type"), after.get("type")):
        return
    addresses = after.get("clusterIPs") or [after.get("clusterIP")]
    if before.get("clusterIP") and after.get("clusterIP") != before["clusterIP"]:
        yield invalid_value("spec.clusterIPs[0]", addresses, "may not change once set")


def _port(item: Obj, field: str, seen: set[str], *, alone: bool) -> Iterator[Cause]:
    name = item.get("name") or ""
    if not name:
        if not alone:
            yield required(f"{field}.name")
    else:
        yield from dns_label(name, f"{field}.name")
        if name in seen:
            yield duplicate(f"{field}.name", name)
        seen.add(name)
    yield from port_number(item.get("port") or 0, f"{field}.port")
    protocol = item.get("protocol") or ""
    if not protocol:
        yield required(f"{field}.protocol")
    elif protocol not in PROTOCOLS:
        yield not_one_of(f"{field}.protocol", protocol, PROTOCOLS)
    yield from port(item.get("targetPort", 0), f"{field}.targetPort")


def _same_places(ports: list[Obj]) -> Iterator[Cause]:
    seen: set[tuple[Any, Any]] = set()
    for index, item in enumerate(ports):
        key = item.get("protocol"), item.get("port")
        if key in seen:
            shown = {
                "Name": "",
                "Protocol": key[0],
                "AppProtocol": None,
                "Port": key[1],
                "TargetPort": 0,
                "NodePort": 0,
            }
            yield duplicate(f"spec.ports[{index}]", shown)
        seen.add(key)


def _of_type(spec: Obj) -> Iterator[Cause]:
    """Check what one type of Service may not have, or has to."""
    kind, address = spec.get("type"), spec.get("clusterIP") or ""
    if kind in ("LoadBalancer", "NodePort") and address == "None":
        yield invalid_value("spec.clusterIPs[0]", address, f"may not be set to 'None' for {kind} services")
    if kind != "ExternalName":
        return
    if address:
        yield forbidden("spec.clusterIPs", "may not be set for ExternalName services")
    if name := spec.get("externalName") or "":
        yield from subdomain(name, "spec.externalName")
    else:
        yield required("spec.externalName")


def _address(address: str) -> Iterator[Cause]:
    if address in ("", "None"):
        return
    try:
        ipaddress.ip_address(address)
    except ValueError:
        yield invalid_value(
            "spec.clusterIPs[0]", address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        )
