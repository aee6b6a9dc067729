"""What an operator configured about the cluster reaches the objects that are built."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from deployments.reconciler.desired import desired_of_team
from deployments.services import requests
from deployments.services.platform import platform
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make


def test_the_settings_are_the_platform(settings: Any) -> None:
    settings.GATEWAY_REF = "net/edge"
    settings.GATEWAY_PODS = "proxies/example.com/gateway=edge, tier=front"
    settings.MONITORING_NAMESPACE = "observability"
    settings.SLIPWAY_NAMESPACE = "portal"
    settings.CLUSTER_CIDRS = ["10.8.0.0/14"]
    settings.PROMETHEUS_SCRAPE_INTERVAL = 30
    settings.FETCH_MEMORY = "24Gi"

    known = platform()

    assert (known.gateway_namespace, known.gateway_name) == ("net", "edge")
    assert known.gateway_pods_namespace == "proxies"
    assert known.gateway_pods_labels == (("example.com/gateway", "edge"), ("tier", "front"))
    assert known.fetch_memory == "24Gi"
    assert (known.monitoring_namespace, known.portal_namespace) == ("observability", "portal")
    assert (known.cluster_cidrs, known.scrape_interval_seconds) == (("10.8.0.0/14",), 30)


@pytest.mark.parametrize("text", ["edge", "/edge", "net/", "a/b/c"])
def test_a_gateway_needs_namespace_and_name(settings: Any, text: str) -> None:
    settings.GATEWAY_REF = text

    with pytest.raises(ImproperlyConfigured):
        platform()


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
def test_what_is_asked_for_is_built_for_the_configured_platform(ann: Any, team: Any, settings: Any) -> None:
    settings.GATEWAY_REF = "net/edge"
    settings.GATEWAY_PODS = "proxies/example.com/gateway=edge, tier=front"
    settings.MONITORING_NAMESPACE = "observability"
    settings.PROMETHEUS_SCRAPE_INTERVAL = 30
    spec = DeploymentSpec.from_json(make.a_spec())

    row = requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)

    assert row.latest is not None
    objects = {obj["kind"]: obj for obj in row.latest.objects_json}
    parent = objects["HTTPRoute"]["spec"]["parentRefs"][0]
    assert (parent["namespace"], parent["name"]) == ("net", "edge")
    sources = objects["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert [source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for source in sources] == [
        "proxies",
        "observability",
    ]
    assert sources[0]["podSelector"] == {"matchLabels": {"example.com/gateway": "edge", "tier": "front"}}
    assert objects["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["interval"] == "30s"


@pytest.mark.parametrize("text", ["proxies", "/a=b", "proxies/", "proxies/a", "proxies/a=b,c"])
def test_pods_of_the_gateway_that_cannot_be_read_stop_the_portal(text: str, settings: Any) -> None:
    settings.GATEWAY_PODS = text
    with pytest.raises(ImproperlyConfigured, match="GATEWAY_PODS must be"):
        platform()


@pytest.mark.django_db
def test_roles_in_a_teams_namespace_go_to_accounts_of_the_configured_namespace(team: Any, settings: Any) -> None:
    settings.SLIPWAY_NAMESPACE = "portal"

    bindings = [wish.body for wish in desired_of_team(team).objects if wish.ref.kind == "RoleBinding"]

    assert len(bindings) == 2
    assert {binding["subjects"][0]["namespace"] for binding in bindings} == {"portal"}


@pytest.mark.parametrize("amount", ["", "8", "8G", "512Mi", "0Gi", "1.5Gi", "8Gi; rm", "99999999Gi"])
def test_memory_for_fetching_is_an_amount(settings: Any, amount: str) -> None:
    settings.FETCH_MEMORY = amount
    with pytest.raises(ImproperlyConfigured, match="SLIPWAY_FETCH_MEMORY"):
        platform()
