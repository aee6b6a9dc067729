"""Least privilege, from the API server's own audit log: what was granted was used, and nothing else was asked for.

Runs after every other scenario of its ground; alone it can only tell what was refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from deployments.kube.errors import ClusterError
from deployments.kube.logs import LogSource
from deployments.manifests import TeamWish, build_team
from deployments.models import Flavor
from deployments.services.platform import platform
from portal.demo.layout import REPOSITORY
from sandbox.client import Client, Reflector
from sandbox.lite.bootstrap import read_manifests
from sandbox.metrics.app import Metrics
from sandbox.real.objects import SYSTEM, accounts
from sandbox.traffic.app import Traffic
from tests.deployments import factories as make
from tests.scenarios import privileges
from tests.scenarios.grounds import Ground
from tests.scenarios.privileges import ALL_NAMES, Use
from tests.scenarios.stage import RESTRICTED, Stage

pytestmark = pytest.mark.django_db

RBAC = REPOSITORY / "k8s" / "portal" / "rbac.yaml"
RBAC_GROUP = "rbac.authorization.k8s.io"
PORTAL = "worker", "watcher", "live"
ACCOUNTS = *PORTAL, "node", "gateway", "metrics"
LISTENING = "0A"  # TCP_LISTEN in include/net/tcp_states.h
NOWHERE = "http://127.0.0.1:9"
# Nothing of a group can be used where no server of it runs; on lite, which has one, the scenarios use it.
NOT_SERVED = {"keda.sh"}


def roles() -> Iterator[dict[str, Any]]:
    """Roles and bindings as an administrator installs them, those of the sandbox, and those in a team's namespace."""
    yield from read_manifests([RBAC])
    yield from accounts(())
    yield from bindings()


def of_a_team() -> list[dict[str, Any]]:
    """What the worker keeps in a team's namespace."""
    made: list[dict[str, Any]] = build_team(TeamWish("slipway", "search", "search-ab3de"))
    return [obj for obj in made if obj["kind"] != "Namespace"]


def bindings() -> list[dict[str, Any]]:
    """The bindings that the worker makes in a team's namespace."""
    return [obj for obj in of_a_team() if obj["kind"] == "RoleBinding"]


def names() -> set[str]:
    """Names that Slipway's own text gives or knows, whatever people ask for."""
    bound = {obj["roleRef"]["name"] for obj in bindings()}
    return {"kube-system", *bound, *(obj["metadata"]["name"] for obj in of_a_team())}


def done(ground: Ground) -> dict[str, set[Use]]:
    """Per account what it did; to bind a role is asked by the API server itself, at each RoleBinding, off the log."""
    uses = {account: set(found) for account, found in privileges.used(ground.audit_log).items()}
    if Use(RBAC_GROUP, "rolebindings", "create", privileges.IN_TEAMS) in uses.get("worker", ()):
        uses["worker"] |= {Use(RBAC_GROUP, "clusterroles", "bind", name=obj["roleRef"]["name"]) for obj in bindings()}
    return uses


def test_live_reads_logs_with_an_account_of_its_own(stage: Stage):
    row = stage.running()
    [pod] = stage.pods()

    async def read() -> str:
        source = LogSource(stage.ground.kubeconfig_of("live"))
        try:
            name = pod["metadata"]["name"]
            return await source.tail(row.team.namespace, name, "kserve-container", previous=False, lines=50)
        finally:
            await source.close()

    assert "vLLM" in asyncio.run(read())


def test_the_worker_keeps_a_teams_guards(stage: Stage):
    row = stage.applied()
    make.make_grant(stage.team, Flavor.objects.get(slug="l4-24gb"), 3)
    stage.ground.edit("LimitRange", "slipway", stage.namespace, {"spec": {"limits": []}})
    stage.ground.edit("RoleBinding", "slipway-live", stage.namespace, {"subjects": None})
    # Without the worker among its subjects nobody of Slipway could put it right.
    ours = stage.ground.read("RoleBinding", "slipway-worker", stage.namespace)["subjects"]
    more = {"kind": "ServiceAccount", "name": "live", "namespace": SYSTEM}
    stage.ground.edit("RoleBinding", "slipway-worker", stage.namespace, {"subjects": [*ours, more]})

    def kept() -> bool:
        stage.sweep(row)
        own = stage.ground.read("RoleBinding", "slipway-worker", stage.namespace)
        quota = stage.ground.read("ResourceQuota", "slipway", stage.namespace)
        limits = stage.ground.read("LimitRange", "slipway", stage.namespace)
        binding = stage.ground.read("RoleBinding", "slipway-live", stage.namespace)
        return bool(
            quota["spec"]["hard"]["requests.nvidia.com/gpu"] == "19"
            and limits["spec"]["limits"]
            and binding.get("subjects")
            and own["subjects"] == ours
        )

    stage.comes_to_pass(row, kept, note="a team's guards are put back")


def test_the_worker_binds_roles_in_teams_alone(stage: Stage):
    """With RBAC alone it could bind its team's role anywhere: it may bind that role."""
    stage.applied()
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "grab", "namespace": "kube-system"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "slipway-team-worker"},
        "subjects": [{"kind": "ServiceAccount", "name": "worker", "namespace": SYSTEM}],
    }
    with pytest.raises(ClusterError) as refused:
        stage.worker.create(binding)
    assert "only in namespaces of teams" in str(refused.value)
    assert stage.ground.read("RoleBinding", "grab", "kube-system") is None


def test_a_node_reads_what_a_containers_environment_names_in_any_namespace(stage: Stage):
    meta = {"name": f"words-{stage.namespace}", "namespace": "default"}
    name, namespace = meta["name"], meta["namespace"]
    container = {
        "name": "main",
        "image": "registry.k8s.io/pause:3.10",
        "securityContext": RESTRICTED,
        "envFrom": [{"secretRef": {"name": name}}, {"configMapRef": {"name": name}}],
    }
    spec = {
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "terminationGracePeriodSeconds": 1,  # with none the API server removes it without its node
        "containers": [container],
    }
    stage.ground.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"LEVEL": "info"}})
    stage.ground.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def state(what: str) -> dict[str, Any]:
        found = stage.ground.read("Pod", name, namespace)
        states = (found or {"status": {}})["status"].get("containerStatuses") or [{}]
        return cast(dict[str, Any], states[0].get("state", {}).get(what) or {})

    def said_again() -> bool:
        events = stage.ground.list("Event", namespace)
        return any(item["involvedObject"]["name"] == name and item.get("count", 1) > 1 for item in events)

    try:
        stage.driven.until(said_again, seconds=60)
        assert state("waiting")["reason"] == "CreateContainerConfigError"
        stage.ground.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"TOKEN": "hf_x"}})
        stage.driven.until(lambda: state("running"), seconds=60)
    finally:
        for kind in ("Pod", "Secret", "ConfigMap"):
            stage.ground.remove(kind, name, namespace)
    stage.driven.until(lambda: stage.ground.read("Pod", name, namespace) is None, seconds=30)


def test_a_gateway_says_what_became_of_a_route_in_any_namespace(stage: Stage):
    """It serves the cluster: routes and pools are not only those of teams."""
    meta = {"name": f"way-{stage.namespace}", "namespace": "default"}
    known = platform()
    pool = {
        "selector": {"matchLabels": {"app": meta["name"]}},
        "targetPorts": [{"number": 8000}],
        "endpointPickerRef": {"name": meta["name"], "kind": "Service", "port": {"number": 9002}},
    }
    backend = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": meta["name"], "port": 8000}
    route = {
        "parentRefs": [{"name": known.gateway_name, "namespace": known.gateway_namespace}],
        "rules": [{"backendRefs": [backend]}],
    }
    stage.ground.create(
        {"apiVersion": f"{backend['group']}/v1", "kind": "InferencePool", "metadata": meta, "spec": pool}
    )
    stage.ground.create(
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta, "spec": route}
    )

    def told() -> bool:
        found = [stage.ground.read(kind, meta["name"], meta["namespace"]) for kind in ("HTTPRoute", "InferencePool")]
        return all((obj or {}).get("status", {}).get("parents") for obj in found)

    try:
        stage.driven.until(told, seconds=30)
    finally:
        for kind in ("HTTPRoute", "InferencePool"):
            stage.ground.remove(kind, meta["name"], meta["namespace"])


def test_an_agent_that_is_started_again_takes_its_node_over(ground: Ground):
    name, label = "gpu-l4-2", "nvidia.com/gpu.product"
    before = ground.read("Node", name) or {}
    ground.edit("Node", name, "", {"metadata": {"labels": {label: "forgotten"}}})

    ground.agents.restart(name)

    deadline = time.monotonic() + 30
    while (after := ground.read("Node", name) or {})["metadata"]["labels"][label] == "forgotten":
        assert time.monotonic() < deadline, "the node was not taken over"
        time.sleep(0.1)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["podCIDR"] == before["spec"]["podCIDR"]


def test_metrics_and_traffic_follow_what_changes(stage: Stage, tmp_path: Path):
    where = stage.namespace
    with following(stage.ground.kubeconfig_of("metrics"), tmp_path) as stores:
        stage.driven.until(lambda: all(store.synced.is_set() for store in stores.values()))
        stage.applied()
        rule = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "spec": {"groups": []}}
        stage.ground.create({**rule, "metadata": {"name": "later", "namespace": where}})
        stage.ground.edit("Node", "gpu-l4-1", "", {"metadata": {"annotations": {"example.com/seen": where}}})

        def unseen() -> set[str]:
            found = {name for name, store in stores.items() if where in {place for place, _ in store.store}}
            node = stores["nodes"].store["", "gpu-l4-1"]
            seen = (node["metadata"].get("annotations") or {}).get("example.com/seen")
            return stores.keys() - found - ({"nodes"} if seen == where else set())

        stage.driven.until(lambda: not unseen(), seconds=30)
    stage.ground.edit("Node", "gpu-l4-1", "", {"metadata": {"annotations": {"example.com/seen": None}}})


def test_nothing_listens_beyond_this_machine(ground: Ground):
    open_to_all = {
        (name, address)
        for name, row in json.loads((ground.data / "processes.json").read_text()).items()
        if row["pid"]
        for address in listening(row["pid"])
        if not ipaddress.ip_address(address).is_loopback
    }
    assert open_to_all == set()


def test_nobody_asks_for_what_was_not_granted(ground: Ground):
    assert beyond_what_was_granted(ground) == {account: [] for account in ACCOUNTS}


def test_what_was_granted_was_used(ground: Ground, request: pytest.FixtureRequest):
    if getattr(request.config.option, "lf", False):  # unknown without the cache plugin
        pytest.fail("only a run of all scenarios tells what is not used: a second look at it alone proves nothing")
    if not whole(request):
        pytest.skip("only a run of all scenarios tells what is not used")
    silent = {module.name for module in request.path.parent.glob("test_*.py") if module not in ground.played}
    assert silent == set(), "they played nothing here: no scenarios, or this cluster was started anew in between"

    granted, used = privileges.granted(roles()), done(ground)
    served = {
        account: {right for right in rights if right.group not in NOT_SERVED} for account, rights in granted.items()
    }
    left = {account: list(privileges.unused(served[account], used.get(account, ()), names())) for account in ACCOUNTS}
    assert left == {account: [] for account in ACCOUNTS}
    assert of_secrets(used) == {"worker": {"create", "delete"}}


def test_of_secrets_the_portal_may_only_create_and_delete() -> None:
    """The worker makes and removes those of teams' credentials; nobody reads one, and nobody else has any right."""
    assert of_secrets(privileges.granted(roles())) == {"worker": {"create", "delete"}}


def beyond_what_was_granted(ground: Ground) -> dict[str, list[str]]:
    """Per account what it asked for or did on a cluster without a right to it.

    A scenario takes a role away and an API server that starts refuses everybody: both was granted and used, too.
    """
    refused, used = privileges.refused(ground.audit_log), privileges.used(ground.audit_log)
    granted = privileges.granted(roles())
    known = {account: {use.of(ALL_NAMES) for use in used.get(account, ())} for account in ACCOUNTS}
    return {
        account: [
            *(
                f"refused: {use}: {path}"
                for use, path in refused.get(account, {}).items()
                if use.of(ALL_NAMES) not in known[account]
            ),
            *(f"allowed: {line}" for line in privileges.not_granted(granted[account], used.get(account, {}))),
        ]
        for account in ACCOUNTS
    }


def of_secrets(uses: Mapping[str, Iterable[Use]]) -> dict[str, set[str]]:
    """The verbs on Secrets of each account of the portal that has any."""
    found = {account: {use.verb for use in uses.get(account, ()) if use.resource == "secrets"} for account in PORTAL}
    return {account: verbs for account, verbs in found.items() if verbs}


@contextmanager
def following(kubeconfig: Path, folder: Path) -> Iterator[dict[str, Reflector]]:
    """What the sandbox's metrics and traffic know of the cluster, by resource, as long as the block runs."""
    client = Client.from_kubeconfig(kubeconfig)
    metrics = Metrics(
        client, targets=folder / "targets", rules=folder / "rules", prometheus_url=NOWHERE, address="127.0.0.1:9"
    )
    traffic = Traffic(client, NOWHERE, plan=None, token=None)
    ended = threading.Event()

    async def follow() -> None:
        async with asyncio.TaskGroup() as tasks:
            parts = [tasks.create_task(part.run()) for part in (metrics, traffic)]
            await asyncio.to_thread(ended.wait)
            for part in parts:
                part.cancel()
        await client.close()

    thread = threading.Thread(target=asyncio.run, args=[follow()])
    thread.start()
    try:
        yield {**metrics.reflectors, "services": traffic.services}
    finally:
        ended.set()
        thread.join(30)


def listening(pid: int) -> set[str]:
    """Addresses on which a process takes TCP connections, from /proc."""
    own = {link for path in Path(f"/proc/{pid}/fd").iterdir() if (link := _target(path)).startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and f"socket:[{words[9]}]" in own:
                found.add(_address(words[1].partition(":")[0]))
    return found


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""  # closed in between


def _address(text: str) -> str:
    """An address of /proc/net/tcp: hexadecimal, each 32 bits in the machine's own order."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def whole(request: pytest.FixtureRequest) -> bool:
    """Whether every module of scenarios is part of this run, with all its tests."""
    modules = {item.path for item in request.session.items if item.path.parent == request.path.parent}
    return modules == set(request.path.parent.glob("test_*.py")) and not request.config.option.keyword
