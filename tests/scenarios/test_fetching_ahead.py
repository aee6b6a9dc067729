"""Weights that are fetched ahead into a claim: once, before any replica, and again for another model alone."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.models import Cluster, Deployment
from tests.deployments import factories as make
from tests.scenarios.stage import SMALL, Says, Stage, engine

pytestmark = pytest.mark.django_db

GATED = "hf://meta-llama/Llama-3.1-8B-Instruct"
GATED_COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
OTHER = "hf://Qwen/Qwen2.5-0.5B-Instruct"
CLAIM, JOB = "PersistentVolumeClaim", "Job"


def ahead(uri: str = SMALL, most: int = 1, least: int = 1) -> dict[str, Any]:
    """What is asked for, beside the usual."""
    return {
        "source": {"uri": uri, "cache": "claim"},
        "replicas": {"min": least, "max": most},
        "engine": engine(max_model_len=2048),
    }


def knows_storage(stage: Stage) -> None:
    """Turn until the watcher has seen what claims can be made of."""
    stage.driven.until(lambda: Cluster.objects.get().capabilities.get("storage"))


def claims(stage: Stage) -> dict[str, str]:
    """The claims of the namespace by name, each with its uid."""
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in stage.ground.list(CLAIM, stage.namespace)}


def mounted(stage: Stage) -> dict[str, str]:
    """By pod of the engine, the claim that it has its weights from; none of them may fetch anything."""
    found = {}
    for pod in stage.pods():
        if "slipway.dev/component" in pod["metadata"]["labels"]:
            continue
        assert "initContainers" not in pod["spec"]
        named = [
            volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume
        ]
        found[pod["metadata"]["name"]] = named[0]["claimName"]
    return found


def test_weights_are_fetched_once_and_mounted_by_every_replica(stage: Stage):
    knows_storage(stage)
    row = stage.ask(**ahead(most=2))
    stage.comes_to(row, Says("Running"), within=90, note="fetched, then served")

    (claim,) = claims(stage)
    assert set(mounted(stage).values()) == {claim}
    assert stage.fresh(row).applied.resolution["claim_mode"] == "ReadWriteMany"
    assert [event.message for event in stage.told(row, "fetched")] == [
        f"Weights fetched ahead into the volume claim {claim}"
    ]

    row = stage.revise(row, **ahead(most=2, least=2))
    stage.comes_to_pass(
        row, lambda: stage.newest_serves(row, 2) and len(mounted(stage)) == 2, within=60, note="a second replica"
    )
    assert set(mounted(stage).values()) == {claim}
    assert len(stage.told(row, "fetched")) == 1
    assert stage.ground.list(JOB, stage.namespace) == []


def test_the_claim_outlives_a_stop_and_goes_with_the_deployment(stage: Stage):
    knows_storage(stage)
    row = stage.running(**ahead())
    before = claims(stage)
    stage.stop(row)
    stage.comes_to(row, Says("Stopped"), within=60)
    assert claims(stage) == before

    stage.start(row)
    stage.serving(row)
    assert claims(stage) == before
    assert len(stage.told(row, "fetched")) == 1

    stage.delete(row)
    stage.comes_to_pass(row, lambda: stage.fresh(row).deleted_at and not claims(stage), within=60, note="deleted")


def test_another_model_is_fetched_beside_the_one_that_serves(stage: Stage):
    knows_storage(stage)
    row = stage.running(**ahead())
    (old,) = claims(stage)
    row = stage.revise(row, **ahead(OTHER))
    both: set[str] = set()

    def rolled() -> bool:
        seen = claims(stage)
        both.update(seen)
        return stage.newest_serves(row, 2) and old not in seen

    stage.comes_to_pass(row, rolled, within=120, note="rolled")
    assert len(both) == 2
    assert set(mounted(stage).values()) == set(claims(stage))
    assert len(stage.told(row, "fetched")) == 2


def test_a_claim_that_gets_no_volume_is_said(stage: Stage):
    """Of its storage class there is nobody to make one."""
    knows_storage(stage)
    name = f"nobodys-{stage.namespace}"
    stage.ground.create(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name},
            "provisioner": "nfs.csi.k8s.io",
        }
    )
    capabilities = {**Cluster.objects.get().capabilities, "storage": [{"name": name, "provisioner": "nfs.csi.k8s.io"}]}
    Cluster.objects.update(capabilities=capabilities)
    row = stage.ask(**ahead())

    row = stage.comes_to(row, Says("Stalled", "volume"), within=30)

    assert "nodes are available: pod has unbound immediate PersistentVolumeClaims" in row.reason["evidence"]
    assert stage.service(row) is None
    stage.delete(row)
    stage.comes_to_pass(row, lambda: stage.fresh(row).deleted_at and not claims(stage), within=60, note="deleted")
    stage.ground.remove("StorageClass", name)


def test_a_fetch_that_fails_says_why(stage: Stage):
    knows_storage(stage)
    shape = {"id": GATED.removeprefix("hf://"), "sha": GATED_COMMIT, "download_bytes": 2**30}
    make.make_check(GATED, commit=GATED_COMMIT, facts=shape)
    row: Deployment = stage.ask(**ahead(GATED), flavor="l40s-48gb")

    row = stage.comes_to(row, Says("Failed", "model_access", "credential"), within=60)

    assert row.reason["pod"].startswith("chat-weights-")
    assert stage.service(row) is None
    assert mounted(stage) == {}


@pytest.mark.timeout(300)
def test_prefill_and_decode_mount_what_was_fetched(stage: Stage):
    knows_storage(stage)
    one = {"replicas": {"min": 1, "max": 1}, "args": {}}
    roles = {"strategy": "disaggregated", "prefill": one, "decode": one, "engine": engine(max_model_len=2048)}
    stage.comes_to(stage.ask(source={"uri": SMALL, "cache": "claim"}, **roles), Says("Running"), within=120)

    (claim,) = claims(stage)
    pods = [pod["spec"] for pod in stage.pods() if "llm-d.ai/role" in pod["metadata"]["labels"]]
    assert len(pods) == 2
    for pod in pods:
        assert "storage-initializer" not in {item["name"] for item in pod.get("initContainers") or ()}
        named = [
            item["persistentVolumeClaim"]["claimName"] for item in pod["volumes"] if "persistentVolumeClaim" in item
        ]
        assert named == [claim]
