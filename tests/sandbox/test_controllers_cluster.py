"""The controllers at work on the running lite ground: placing, rolling, collecting, counting, losing nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.client import Client
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
    until,
)

APPS = "apps/v1"


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared() as running:
        yield running


def test_a_pod_without_a_place_gets_one_when_another_goes(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "place")
        await add_node(client, node("small", gpus=1))
        await create(client, deployment("first"), namespace="place")
        await until(lambda: _bound(client, "place", "first"), "the first pod's node")
        await create(client, deployment("second"), namespace="place")

        async def refused() -> bool:
            found = await _pod(client, "place", "second")
            conditions = (found or {}).get("status", {}).get("conditions") or []
            return any(c["reason"] == "Unschedulable" for c in conditions if c["type"] == "PodScheduled")

        await until(refused, "Unschedulable")
        told = await until(lambda: events_of(client, "place", "FailedScheduling"), "the event")
        assert told == [
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: "
            "0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ]
        await client.delete(f"/apis/{APPS}/namespaces/place/deployments/first")

        async def placed() -> bool:
            await come_up(client, "place")
            return await _bound(client, "place", "second")

        await until(placed, "the second pod's node")

    ground.play(scene)


def test_a_new_node_takes_waiting_pods(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "waiting")
        await create(client, deployment("waits", replicas=3), namespace="waiting")
        await until(lambda: events_of(client, "waiting", "FailedScheduling"))
        await add_node(client, node("large", gpus=2))

        async def two() -> bool:
            return sum(bool(item["spec"].get("nodeName")) for item in await items(client, "pods", "waiting")) == 2

        await until(two, "two pods on two GPUs")
        await asyncio.sleep(0.2)
        assert await two()  # and never a third

    ground.play(scene)


async def _pod(client: Client, where: str, app: str) -> dict[str, Any] | None:
    found = [item for item in await items(client, "pods", where) if item["metadata"]["labels"]["app"] == app]
    return found[0] if found else None


async def _bound(client: Client, where: str, app: str) -> bool:
    found = await _pod(client, where, app)
    return found is not None and bool(found["spec"].get("nodeName"))


def test_a_rolling_update_keeps_serving_and_leaves_a_numbered_history(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "roll")
        await add_node(client, node("n", gpus=8))
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        await create(client, deployment(replicas=3, strategy=strategy, revisionHistoryLimit=1), namespace="roll")
        path = f"/apis/{APPS}/namespaces/roll/deployments/chat"
        for number, image in enumerate(("one", "two", "three"), 1):
            container = {"name": "c", "image": image, "resources": {"limits": {"nvidia.com/gpu": "1"}}}
            await client.patch(path, {"spec": {"template": {"spec": {"containers": [container]}}}})
            least: list[int] = []
            await until(lambda n=number, seen=least: _rolled(client, path, n, seen), f"revision {number} to be out")
            assert number == 1 or min(least) >= 3
        sets = await items(client, "replicasets", "roll", APPS)
        assert sorted(item["spec"]["replicas"] for item in sets) == [0, 3]  # the oldest was cleared away
        scaled = await events_of(client, "roll", "ScalingReplicaSet")
        assert sum(text.startswith("Scaled up") for text in scaled) >= 3

    ground.play(scene)


async def _rolled(client: Client, path: str, revision: int, least: list[int]) -> bool:
    await come_up(client, "roll")
    found = await client.get(path)
    status = found.get("status") or {}
    least.append(status.get("availableReplicas", 0))
    numbered = (found["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision") == str(revision)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return numbered and counts == [3, 3, 3] and status.get("observedGeneration") == found["metadata"]["generation"]


def test_recreate_stops_the_old_before_it_starts_the_new(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "again")
        await add_node(client, node("n", gpus=1))
        await create(client, deployment(strategy={"type": "Recreate"}), namespace="again")
        await until(lambda: _bound(client, "again", "chat"))
        await come_up(client, "again")
        container = {"name": "c", "image": "two", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
        path = f"/apis/{APPS}/namespaces/again/deployments/chat"
        await client.patch(path, {"spec": {"template": {"spec": {"containers": [container]}}}})

        async def leaving() -> bool:
            return all(item["metadata"].get("deletionTimestamp") for item in await items(client, "pods", "again"))

        await until(leaving, "the old pod leaving")
        await asyncio.sleep(0.2)
        assert len(await items(client, "pods", "again")) == 1  # the new one waits
        await come_up(client, "again")

        async def replaced() -> bool:
            found = await _pod(client, "again", "chat")
            return found is not None and found["spec"]["containers"][0]["image"] == "two"

        await until(replaced, "the new pod")

    ground.play(scene)


# Garbage ----------------------------------------------------------------------------------------------------


def config_map(name: str, owner: dict[str, Any] | None = None) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name}
    if owner is not None:
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"]}
        meta["ownerReferences"] = [{**reference, "uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}


MAPS = "/api/v1/namespaces/tidy/configmaps"


async def family(client: Client) -> None:
    """A grandparent, a parent and a child."""
    await ensure_namespace(client, "tidy")
    owner = None
    for name in ("grandparent", "parent", "child"):
        owner = await client.create(MAPS, config_map(name, owner))


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_what_is_owned_goes_with_its_owner(ground: Ground, policy: str) -> None:
    async def scene(client: Client) -> None:
        await family(client)
        await asyncio.sleep(0.1)
        await client.delete(f"{MAPS}/grandparent", {"propagationPolicy": policy})

        async def gone() -> bool:
            names = {item["metadata"]["name"] for item in await items(client, "configmaps", "tidy")}
            if policy == "Foreground" and "grandparent" not in names:
                assert not names & {"parent", "child"}  # the owner is the last to go
            return not names & {"grandparent", "parent", "child"}

        await until(gone, "all three gone")

    ground.play(scene)


def test_orphans_stay(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await family(client)
        await asyncio.sleep(0.1)
        await client.delete(f"{MAPS}/grandparent", {"propagationPolicy": "Orphan"})

        async def alone() -> bool:
            parent = await client.get(f"{MAPS}/parent")
            return await maybe(client, f"{MAPS}/grandparent") is None and not parent["metadata"].get("ownerReferences")

        await until(alone, "the parent without an owner")
        assert await maybe(client, f"{MAPS}/child") is not None
        await client.delete(f"{MAPS}/parent")

    ground.play(scene)


def test_an_owner_of_the_same_name_but_another_uid_does_not_count(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "tidy")
        first = await client.create(MAPS, config_map("owner"))
        await client.delete(f"{MAPS}/owner")
        await client.create(MAPS, config_map("owner"))
        await client.create(MAPS, config_map("late-child", first))

        async def collected() -> bool:
            return await maybe(client, f"{MAPS}/late-child") is None

        await until(collected, "the child of an owner that is gone")
        assert await maybe(client, f"{MAPS}/owner") is not None

    ground.play(scene)


def test_a_namespace_is_emptied_and_then_goes(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "doomed")
        await add_node(client, node("n"))
        await create(client, deployment(), namespace="doomed")
        await until(lambda: _bound(client, "doomed", "chat"))
        await client.delete("/api/v1/namespaces/doomed")

        async def terminating() -> bool:
            found = await client.get("/api/v1/namespaces/doomed")
            pods = await items(client, "pods", "doomed")
            return found["status"]["phase"] == "Terminating" and all(
                p["metadata"].get("deletionTimestamp") for p in pods
            )

        await until(terminating, "a namespace that waits for its pod")
        await come_up(client, "doomed")

        async def gone() -> bool:
            return await maybe(client, "/api/v1/namespaces/doomed") is None

        await until(gone, "the namespace gone")
        assert not [item for item in await items(client, "configmaps") if item["metadata"]["namespace"] == "doomed"]

    ground.play(scene)


def test_a_new_namespace_has_an_account(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "born")
        path = "/api/v1/namespaces/born/serviceaccounts/default"
        await until(lambda: maybe(client, path), "the default account")
        await client.delete(path)
        await until(lambda: maybe(client, path), "the default account again")

    ground.play(scene)


# Counting ---------------------------------------------------------------------------------------------------


def test_a_quota_counts_what_there_is_and_leaves_out_what_it_cannot_count(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "counted")
        hard = {"requests.nvidia.com/gpu": "8", "limits.nvidia.com/gpu": "8", "requests.cpu": "16",
                "requests.memory": "64Gi", "pods": "10"}  # fmt: skip
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}}
        await create(client, quota, namespace="counted")
        limits = {"cpu": "1500m", "memory": "2Gi", "nvidia.com/gpu": "2"}
        for name in ("a", "b"):
            containers = [{"name": "c", "image": "i", "resources": {"requests": limits, "limits": limits}}]
            await create(client, pod(name, containers=containers), namespace="counted")

        async def used(**expected: str) -> bool:
            found = await client.get("/api/v1/namespaces/counted/resourcequotas/q")
            return found.get("status", {}).get("used") == {
                name.replace("__", "/").replace("_", "."): value for name, value in expected.items()
            }

        await until(lambda: used(pods="2", requests_cpu="3", requests_memory="4Gi", requests_nvidia_com__gpu="4"))
        await client.delete("/api/v1/namespaces/counted/pods/a", {"gracePeriodSeconds": 0})
        await until(lambda: used(pods="1", requests_cpu="1500m", requests_memory="2Gi", requests_nvidia_com__gpu="2"))

    ground.play(scene)


def test_a_disruption_budget_says_how_many_pods_may_go(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "budget")
        await add_node(client, node("n"))
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "chat"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "chat"}}},
        }
        await create(client, deployment(replicas=2), budget, namespace="budget")

        async def counted(healthy: int, allowed: int) -> bool:
            await come_up(client, "budget") if healthy else None
            found = await client.get("/apis/policy/v1/namespaces/budget/poddisruptionbudgets/chat")
            status = found.get("status") or {}
            return (status.get("currentHealthy"), status.get("disruptionsAllowed")) == (healthy, allowed)

        await until(lambda: counted(0, 0), "nothing may go while nothing is up")
        await until(lambda: counted(2, 1), "one of two may go")

    ground.play(scene)
