"""NetworkPolicies, PodDisruptionBudgets and role bindings."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from sandbox.lite.checking.common import (
    at_most_all,
    forbidden,
    not_one_of,
    number_or_percent,
    port,
    selector,
    subdomain,
)
from sandbox.lite.errors import Cause, invalid_value, required

Obj = dict[str, Any]

_RBAC = "rbac.authorization.k8s.io"


def network_policy(obj: Obj) -> Iterator[Cause]:
    """Check a NetworkPolicy."""
    spec = obj.get("spec") or {}
    yield from selector(spec.get("podSelector") or {}, "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            field = f"spec.{direction}[{index}]"
            for place, item in enumerate(rule.get("ports") or ()):
                yield from _port(item, f"{field}.ports[{place}]")
            for place, item in enumerate(rule.get(peers) or ()):
                yield from _peer(item, f"{field}.{peers}[{place}]")
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        yield invalid_value("spec.policyTypes", types, "may not specify more than two policyTypes")
        return
    for index, word in enumerate(types):
        if word not in ("Ingress", "Egress"):
            yield not_one_of(f"spec.policyTypes[{index}]", word, ("Ingress", "Egress"))


def _port(item: Obj, field: str) -> Iterator[Cause]:
    if item.get("protocol") not in ("TCP", "UDP", "SCTP"):
        yield not_one_of(f"{field}.protocol", item.get("protocol") or "", ("TCP", "UDP", "SCTP"))
    number, last = item.get("port"), item.get("endPort")
    if number is not None:
        yield from port(number, f"{field}.port")
    if last is not None:
        if number is None:
            yield required(f"{field}.port", "must be specified when `endPort` is specified")
        elif isinstance(number, int) and last < number:
            yield invalid_value(f"{field}.endPort", number, "must be greater than or equal to `port`")


def _peer(item: Obj, field: str) -> Iterator[Cause]:
    given = [name for name in ("podSelector", "namespaceSelector", "ipBlock") if item.get(name) is not None]
    for name in given[:2]:
        if name != "ipBlock":
            yield from selector(item[name], f"{field}.{name}")
    if "ipBlock" in given:
        yield from _block(item["ipBlock"], f"{field}.ipBlock")
    if not given:
        yield required(field, "must specify a peer")
    elif "ipBlock" in given and len(given) > 1:
        yield forbidden(field, "may not specify both ipBlock and another peer")


def _block(block: Obj, field: str) -> Iterator[Cause]:
    text = block.get("cidr") or ""
    if not text:
        yield required(f"{field}.cidr")
        return
    network = None
    for problem in _network_problems(text):
        yield invalid_value(f"{field}.cidr", text, problem)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return
    for index, inner in enumerate(block.get("except") or ()):
        for problem in _network_problems(inner):
            yield invalid_value(f"{field}.except[{index}]", inner, problem)
        try:
            found = ipaddress.ip_network(inner, strict=False)
        except ValueError:
            continue
        inside = found.version == network.version and found != network and found.subnet_of(network)  # type: ignore[arg-type]
        if not inside:
            yield invalid_value(f"{field}.except[{index}]", inner, "must be a strict subset of `cidr`")


def _network_problems(text: str) -> Iterator[str]:
    try:
        ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        if "host bits" in str(error):
            yield "must not have bits set beyond the prefix length"
        else:
            yield "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def disruption_budget(obj: Obj) -> Iterator[Cause]:
    """Check a PodDisruptionBudget."""
    spec = obj.get("spec") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if least is not None and most is not None:
        shown = {
            "MinAvailable": least,
            "Selector": _internal_selector(spec.get("selector")),
            "MaxUnavailable": most,
            "UnhealthyPodEvictionPolicy": spec.get("unhealthyPodEvictionPolicy"),
        }
        yield invalid_value("spec", shown, "minAvailable and maxUnavailable cannot be both set")
    for name, value in (("minAvailable", least), ("maxUnavailable", most)):
        if value is not None:
            yield from number_or_percent(value, f"spec.{name}")
            yield from at_most_all(value, f"spec.{name}")
    yield from selector(spec.get("selector") or {}, "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy not in (None, "AlwaysAllow", "IfHealthyBudget"):
        yield not_one_of("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))


def _internal_selector(found: Obj | None) -> Obj | None:
    """A selector as kube-apiserver shows its own: the type is the published one, fields left out included."""
    return found


def role_binding(obj: Obj) -> Iterator[Cause]:
    """Check a RoleBinding or a ClusterRoleBinding."""
    role = obj.get("roleRef") or {}
    kinds = ("Role", "ClusterRole") if obj["kind"] == "RoleBinding" else ("ClusterRole",)
    if role.get("apiGroup") != _RBAC:
        yield not_one_of("roleRef.apiGroup", role.get("apiGroup") or "", (_RBAC,))
    if role.get("kind") not in kinds:
        yield not_one_of("roleRef.kind", role.get("kind") or "", kinds)
    name = role.get("name") or ""
    if not name:
        yield required("roleRef.name")
    elif name in (".", ".."):
        yield invalid_value("roleRef.name", name, f"may not be '{name}'")
    else:
        for sign in "/%":
            if sign in name:
                yield invalid_value("roleRef.name", name, f"may not contain '{sign}'")
    for index, subject in enumerate(obj.get("subjects") or ()):
        yield from _subject(subject, f"subjects[{index}]", everywhere=obj["kind"] == "ClusterRoleBinding")


def _subject(subject: Obj, field: str, *, everywhere: bool) -> Iterator[Cause]:
    kind, name, group = (subject.get(word) or "" for word in ("kind", "name", "apiGroup"))
    if not name:
        yield required(f"{field}.name")
    if kind == "ServiceAccount":
        if name:
            yield from subdomain(name, f"{field}.name")
        if group:
            yield not_one_of(f"{field}.apiGroup", group, ("",))
        if everywhere and not subject.get("namespace"):
            yield required(f"{field}.namespace")
    elif kind in ("User", "Group"):
        if group != _RBAC:
            yield not_one_of(f"{field}.apiGroup", group, (_RBAC,))
    else:
        yield not_one_of(f"{field}.kind", kind, ("ServiceAccount", "User", "Group"))
