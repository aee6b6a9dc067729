"""Which pod may open a connection to which, by the NetworkPolicies that are built: nothing goes around the gateway.

`reaches` is Kubernetes' rule: a pod that some policy selects takes (or opens) only what one of these policies allows;
a connection needs both ends to agree.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.manifests import Object, Platform, TeamWish, Wish, build, build_team
from deployments.manifests.common import labels_of
from deployments.manifests.standard import PORT
from tests.deployments.wishes import wish_of


@dataclass(frozen=True)
class Pod:
    """A pod as policies see it."""

    namespace: str
    labels: tuple[tuple[str, str], ...] = ()
    ip: str = "10.1.0.7"


def pod(namespace: str, **labels: str) -> Pod:
    return Pod(namespace, tuple((name.replace("__", "/").replace("_", "."), value) for name, value in labels.items()))


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    if selector is None:
        return False
    if any(labels.get(name) != value for name, value in selector.get("matchLabels", {}).items()):
        return False
    for wish in selector.get("matchExpressions", []):
        there, value = wish["key"] in labels, labels.get(wish["key"])
        verdict = {
            "In": value in wish.get("values", ()),
            "NotIn": value not in wish.get("values", ()),
            "Exists": there,
            "DoesNotExist": not there,
        }[wish["operator"]]
        if not verdict:
            return False
    return True


def is_peer(peer: dict[str, Any], of: str, other: Pod) -> bool:
    if "ipBlock" in peer:
        block, address = peer["ipBlock"], ipaddress.ip_address(other.ip)
        closed = any(address in ipaddress.ip_network(cidr) for cidr in block.get("except", ()))
        return address in ipaddress.ip_network(block["cidr"]) and not closed
    namespaces = peer.get("namespaceSelector")
    if namespaces is None:
        if other.namespace != of:
            return False
    elif not selects(namespaces, {"kubernetes.io/metadata.name": other.namespace}):
        return False
    return "podSelector" not in peer or selects(peer["podSelector"], dict(other.labels))


def allows(rule: dict[str, Any], side: str, of: str, other: Pod, port: int) -> bool:
    peers, ports = rule.get("from" if side == "ingress" else "to"), rule.get("ports")
    by_port = not ports or any(
        entry.get("protocol", "TCP") == "TCP" and entry["port"] <= port <= entry.get("endPort", entry["port"])
        for entry in ports
    )
    return by_port and (not peers or any(is_peer(peer, of, other) for peer in peers))


def open_at(policies: list[Object], side: str, of: Pod, other: Pod, port: int) -> bool:
    mine = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == of.namespace
        and side.capitalize() in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], dict(of.labels))
    ]
    rules = [rule for spec in mine for rule in spec.get(side, [])]
    return not mine or any(allows(rule, side, of.namespace, other, port) for rule in rules)


def reaches(policies: list[Object], source: Pod, target: Pod, port: int) -> bool:
    return open_at(policies, "egress", source, target, port) and open_at(policies, "ingress", target, source, port)


PROXY = ("gateway.envoyproxy.io/owning-gateway-name", "kserve-ingress-gateway")
# As k8s/portal/config.yaml has it.
PLATFORM = Platform(gateway_pods_namespace="envoy-gateway-system", gateway_pods_labels=(PROXY,))
CHAT = Wish(**{**vars(wish_of()), "platform": PLATFORM})
CODE = Wish(**{**vars(CHAT), "name": "code", "deployment_id": "8"})
OTHER = Wish(**{**vars(CHAT), "name": "chat", "deployment_id": "9", "namespace": "labs-zz9zz", "team": "labs"})


def engine(wish: Wish) -> Pod:
    return Pod(wish.namespace, tuple(labels_of(wish).items()))


def policies_of(*wishes: Wish) -> list[Object]:
    objects: list[Object] = []
    for wish in wishes:
        objects += [*build_team(TeamWish(wish.install_id, wish.team, wish.namespace)), *build(wish)]
    return [obj for obj in objects if obj["kind"] == "NetworkPolicy"]


def of_slipway() -> list[Object]:
    file = Path(__file__).resolve().parents[2] / "k8s" / "portal" / "network.yaml"
    return [obj for obj in yaml.safe_load_all(file.read_text()) if obj]


ALL = [*policies_of(CHAT, CODE, OTHER), *of_slipway()]
ALLOWED = {
    "gateway": Pod("envoy-gateway-system", (PROXY,)),
    "Prometheus": pod("monitoring", app_kubernetes_io__name="prometheus"),
}
PARTS = {
    name: pod("slipway-system", app_kubernetes_io__name="slipway", app_kubernetes_io__component=name)
    for name in ("web", "live", "worker", "watcher", "beat")
}
STRANGERS = {
    "an engine of the same team": engine(CODE),
    "another pod of the same team": pod(CHAT.namespace, app="notebook"),
    "an engine of another team": engine(OTHER),
    "a pod of another team": pod(OTHER.namespace),
    "a pod of no team": pod("default"),
    "a pod of the cluster's own": pod("kube-system", app="dns"),
    "a dashboard beside Prometheus": pod("monitoring", app_kubernetes_io__name="grafana"),
    "the proxy of another Gateway": pod("envoy-gateway-system", gateway_envoyproxy_io__owning="other"),
    "a pod beside the Gateway": pod("kserve", app="envoy"),
    **{f"Slipway's {name}": part for name, part in PARTS.items()},
}


def test_labels_are_read_as_they_are_written() -> None:
    assert dict(PARTS["web"].labels) == {
        "app.kubernetes.io/name": "slipway",
        "app.kubernetes.io/component": "web",
    }


@pytest.mark.parametrize("source", ALLOWED)
@pytest.mark.parametrize("wish", [CHAT, CODE, OTHER], ids=lambda wish: f"{wish.team}-{wish.name}")
def test_gateway_and_prometheus_reach_the_port_of_the_engine(source: str, wish: Wish) -> None:
    assert reaches(ALL, ALLOWED[source], engine(wish), PORT)


@pytest.mark.parametrize("source", STRANGERS)
def test_nobody_else_reaches_an_engine(source: str) -> None:
    open_ports = [
        port for port in (80, 443, 5557, 8000, PORT, 8081, 29500) if reaches(ALL, STRANGERS[source], engine(CHAT), port)
    ]

    assert open_ports == []


@pytest.mark.parametrize("source", ALLOWED)
def test_no_other_port_of_an_engine_is_open(source: str) -> None:
    """vLLM's own channels between processes are unguarded: only its HTTP port is for others."""
    assert [port for port in range(1, 65536) if reaches(ALL, ALLOWED[source], engine(CHAT), port)] == [PORT]


def test_what_is_in_a_teams_namespace_by_itself_is_reached_by_nobody() -> None:
    stray = pod(CHAT.namespace, app="notebook")

    assert not any(reaches(ALL, source, stray, PORT) for source in [*ALLOWED.values(), *STRANGERS.values()])


def test_engines_reach_the_web_but_nothing_inside_the_cluster() -> None:
    hub, metadata = Pod("outside", ip="203.0.113.9"), Pod("outside", ip="169.254.169.254")
    assert reaches(ALL, engine(CHAT), hub, 443)
    assert not reaches(ALL, engine(CHAT), hub, 22)
    for port in (80, 443):
        assert not reaches(ALL, engine(CHAT), metadata, port)
        assert not any(reaches(ALL, engine(CHAT), part, port) for part in (*PARTS.values(), pod("default")))


def test_only_the_gateway_reaches_web_and_live() -> None:
    for name, part in PARTS.items():
        assert reaches(ALL, ALLOWED["gateway"], part, 8000) == (name in ("web", "live"))
        for source in (engine(CHAT), pod("default"), ALLOWED["Prometheus"], PARTS["worker"]):
            assert not reaches(ALL, source, part, 8000)


def test_it_is_the_policies_that_close_and_open() -> None:
    """Without the team's, an engine is open on every port to all the namespaces named; without any, to everybody."""
    assert reaches([], STRANGERS["a pod of no team"], engine(CHAT), PORT)
    only_team = policies_of(CHAT)[:2]
    assert [policy["metadata"]["name"] for policy in only_team] == ["slipway-deny-all", "slipway-allow-dns"]
    assert not reaches(only_team, ALLOWED["gateway"], engine(CHAT), PORT)
