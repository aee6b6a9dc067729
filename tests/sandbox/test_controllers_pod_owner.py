"""What owns pods is refused in the API server's words, woken by its own pods, and silent where a namespace ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.client import Client, resource_path
from sandbox.lite.controllers.replicaset import ReplicaSetController
from sandbox.lite.controllers.runtime import Manager
from tests.sandbox.conftest import named
from tests.sandbox.ground import Ground, create, ensure_namespace, items, shared, until

LABELS = {"app": "chat"}
CONTAINERS = [{"name": "main", "image": "engine:1"}]
MANY: dict[str, Any] = {
    "selector": {"matchLabels": LABELS},
    "template": {"metadata": {"labels": LABELS}, "spec": {"containers": CONTAINERS}},
}
ONCE: dict[str, Any] = {"template": {"spec": {"restartPolicy": "Never", "containers": CONTAINERS}}}
OWNERS = [
    ("ReplicaSet", "apps/v1", "replicasets", MANY),
    ("StatefulSet", "apps/v1", "statefulsets", {**MANY, "serviceName": "chat"}),
    ("Job", "batch/v1", "jobs", ONCE),
]
each_owner = pytest.mark.parametrize(("kind", "version", "plural", "spec"), OWNERS, ids=[row[0] for row in OWNERS])


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared() as running:
        yield running


@pytest.fixture(scope="module")
def alone() -> Iterator[Ground]:
    """A cluster without controllers: what is not started here does nothing."""
    with shared(controllers=False) as running:
        yield running


async def told(client: Client, kind: str, reason: str, space: str) -> list[str]:
    """The sentences of the events of one reason about the objects of a kind."""
    events = await items(client, "events", space)
    return [item["message"] for item in events if (item["involvedObject"]["kind"], item["reason"]) == (kind, reason)]


@each_owner
def test_a_refusal_is_told_and_the_pod_comes_once_it_may(
    ground: Ground, kind: str, version: str, plural: str, spec: dict[str, Any]
) -> None:
    space = kind.lower()

    async def scene(client: Client) -> None:
        await ensure_namespace(client, space)
        await create(client, named("ResourceQuota", "none", spec={"hard": {"pods": "0"}}), namespace=space)
        await create(client, named(kind, "chat", version, spec=spec), namespace=space)
        said = await until(lambda: told(client, kind, "FailedCreate", space), "the refusal")
        assert all("exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0" in words for words in said)
        assert await items(client, "pods", space) == []
        await client.delete(resource_path("v1", "resourcequotas", space, "none"))
        [first] = await until(lambda: items(client, "pods", space), "the pod")
        assert first["metadata"]["ownerReferences"][0]["kind"] == kind
        assert await until(lambda: told(client, kind, "SuccessfulCreate", space), "that it was made")
        # Nothing of the owner changes: the pod alone says that it has to look.
        await client.delete(resource_path("v1", "pods", space, first["metadata"]["name"]), {"gracePeriodSeconds": 0})

        async def again() -> bool:
            return {pod["metadata"]["uid"] for pod in await items(client, "pods", space)} - {first["metadata"]["uid"]}

        await until(again, "another pod")
        await client.delete(resource_path(version, plural, space, "chat"), {"propagationPolicy": "Background"})

    ground.play(scene)


def test_where_a_namespace_ends_a_pod_less_is_no_failure(alone: Ground) -> None:
    """Its owner has no trouble to tell of: it goes as everything in the namespace does."""
    space, path = "ending", resource_path("apps/v1", "replicasets", "ending", "chat")

    async def scene(client: Client) -> None:
        await ensure_namespace(client, space)
        await create(client, named("ReplicaSet", "chat", "apps/v1", spec={**MANY, "replicas": 0}), namespace=space)
        await client.delete(f"/api/v1/namespaces/{space}")
        await client.patch(path, {"spec": {"replicas": 1}})
        manager = Manager(client)
        ReplicaSetController(manager, [])
        running = manager.start()

        async def looked() -> bool:
            found = await client.get(path)
            return bool(found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"])

        try:
            await until(looked, "its status")
        finally:
            for task in running:
                task.cancel()
        status = (await client.get(path))["status"]
        assert (status["replicas"], status.get("conditions")) == (0, None)
        assert await items(client, "pods", space) == []
        assert await told(client, "ReplicaSet", "FailedCreate", space) == []

    alone.play(scene)
