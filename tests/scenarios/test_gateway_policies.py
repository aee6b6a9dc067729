"""How Slipway itself is run, on a cluster with Envoy Gateway's kinds: each object is taken as it is, strictly."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client as official

from portal.demo.layout import REPOSITORY
from tests.ops.test_kubernetes import OBJECTS, of_kind
from tests.scenarios.grounds import Ground, Object

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# Some of it the ground has from k8s/portal already, put there by another hand.
STRICT = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "kubectl", "force": "true"}
# Beside these lies what Envoy Gateway makes of our objects (`translated.json`).
FILES = sorted((REPOSITORY / "tests" / "data" / "envoy-gateway-1.7.0").glob("*policies.json"))


@pytest.fixture(scope="module")
def envoy_gateway(ground: Ground) -> Iterator[Ground]:
    """The ground with Envoy Gateway's kinds, and the namespaces of Slipway and of the Gateway."""
    definitions = [json.loads(path.read_text()) for path in FILES]
    for definition in definitions:
        ground.call("POST", CRDS, definition)
    made = [name for name in ("slipway-system", "kserve") if ground.read("Namespace", name) is None]
    for name in made:
        ground.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for definition in definitions:
        _wait_until_served(ground, f"/apis/gateway.envoyproxy.io/v1alpha1/{definition['spec']['names']['plural']}")
    yield ground
    for name in made:
        ground.remove("Namespace", name)
    for definition in definitions:
        ground.call("DELETE", f"{CRDS}/{definition['metadata']['name']}")


def test_every_object_of_slipway_itself_is_taken(envoy_gateway: Ground) -> None:
    for obj in OBJECTS:
        taken = apply(envoy_gateway, obj)
        assert taken["metadata"]["name"] == obj["metadata"]["name"]


def without_target(policy: Any) -> None:
    policy["spec"].pop("targetRefs")


def both_ways_at_once(policy: Any) -> None:
    policy["spec"]["extProc"][0]["processingMode"]["response"]["body"] = "FullDuplexStreamed"


def without_port(policy: Any) -> None:
    policy["spec"]["extProc"][0]["backendRefs"][0].pop("port")


def misspelt(policy: Any) -> None:
    policy["spec"]["extProc"][0]["failopen"] = True


def test_what_the_gateway_would_not_understand_is_refused(envoy_gateway: Ground) -> None:
    breaks: list[Callable[[Any], None]] = [without_target, both_ways_at_once, without_port, misspelt]
    for broken in breaks:
        policy = copy.deepcopy(of_kind("EnvoyExtensionPolicy")["slipway-endpoints"])
        broken(policy)
        with pytest.raises(official.ApiException) as refused:
            apply(envoy_gateway, policy)
        assert refused.value.status in {400, 422, 500}, broken.__name__


def apply(ground: Ground, obj: Object) -> Object:
    """What the API server would make of it; ApiException where it would not take it."""
    path = f"{collection(ground, obj)}/{obj['metadata']['name']}"
    return ground.call("PATCH", path, obj, kind="application/apply-patch+yaml", query=STRICT)


def collection(ground: Ground, obj: Object) -> str:
    """Where objects of this kind are, as the API server lists its kinds."""
    version, namespace = obj["apiVersion"], obj["metadata"].get("namespace")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    resources = ground.call("GET", root)["resources"]
    (found,) = (row for row in resources if row["kind"] == obj["kind"] and "/" not in row["name"])
    return f"{root}/namespaces/{namespace}/{found['name']}" if found["namespaced"] else f"{root}/{found['name']}"


def _wait_until_served(ground: Ground, path: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ground.call("GET", path)
            return
        except official.ApiException as error:
            if error.status != 404 or time.monotonic() > deadline:
                raise
        time.sleep(0.2)
