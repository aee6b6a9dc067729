"""Which route a request takes, what becomes of its path, and who may pass: the gateway's decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from sandbox.gateway.attachment import CONTROLLER, Known, gateway_status, our_gateways, route_status, served
from sandbox.gateway.authorization import Authorizer, Decision
from sandbox.gateway.endpoints import Balancer, Endpoint, ready_endpoints
from sandbox.gateway.routes import Backend, changed_headers, find, rewritten, safe_path, seconds, table

NOW = datetime(2026, 11, 25, 14, 0, tzinfo=UTC)
GATEWAY = {"name": "kserve-ingress-gateway", "namespace": "kserve"}


def route(
    name: str, *paths: str, kind: str = "PathPrefix", namespace: str = "team", hosts: list[str] | None = None,
    rewrite: str | None = None, **rule: Any,
) -> dict[str, Any]:  # fmt: skip
    filters = rule.pop("filters", [])
    if rewrite is not None:
        change = {"type": "ReplacePrefixMatch", "replacePrefixMatch": rewrite}
        filters = [*filters, {"type": "URLRewrite", "urlRewrite": {"path": change}}]
    matches = rule.pop("matches", [{"path": {"type": kind, "value": path}} for path in paths])
    backends = rule.pop("backendRefs", [{"name": f"{name}-predictor", "port": 80}])
    return {
        "metadata": {"name": name, "namespace": namespace, "generation": 1},
        "spec": {
            "parentRefs": [GATEWAY],
            **({"hostnames": hosts} if hosts else {}),
            "rules": [{"matches": matches, "filters": filters, "backendRefs": backends, **rule}],
        },
    }


def taken(routes: list[dict[str, Any]], path: str, host: str = "", method: str = "GET", **headers: str) -> str | None:
    found = find(table(routes), host, path, method, headers)
    return found.route if found else None


def test_the_longest_prefix_wins_whatever_the_order() -> None:
    routes = [route("all", "/"), route("deep", "/team/chat/v1"), route("chat", "/team/chat")]

    assert taken(routes, "/team/chat/v1/models") == "deep"
    assert taken(routes, "/team/chat") == "chat"
    assert taken(routes, "/team/chat/") == "chat"
    assert taken(routes, "/team/chatty") == "all"


@pytest.mark.parametrize("path", ["/team%2Fchat/v1", "/TEAM/chat", "/team", "/team//chat"])
def test_a_prefix_is_compared_by_whole_decoded_segments(path: str) -> None:
    assert taken([route("chat", "/team/chat")], path) is None


def test_an_encoded_letter_is_the_letter() -> None:
    assert taken([route("chat", "/team/chat")], "/team/ch%61t/v1") == "chat"


def test_exact_goes_before_prefix_and_prefix_before_expression() -> None:
    routes = [
        route("expression", "^/a/.*$", kind="RegularExpression"),
        route("prefix", "/a/b"),
        route("exact", "/a/b/c", kind="Exact"),
    ]

    assert taken(routes, "/a/b/c") == "exact"
    assert taken(routes, "/a/b/d") == "prefix"
    assert taken(routes, "/a/x") == "expression"


def test_hosts_exact_before_wildcard_before_any() -> None:
    routes = [
        route("any", "/"),
        route("wild", "/", hosts=["*.example.com"]),
        route("named", "/", hosts=["a.example.com"]),
    ]

    assert taken(routes, "/", "a.example.com") == "named"
    assert taken(routes, "/", "b.example.com") == "wild"
    assert taken(routes, "/", "example.com") == "any"


def test_methods_and_headers_narrow_a_match() -> None:
    path = {"type": "PathPrefix", "value": "/"}
    routes = [
        route("get", matches=[{"path": path, "method": "GET"}]),
        route("canary", matches=[{"path": path, "headers": [{"name": "X-Canary", "value": "1"}]}]),
    ]

    assert taken(routes, "/") == "get"
    assert taken(routes, "/", method="POST") is None
    assert taken(routes, "/", method="POST", **{"x-canary": "1"}) == "canary"


@pytest.mark.parametrize(
    ("path", "becomes"),
    [
        ("/team/chat/v1/models", "/v1/models"),
        ("/team/chat", "/"),
        ("/team/chat/", "/"),
        ("/team/chat/v1/", "/v1/"),
        ("/team/chat/a%2Fb", "/a%2Fb"),
    ],
)
def test_the_prefix_is_replaced(path: str, becomes: str) -> None:
    rule = table([route("chat", "/team/chat", rewrite="/")])[0]

    assert rewritten(rule, path) == becomes
    assert rewritten(table([route("chat", "/team/chat", rewrite="/x/")])[0], "/team/chat/v1") == "/x/v1"


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("/a/b", True), ("/", True), ("/a/../b", False), ("/a/%2e%2e/b", False), ("/a/./b", False),
        ("/a/..%2Fb", False), ("/a/b..c", True), ("/a/%5c..", False), ("/v1/models/Qwen%2FQwen2.5", True),
    ],
)  # fmt: skip
def test_paths_that_lead_elsewhere_are_not_safe(path: str, safe: bool) -> None:
    assert safe_path(path) is safe


def test_headers_are_set_added_and_removed() -> None:
    modifier = {"set": [{"name": "A", "value": "2"}], "add": [{"name": "B", "value": "3"}], "remove": ["C"]}
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}]
    rule = table([route("chat", "/", filters=filters)])[0]
    given = [("a", "1"), ("b", "1"), ("c", "1")]

    assert changed_headers(rule, given, "RequestHeaderModifier") == [("b", "1"), ("a", "2"), ("b", "3")]
    assert changed_headers(rule, given, "ResponseHeaderModifier") == given


@pytest.mark.parametrize(("text", "value"), [("600s", 600), ("1m30s", 90), ("500ms", 0.5), ("0s", None), (None, None)])
def test_durations(text: str | None, value: float | None) -> None:
    assert seconds(text) == value


# Attachment -------------------------------------------------------------------------------------------------


def gateway(allowed: str = "All", **listener: Any) -> dict[str, Any]:
    rule = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": allowed}}}
    return {
        "metadata": {**GATEWAY, "generation": 1},
        "spec": {"gatewayClassName": "ours", "listeners": [{**rule, **listener}]},
    }


def known(*gateways: dict[str, Any], services: tuple[str, ...] = ("chat-predictor",)) -> Known:
    classes = [{"metadata": {"name": "ours"}, "spec": {"controllerName": CONTROLLER}}]
    return Known(
        gateways=our_gateways(classes, gateways or [gateway()]),
        services={("team", name): {} for name in services},
        namespace_labels={"team": {"expose": "true"}},
    )


def reasons(wanted: dict[str, Any], around: Known) -> dict[str, tuple[str, str]]:
    status = route_status(wanted, around, NOW)
    assert status is not None
    conditions = status["parents"][0]["conditions"]
    return {item["type"]: (item["status"], item["reason"]) for item in conditions}


def test_a_good_route_is_accepted_and_resolved() -> None:
    assert reasons(route("chat", "/"), known()) == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }


@pytest.mark.parametrize(
    ("change", "gateways", "kind", "reason"),
    [
        ({}, gateway("Same"), "Accepted", "NotAllowedByListeners"),
        ({"hosts": ["a.test"]}, gateway(hostname="*.example.com"), "Accepted", "NoMatchingListenerHostname"),
        ({"filters": [{"type": "RequestMirror"}]}, gateway(), "Accepted", "UnsupportedValue"),
        ({"backendRefs": [{"name": "nobody", "port": 80}]}, gateway(), "ResolvedRefs", "BackendNotFound"),
        (
            {"backendRefs": [{"name": "chat-predictor", "namespace": "other", "port": 80}]},
            gateway(), "ResolvedRefs", "RefNotPermitted",
        ),
        (
            {"backendRefs": [{"name": "p", "group": "inference.networking.x-k8s.io", "kind": "InferencePool"}]},
            gateway(), "ResolvedRefs", "InvalidKind",
        ),
        (
            {"backendRefs": [{"name": "p", "group": "inference.networking.k8s.io", "kind": "InferencePool"}]},
            gateway(), "ResolvedRefs", "BackendNotFound",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_route_is_in_its_status(
    change: dict[str, Any], gateways: dict[str, Any], kind: str, reason: str
) -> None:
    assert reasons(route("chat", "/", **change), known(gateways))[kind] == ("False", reason)


def test_a_selector_lets_labelled_namespaces_in() -> None:
    rule = {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"expose": "true"}}}}
    around = known(gateway(allowedRoutes=rule))

    taken_in = served([route("in", "/"), route("out", "/", namespace="x")], around)

    assert [item["metadata"]["name"] for item in taken_in] == ["in"]


def test_a_route_of_a_foreign_gateway_is_left_alone() -> None:
    foreign = route("chat", "/")
    foreign["spec"]["parentRefs"] = [{"name": "another"}]

    assert route_status(foreign, known(), NOW) is None
    assert served([foreign], known()) == []


def test_a_gateway_counts_its_routes_and_keeps_its_times() -> None:
    mine = gateway()
    around = known(mine)
    mine["status"] = gateway_status(mine, [route("chat", "/")], around, "127.0.0.1", NOW)

    later = gateway_status(mine, [route("chat", "/")], around, "127.0.0.1", datetime(2027, 1, 1, tzinfo=UTC))

    assert later == mine["status"]
    assert later["listeners"][0]["attachedRoutes"] == 1
    assert {item["type"]: item["status"] for item in later["conditions"]} == {"Accepted": "True", "Programmed": "True"}


# Endpoints --------------------------------------------------------------------------------------------------


def ready_pod(name: str, *, ready: bool = True, **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": name, "labels": {"app": "chat"}, **meta},
        "spec": {"containers": [{"ports": [{"name": "http1", "containerPort": 8080}]}]},
        "status": {"podIP": "127.9.0.1", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


@pytest.mark.parametrize("target", [8080, "http1"])
def test_only_ready_pods_that_stay_take_requests(target: int | str) -> None:
    ports = [{"port": 80, "targetPort": target}]
    service = {"spec": {"selector": {"app": "chat"}, "ports": ports}}
    pods = [
        ready_pod("good"),
        ready_pod("unready", ready=False),
        ready_pod("leaving", deletionTimestamp="now"),
        ready_pod("other", labels={"app": "other"}),
    ]

    assert ready_endpoints(service, 80, pods) == [Endpoint("good", "good", "127.9.0.1", 8080)]
    assert ready_endpoints(service, 81, pods) == []


def test_the_least_busy_pod_is_chosen() -> None:
    balancer = Balancer()
    one, two = (Endpoint(name, name, "127.9.0.1", 8080) for name in ("one", "two"))

    with balancer.occupied(one):
        assert {balancer.pick([one, two]).uid for _ in range(20)} == {"two"}
    assert {balancer.pick([one, two]).uid for _ in range(50)} == {"one", "two"}


def test_weights_share_requests_among_backends_that_have_pods() -> None:
    balancer = Balancer()
    pods = {name: [Endpoint(name, name, "127.9.0.1", 8080)] for name in ("heavy", "light", "off")}
    weights = {"heavy": 90, "light": 10, "off": 0}
    backends = [(Backend("team", name, 80, weight), pods[name]) for name, weight in weights.items()]

    chosen = [balancer.backend(backends)[0].uid for _ in range(1000)]

    assert chosen.count("off") == 0
    assert 820 < chosen.count("heavy") < 970
    assert balancer.backend([(Backend("team", "heavy", 80, 1), []), backends[1]])[0].uid == "light"
    assert balancer.backend([]) == []


# Authorisation ----------------------------------------------------------------------------------------------


class Authority:
    """A portal that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: int | None = 200
        self.now = 1000.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append({"header": request.headers.get("authorization"), "body": request.read()})
        if self.answer is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(self.answer, json={"subject": "alice"})


def play(scene: Callable[[Authority, Callable[..., Awaitable[Decision]]], Awaitable[None]]) -> None:
    async def whole() -> None:
        authority = Authority()
        http = httpx.AsyncClient(transport=httpx.MockTransport(authority))
        door = Authorizer("http://portal/live/authorize/", http, clock=lambda: authority.now)

        async def ask(header: str | None = "Bearer k", name: str = "chat") -> Decision:
            return await door.decide("team", name, "/v1/models", "GET", header)

        await scene(authority, ask)
        await door.close()

    asyncio.run(whole())


def test_an_answer_counts_for_five_seconds_per_key_and_model() -> None:
    async def scene(authority: Authority, ask: Callable[..., Awaitable[Decision]]) -> None:
        assert [(await ask()).status for _ in range(3)] == [200] * 3
        assert len(authority.asked) == 1
        assert authority.asked[0]["header"] == "Bearer k"
        assert httpx.Response(200, content=authority.asked[0]["body"]).json() == {
            "namespace": "team", "name": "chat", "path": "/v1/models", "method": "GET",
        }  # fmt: skip
        await ask("Bearer other")
        await ask(name="mail")
        assert len(authority.asked) == 3
        authority.now += 5.1
        authority.answer = 403
        assert (await ask()).status == 403

    play(scene)


def test_many_equal_questions_at_once_are_asked_once() -> None:
    async def scene(authority: Authority, ask: Callable[..., Awaitable[Decision]]) -> None:
        decisions = await asyncio.gather(*(ask() for _ in range(20)))
        assert {item.status for item in decisions} == {200}
        assert len(authority.asked) == 1

    play(scene)


@pytest.mark.parametrize("trouble", [None, 500, 502])
def test_with_the_authority_down_the_last_answer_counts_for_a_minute(trouble: int | None) -> None:
    async def scene(authority: Authority, ask: Callable[..., Awaitable[Decision]]) -> None:
        await ask()
        authority.answer = trouble
        authority.now += 59
        assert (await ask()).status == 200
        assert (await ask("Bearer stranger")).status == 503
        authority.now += 2
        assert (await ask()).status == 503

    play(scene)


def test_a_refusal_is_remembered_too() -> None:
    async def scene(authority: Authority, ask: Callable[..., Awaitable[Decision]]) -> None:
        authority.answer = 401
        assert [(await ask(None)).status for _ in range(2)] == [401, 401]
        assert len(authority.asked) == 1
        assert authority.asked[0]["header"] is None

    play(scene)
