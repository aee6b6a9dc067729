"""The gateway in front of InferencePools: which pods a request may go to, who prefills, and the pool's status."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.gateway.attachment import CONTROLLER, POOL_GROUP, Known, our_gateways, pool_status, resolved
from sandbox.gateway.endpoints import Balancer, pool_endpoints
from tests.sandbox.test_gateway_rules import NOW, gateway, ready_pod

CLASSES = [{"metadata": {"name": "ours"}, "spec": {"controllerName": CONTROLLER}}]


def pool(mode: str = "FailOpen") -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "team", "generation": 1},
        "spec": {
            "selector": {"matchLabels": {"app": "chat"}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}, "failureMode": mode},
        },
    }


def pods(**roles: str) -> list[dict[str, Any]]:
    return [ready_pod(name, labels={"app": "chat", "llm-d.ai/role": role}) for name, role in roles.items()]


def test_pods_that_prefill_get_no_request_of_their_own() -> None:
    found = pool_endpoints(pool(), pods(d0="decode", p0="prefill", p1="prefill"), picker=True)

    assert [(item.pod, item.port) for item in found] == [("d0", 8000)]
    assert [item.pod for item in found[0].prefillers] == ["p0", "p1"]


def test_pods_that_do_both_need_no_prefiller() -> None:
    found = pool_endpoints(pool(), pods(a="both", b="both"), picker=True)

    assert [(item.pod, item.prefillers) for item in found] == [("a", ()), ("b", ())]


@pytest.mark.parametrize(("mode", "expected"), [("FailOpen", ["d0", "p0"]), ("FailClose", [])])
def test_without_a_picker_the_failure_mode_decides(mode: str, expected: list[str]) -> None:
    found = pool_endpoints(pool(mode), pods(d0="decode", p0="prefill"), picker=False)

    assert [item.pod for item in found] == expected
    assert all(not item.prefillers for item in found)


def test_prompts_go_to_the_prefiller_with_fewest() -> None:
    (decode,) = pool_endpoints(pool(), pods(d0="decode", p0="prefill", p1="prefill"), picker=True)
    balancer = Balancer()

    with balancer.prefilling(decode) as first, balancer.prefilling(decode) as second:
        assert first is not None
        assert second is not None
        assert {first.pod, second.pod} == {"p0", "p1"}


def route(name: str = "p", namespace: str = "team") -> dict[str, Any]:
    backend = {"group": POOL_GROUP, "kind": "InferencePool", "name": name}
    return {
        "metadata": {"name": "r", "namespace": namespace, "generation": 1},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "rules": [{"backendRefs": [backend]}],
        },
    }


def known(*services: str) -> Known:
    return Known(
        gateways=our_gateways(CLASSES, [gateway()]),
        services={("team", name): {} for name in services},
        namespace_labels={},
        pools={("team", "p"): pool()},
    )


def test_a_pool_behind_one_of_our_routes_is_accepted() -> None:
    status = pool_status(pool(), [route()], known("picker"), NOW)

    assert status is not None
    (parent,) = status["parents"]
    assert (parent["parentRef"]["namespace"], parent["parentRef"]["name"]) == ("kserve", "kserve-ingress-gateway")
    assert {item["type"]: item["status"] for item in parent["conditions"]} == {
        "Accepted": "True",
        "ResolvedRefs": "True",
    }
    assert pool_status({**pool(), "status": status}, [route()], known("picker"), NOW) == status
    assert resolved(route(), known()).reason == "ResolvedRefs"


def test_a_pool_without_its_picker_says_so_and_one_without_a_route_says_nothing() -> None:
    status = pool_status(pool(), [route()], known(), NOW)

    assert status is not None
    assert status["parents"][0]["conditions"][1]["reason"] == "InvalidExtensionRef"
    assert pool_status(pool(), [route("other"), route(namespace="elsewhere")], known(), NOW) is None
    assert pool_status({**pool(), "status": status}, [], known(), NOW) == {"parents": []}
