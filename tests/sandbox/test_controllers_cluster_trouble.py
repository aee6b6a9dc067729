"""The controllers when nodes fall silent, calls fail and the server restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import Client
from sandbox.lite.testing import Fault, running_cluster
from tests.sandbox.ground import (
    Ground,
    add_node,
    come_up,
    create,
    deployment,
    ensure_namespace,
    events_of,
    items,
    maybe,
    node,
    pod,
    shared,
    sweep,
    until,
)

APPS = "apps/v1"


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared() as running:
        yield running


def lease(name: str, age: float) -> dict[str, Any]:
    renewed = (datetime.now(UTC) - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"holderIdentity": name, "renewTime": renewed, "leaseDurationSeconds": 40},
    }


LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def test_a_silent_node_loses_its_pods_and_comes_back(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "kube-node-lease")
        await ensure_namespace(client, "lost")
        await client.create(LEASES, lease("silent", 32))  # 8 s until it is lost, for the pod to come up before
        await add_node(client, node("silent"))
        whole = deployment()
        patient = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
        whole["spec"]["template"]["spec"]["tolerations"] = [{**patient, "tolerationSeconds": 1}]
        await create(client, whole, namespace="lost")
        await until(lambda: _bound(client))
        await come_up(client, "lost")

        async def unreachable() -> bool:
            found = await client.get("/api/v1/nodes/silent")
            state = next(c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready")
            taints = {(t["key"], t["effect"]) for t in found["spec"].get("taints") or []}
            key = "node.kubernetes.io/unreachable"
            return state == "Unknown" and taints == {(key, "NoSchedule"), (key, "NoExecute")}

        await until(unreachable, "an unreachable node")
        pods = await items(client, "pods", "lost")
        assert next(c["status"] for c in pods[0]["status"]["conditions"] if c["type"] == "Ready") == "False"

        async def evicted() -> bool:
            found = await items(client, "pods", "lost")
            return len(found) == 2 and sum(bool(item["metadata"].get("deletionTimestamp")) for item in found) == 1

        await until(evicted, "a pod leaving and its successor")
        await client.patch(f"{LEASES}/silent", {"spec": lease("silent", 0)["spec"]})
        await client.patch_status("/api/v1/nodes/silent", {"status": {"conditions": node("x")["status"]["conditions"]}})

        async def back() -> bool:
            found = await client.get("/api/v1/nodes/silent")
            return (
                not found["spec"].get("taints")
                and sum(bool(item["spec"].get("nodeName")) for item in await items(client, "pods", "lost")) == 2
            )

        await until(back, "the node taking pods again")
        await client.delete(f"{LEASES}/silent")

    ground.play(scene)


def test_pods_of_a_node_that_is_gone_go_too(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "gone")
        await add_node(client, node("short-lived"))
        await create(client, pod("left-behind"), namespace="gone")

        async def bound() -> bool:
            return bool((await client.get("/api/v1/namespaces/gone/pods/left-behind"))["spec"].get("nodeName"))

        await until(bound)
        await client.delete("/api/v1/nodes/short-lived")

        async def collected() -> bool:
            return await maybe(client, "/api/v1/namespaces/gone/pods/left-behind") is None

        await until(collected, "the pod gone")

    ground.play(scene)


def test_a_cordon_is_a_taint(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await add_node(client, node("n"))
        await client.patch("/api/v1/nodes/n", {"spec": {"unschedulable": True}})

        async def tainted(wanted: bool) -> bool:
            found = await client.get("/api/v1/nodes/n")
            keys = [item["key"] for item in found["spec"].get("taints") or []]
            return ("node.kubernetes.io/unschedulable" in keys) is wanted

        await until(lambda: tainted(True))
        await client.patch("/api/v1/nodes/n", {"spec": {"unschedulable": None}})
        await until(lambda: tainted(False))

    ground.play(scene)


async def _bound(client: Client) -> bool:
    found = await items(client, "pods", "lost")
    return bool(found and found[0]["spec"].get("nodeName"))


# Trouble ----------------------------------------------------------------------------------------------------


def test_broken_and_lost_calls_double_nothing(ground: Ground) -> None:
    """Every third write of a controller fails, every fifth is carried out but its answer is lost."""
    counter = iter(range(10**9))

    def before(request: Any) -> Fault | None:
        writes = request.method in ("POST", "PUT", "PATCH", "DELETE") and "/troubled/" in request.path
        return Fault(status=500) if writes and next(counter) % 3 == 2 else None

    def after(request: Any) -> Fault | None:
        writes = request.method in ("POST", "PUT", "PATCH", "DELETE") and "/troubled/" in request.path
        return Fault(drop=True) if writes and next(counter) % 5 == 4 else None

    async def scene(client: Client) -> None:
        await ensure_namespace(client, "troubled")
        await add_node(client, node("n"))
        await create(client, deployment(replicas=4), namespace="troubled")
        ground.cluster.faults.before_hook, ground.cluster.faults.after_hook = before, after
        ground.cluster.drop_watches()

        async def settled() -> bool:
            pods = await items(client, "pods", "troubled")
            return len(pods) == 4 and all(item["spec"].get("nodeName") for item in pods)

        try:
            await until(settled, "four placed pods")
        finally:
            ground.cluster.faults.clear()
        await asyncio.sleep(0.3)
        assert len(await items(client, "replicasets", "troubled", APPS)) == 1
        assert await settled()

    ground.play(scene)


def test_a_restart_in_the_middle_is_carried_on_from_what_is_there(tmp_path: Path) -> None:
    async def begin(kubeconfig: Path) -> None:
        client = Client.from_kubeconfig(kubeconfig)
        await ensure_namespace(client, "kept")
        await create(client, deployment(replicas=2), namespace="kept")
        await until(lambda: events_of(client, "kept", "FailedScheduling"))
        await client.close()

    async def carry_on(kubeconfig: Path) -> None:
        client = Client.from_kubeconfig(kubeconfig)
        await add_node(client, node("n"))

        async def available() -> bool:
            await come_up(client, "kept")
            found = await client.get(f"/apis/{APPS}/namespaces/kept/deployments/chat")
            return bool(found["status"].get("availableReplicas") == 2)

        await until(available, "both pods up")
        assert len(await items(client, "pods", "kept")) == 2
        assert len(await items(client, "replicasets", "kept", APPS)) == 1
        await sweep(client)
        await client.close()

    with running_cluster(tmp_path) as cluster:
        asyncio.run(begin(cluster.kubeconfig))
    with running_cluster(tmp_path) as cluster:
        asyncio.run(carry_on(cluster.kubeconfig))
