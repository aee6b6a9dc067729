"""Jobs and claims: what a cluster fills into them, and when a claim may go."""

from __future__ import annotations

from typing import Any

from sandbox.client import Client
from tests.sandbox.conftest import Api, named
from tests.sandbox.ground import create, ensure_namespace, items, maybe, pod, shared, until

CLAIM: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
PROTECTED = ["kubernetes.io/pvc-protection"]


def test_an_ordinary_job_is_admitted_and_completed(api: Api) -> None:
    jobs = api.namespace("jobs").replace("/api/v1", "/apis/batch/v1") + "/jobs"
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "engine:1"}]}}

    answer = api.post(jobs, named("Job", "once", "batch/v1", spec={"template": template}))

    assert answer.status_code == 201, answer.text
    job = answer.json()
    spec, uid = job["spec"], job["metadata"]["uid"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 6)
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert spec["template"]["metadata"]["labels"]["job-name"] == "once"
    assert spec["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_a_claim_stays_until_no_pod_uses_it() -> None:
    claim = named("PersistentVolumeClaim", "models", spec=CLAIM)
    volume = {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
    path = "/api/v1/namespaces/team/persistentvolumeclaims/models"

    async def scene(client: Client) -> None:
        await ensure_namespace(client, "team")
        await create(client, claim, pod("user", volumes=[volume]), namespace="team")
        await until(lambda: items(client, "pods", "team"), "the pod")
        await client.delete(path)
        held = await client.get(path)
        assert held["metadata"]["finalizers"] == PROTECTED
        assert held["metadata"]["deletionTimestamp"]

        await client.delete("/api/v1/namespaces/team/pods/user", {"gracePeriodSeconds": 0})

        async def gone() -> bool:
            return await maybe(client, path) is None

        await until(gone, "no claim")

    with shared() as ground:
        ground.play(scene)
