"""Jobs, and claims with their volumes, on a cluster with its controllers; pods are played by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.client import Client
from sandbox.engine.boot import ModelFiles
from sandbox.lite.controllers.job import backoff_left, status_of, verdict_of
from sandbox.node.claims import Claims
from sandbox.node.provisioner import MADE_BY, NAME, Provisioner, volume_for
from tests.sandbox.conftest import named
from tests.sandbox.ground import Ground, create, ensure_namespace, items, maybe, shared, until

TEMPLATE = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "engine:1"}]}}
JOB = "/apis/batch/v1/namespaces/team/jobs/once"
CLAIM: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "3Gi"}}}
PLACE = "/api/v1/namespaces/team/persistentvolumeclaims/models"
NOW = datetime(2026, 11, 26, 9, 0, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared() as running:
        yield running


def ended(phase: str, second: int = 0) -> dict[str, Any]:
    """A pod that has ended."""
    stamp = f"2026-11-26T09:00:{second:02d}Z"
    state = {"terminated": {"exitCode": 0 if phase == "Succeeded" else 1, "finishedAt": stamp}}
    return {
        "metadata": {"name": phase, "creationTimestamp": stamp},
        "spec": {},
        "status": {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]},
    }


def job(**spec: Any) -> dict[str, Any]:
    return {"spec": {"completions": 1, "parallelism": 1, "backoffLimit": 2, "template": TEMPLATE, **spec}}


async def end(client: Client, phase: str) -> None:
    """Have the pods that run end so, as their kubelet would."""
    for pod in await items(client, "pods", "team"):
        path = f"/api/v1/namespaces/team/pods/{pod['metadata']['name']}"
        await client.patch_status(path, {"status": {"phase": phase}})


def test_a_job_makes_one_pod_and_is_complete_when_it_succeeds(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "team")
        await create(client, named("Job", "once", "batch/v1", spec={"template": TEMPLATE}), namespace="team")
        (pod,) = await until(lambda: items(client, "pods", "team"), "the pod")
        assert pod["metadata"]["name"].startswith("once-")
        assert pod["metadata"]["labels"]["job-name"] == "once"
        assert pod["metadata"]["ownerReferences"][0]["kind"] == "Job"
        await end(client, "Succeeded")

        async def complete() -> dict[str, Any] | None:
            status: dict[str, Any] = (await client.get(JOB)).get("status") or {}
            return status if status.get("completionTime") else None

        status = await until(complete, "its end")
        assert status is not None
        assert status["succeeded"] == 1
        assert [item["type"] for item in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
        await client.delete(JOB, {"propagationPolicy": "Background"})

        async def gone() -> bool:
            return await maybe(client, JOB) is None and not await items(client, "pods", "team")

        await until(gone, "job and pods gone")

    ground.play(scene)


def test_a_claim_gets_the_default_class_and_the_volume_that_its_provisioner_makes(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "team")
        provisioner = Provisioner(client, Claims())
        await create(client, named("PersistentVolumeClaim", "models", spec=CLAIM), namespace="team")

        async def marked() -> dict[str, Any] | None:
            found: dict[str, Any] = await client.get(PLACE)
            return found if NAME in (found["metadata"].get("annotations") or {}).values() else None

        claim = await until(marked, "the mark of its provisioner")
        assert claim is not None
        assert claim["spec"]["storageClassName"] == "sandbox-files"
        assert claim["status"]["phase"] == "Pending"
        await provisioner._make(volume_for(claim))

        async def bound() -> dict[str, Any] | None:
            found: dict[str, Any] = await client.get(PLACE)
            return found if found["status"]["phase"] == "Bound" else None

        claim = await until(bound, "a bound claim")
        assert claim is not None
        assert claim["status"]["capacity"] == {"storage": "3Gi"}
        volume = f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}"
        assert (await client.get(volume))["status"]["phase"] == "Bound"

        await client.delete(PLACE)

        async def released() -> dict[str, Any] | None:
            found: dict[str, Any] = await client.get(volume)
            return found if found["status"]["phase"] == "Released" else None

        left = await until(released, "a released volume")
        assert left is not None
        assert left["metadata"]["annotations"] == {MADE_BY: NAME}
        await provisioner._remove(left)
        assert await maybe(client, volume) is None

    ground.play(scene)


def test_a_volume_that_names_a_claim_is_bound_to_it_without_a_class(ground: Ground) -> None:
    async def scene(client: Client) -> None:
        await ensure_namespace(client, "team")
        spec = {
            "capacity": {"storage": "3Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "hostPath": {"path": "/models"},
            "claimRef": {"namespace": "team", "name": "models"},
        }
        await create(client, named("PersistentVolume", "by-hand", spec=spec))
        claim = {**CLAIM, "storageClassName": "", "volumeName": "by-hand"}
        await create(client, named("PersistentVolumeClaim", "models", spec=claim), namespace="team")

        async def bound() -> bool:
            return bool((await client.get(PLACE))["status"]["phase"] == "Bound")

        await until(bound, "a bound claim")
        await client.delete(PLACE)
        await client.delete("/api/v1/persistentvolumes/by-hand")

    ground.play(scene)


def test_failures_are_counted_until_there_are_too_many() -> None:
    assert verdict_of(job(), [ended("Failed")] * 2) is None
    found = verdict_of(job(), [ended("Failed")] * 3)
    assert found is not None
    assert found[:2] == ("Failed", "BackoffLimitExceeded")
    status = status_of(job(), [ended("Failed")] * 3, found, NOW)
    assert status["failed"] == 3
    assert [item["type"] for item in status["conditions"]] == ["FailureTarget", "Failed"]


def test_the_pause_before_another_try_doubles() -> None:
    assert backoff_left([], NOW) is None
    assert backoff_left([ended("Failed", 25)], NOW) == 5
    assert backoff_left([ended("Failed", 5), ended("Failed", 25)], NOW) == 15
    assert backoff_left([ended("Failed", 5)], NOW) is None


def test_what_a_claim_held_goes_with_its_volume() -> None:
    claims = Claims()
    claims.write("team", "models", "chat", ModelFiles({}, {"config.json": 1}))
    claims.remove("team", "models")
    assert claims.read("team", "models", "chat") is None
