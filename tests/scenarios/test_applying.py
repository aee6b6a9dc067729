"""From a wish to objects on the cluster, from one revision to the next, and what becomes of other people's hands."""

from __future__ import annotations

import pytest

from deployments.models import AppliedObject, Deployment
from tests.scenarios.stage import SERVICE, Says, Stage, engine, portal_says, versions, writes

pytestmark = pytest.mark.django_db

KINDS = {
    "ServiceAccount",
    "NetworkPolicy",
    "ServingRuntime",
    "PodDisruptionBudget",
    "PodMonitor",
    "InferenceService",
    "HTTPRoute",
}
# Each made by the one before it.
OWNERS = "InferenceService", "Deployment", "ReplicaSet", "Pod"
# Beside each object of the inventory: kube-system, by whose uid the cluster is known, and three lists of what has GPUs.
READS_BESIDE = 4


def test_first_apply(stage: Stage):
    row = stage.comes_to(stage.ask(), Says("Running"), within=18)

    service = stage.service(row)
    assert service["metadata"]["labels"]["slipway.dev/deployment"] == str(row.pk)
    assert "slipway" in managers(service)
    assert set(AppliedObject.objects.filter(deployment=row).values_list("kind", flat=True)) == KINDS
    for record in AppliedObject.objects.filter(deployment=row):
        live = stage.ground.read(record.kind, record.name, record.namespace)
        assert live["metadata"]["uid"] == record.uid, record.kind
    [pod] = stage.pods()
    assert pod["metadata"]["labels"]["slipway.dev/revision"] == "1"
    assert [event.message for event in stage.told(row, "applied")] == ["Revision 1 applied"]


def test_nothing_to_do(stage: Stage):
    row = stage.applied()
    stage.sweep(row)
    before = versions(stage, row)

    with stage.counting() as calls:
        for _ in range(3):
            stage.worker._identity = None  # as if the sweeps lay minutes apart
            row = stage.pass_over(row)

    assert writes(calls) == []
    assert versions(stage, row) == before
    assert row.outcome["phase"] == "applied"
    assert len(calls) == 3 * (len(KINDS) + READS_BESIDE)


def test_update_of_a_field(stage: Stage):
    row = stage.running()
    before = stage.service(row)

    row = stage.pass_over(stage.revise(row, engine=engine(max_model_len=4096)))

    assert row.applied.number == 2
    after = stage.service(row)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert "--max-model-len=4096" in after["spec"]["predictor"]["model"]["args"]
    assert after["metadata"]["labels"]["slipway.dev/revision"] == "2"
    stage.comes_to_pass(row, lambda: stage.newest_serves(row, 2), within=15)


def test_removal_of_a_field(stage: Stage):
    stage.building(lambda service: service["spec"]["predictor"].update(containerConcurrency=8, labels={"tier": "gold"}))
    row = stage.applied()
    predictor = stage.service(row)["spec"]["predictor"]
    assert (predictor["containerConcurrency"], predictor["labels"]) == (8, {"tier": "gold"})
    stage.patch.undo()
    stage.patch.setattr("portal.lib.hints._send", lambda task, pk: None)

    row = stage.revise(row, engine=engine(max_model_len=4096))
    row = stage.until(row, lambda: stage.fresh(row).applied.number == 2, what="revision 2")

    service = stage.service(row)
    assert {"containerConcurrency", "labels"} & set(service["spec"]["predictor"]) == set()
    ours = [entry for entry in service["metadata"]["managedFields"] if entry["manager"] == "slipway"]
    assert [entry["operation"] for entry in ours] == ["Apply"]
    stage.comes_to(row, Says("Running"), within=15)


def test_hand_edit_of_an_owned_field(stage: Stage):
    row = stage.running()
    stage.settle()
    stage.ground.edit(SERVICE, row.name, stage.namespace, {"spec": {"predictor": {"maxReplicas": 3}}})

    row = stage.comes_to_pass(row, lambda: stage.told(row, "healed"), within=12)

    assert stage.service(row)["spec"]["predictor"]["maxReplicas"] == 1
    [told] = stage.told(row, "healed")
    assert told.data["by"] == "kubectl-edit"
    assert portal_says(row) == Says("Running")


def test_hand_edit_of_a_foreign_field(stage: Stage):
    row = stage.running()
    note = {"metadata": {"annotations": {"example.com/note": "mine"}}}
    stage.ground.edit(SERVICE, row.name, stage.namespace, note)

    with stage.counting() as calls:
        row = stage.sweep(row)

    assert writes(calls) == []
    assert stage.service(row)["metadata"]["annotations"]["example.com/note"] == "mine"
    assert stage.told(row, "healed") == []
    assert portal_says(row) == Says("Running")


def test_name_taken_by_a_stranger(stage: Stage):
    stage.open_namespace()
    row = stage.ask()
    stage.ground.create(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": SERVICE,
            "metadata": {"name": "chat", "namespace": stage.namespace},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "gs://theirs/model"}}},
        }
    )
    row = stage.comes_to(row, Says("Blocked", "name_taken"), within=12)

    theirs = stage.service(row)
    assert theirs["spec"]["predictor"]["model"]["storageUri"] == "gs://theirs/model"
    assert "slipway" not in managers(theirs)
    assert "did not make it" in row.reason["title"]


def test_scale(stage: Stage):
    row = stage.running()
    row = stage.revise(row, replicas={"min": 2, "max": 2})
    row = stage.comes_to_pass(row, lambda: serving(stage, row) == 2, within=30, note="up to two")
    assert portal_says(row) == Says("Running")
    assert stage.ground.read("Deployment", "chat-predictor", stage.namespace)["spec"]["replicas"] == 2

    row = stage.revise(row, replicas={"min": 1, "max": 1})
    row = stage.comes_to_pass(
        row, lambda: serving(stage, row) == 1 and stage.held(row) == 1, within=18, note="down to one"
    )
    assert stage.ground.read("Deployment", "chat-predictor", stage.namespace)["spec"]["replicas"] == 1


def test_stop(stage: Stage):
    row = stage.stop(stage.running())
    row = stage.comes_to(row, Says("Stopped"), within=12)
    assert stage.pods() == []
    row = stage.until(row, lambda: stage.held(row) == 0, what="the GPUs given back")
    assert stage.service(row) is not None


def test_delete_with_foreground_garbage_collection(stage: Stage):
    """What makes pods outlives them: its absence is what proves that no GPU is held any more."""
    row = stage.running()
    assert stage.ground.read("Deployment", "chat-predictor", stage.namespace)
    before = {kind: stage.ground.version_of(kind, stage.namespace) for kind in OWNERS}
    stage.delete(row)

    row = stage.comes_to(row, Says("Deleted"), within=12)

    assert row.deleted_at is not None
    assert stage.held(row) == 0
    assert AppliedObject.objects.filter(deployment=row).count() == 0
    for kind in ("Deployment", "ReplicaSet", "Pod", *sorted(KINDS - {"NetworkPolicy", "ServiceAccount"})):
        assert stage.ground.list(kind, stage.namespace) == [], kind
    # In the background the first of these would have gone first, and the pods some time after it.
    gone = [when for kind in OWNERS for when in ends_of(stage, kind, before[kind])]
    assert len(gone) == len(OWNERS)
    assert gone == sorted(gone, reverse=True)


def ends_of(stage: Stage, kind: str, since: str) -> list[int]:
    """When each object of a kind was gone, as a version of the cluster."""
    events = stage.ground.events(kind, stage.namespace, since)
    return [event.version for event in events if event.type == "DELETED"]


def managers(obj: dict) -> set[str]:
    """Who wrote fields of an object."""
    return {entry["manager"] for entry in obj["metadata"]["managedFields"]}


def serving(stage: Stage, row: Deployment) -> int:
    """Ready pods of the newest revision, when no other is left."""
    row = stage.fresh(row)
    number = str(row.approved.number)
    pods = stage.pods()
    if any(pod["metadata"]["labels"]["slipway.dev/revision"] != number for pod in pods):
        return -1
    return row.detail.get("ready_replicas", 0) if len(pods) == row.detail.get("ready_replicas") else -1
