"""A deployment's life on a cluster: applied, left alone, changed by hands, stopped, deleted."""

from __future__ import annotations

import pytest
from django.db import connection

from deployments.kube.kinds import Ref
from deployments.models import AppliedObject, Deployment, Event, QuotaHold, Revision
from deployments.reconciler import passes
from deployments.services import lifecycle
from tests.deployments import factories as make
from tests.deployments.converging.stage import Recorder, Stage

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


def held(row: Deployment) -> int:
    return sum(QuotaHold.objects.filter(deployment=row).values_list("gpus", flat=True))


def test_a_team_gets_its_namespace_and_its_guards(stage: Stage):
    team = stage.converge_team()

    assert (team.ready, team.blocked_message) == (True, "")
    kinds = set(AppliedObject.objects.filter(team=team).values_list("kind", flat=True))
    assert kinds == {"Namespace", "ResourceQuota", "LimitRange", "NetworkPolicy", "RoleBinding"}
    quota = stage.admin.read(stage.ref("ResourceQuota", "slipway"))
    assert quota["spec"]["hard"]["requests.nvidia.com/gpu"] == "4"


def test_the_resource_quota_follows_the_grants(stage: Stage, h100):
    stage.converge_team()
    make.make_grant(stage.team, h100, 2)

    stage.converge_team()

    quota = stage.admin.read(stage.ref("ResourceQuota", "slipway"))
    assert quota["spec"]["hard"]["requests.nvidia.com/gpu"] == "6"


def test_an_approved_deployment_is_applied(stage: Stage):
    row = stage.running()

    assert set(AppliedObject.objects.filter(deployment=row).values_list("kind", flat=True)) == KINDS
    assert row.applied == row.approved
    service = stage.service(row)
    assert service["metadata"]["labels"]["slipway.dev/deployment"] == str(row.pk)
    assert stage.open_intents() == 0
    assert Event.objects.filter(deployment=row, kind="applied").count() == 1


def test_what_guards_is_made_before_what_runs(stage: Stage):
    row = stage.ask()
    stage.converge_team()
    with Recorder(stage) as recorder:
        stage.converge(row)

    made = [path.rsplit("/", 1)[-1] for method, path in recorder.calls if method == "POST"]
    assert made.index("networkpolicies") < made.index("inferenceservices")


def test_unchanged_deployments_cost_no_write(stage: Stage):
    row = stage.running()
    stage.converge(row)
    before = stage.service(row)["metadata"]["resourceVersion"]

    with Recorder(stage) as recorder:
        for _ in range(3):
            row = stage.converge(row)

    assert recorder.mutating == []
    assert stage.service(row)["metadata"]["resourceVersion"] == before
    assert row.outcome["phase"] == "applied"


def test_a_row_that_is_not_due_is_left_alone(stage: Stage):
    row = stage.running()
    assert passes.reconcile(row.pk, stage.worker) is False
    assert stage.fresh(row).lease_token == row.lease_token


def test_a_new_revision_is_applied_and_what_it_dropped_goes(stage: Stage):
    row = stage.running()
    runtime = AppliedObject.objects.get(deployment=row, kind="ServingRuntime")
    before = stage.service(row)
    args = {"profile": "vllm-0.32.0", "args": {"gpu-memory-utilization": 0.8}}

    row = stage.converge(stage.revise(row, engine=args))

    after = stage.service(row)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert "--gpu-memory-utilization=0.8" in after["spec"]["predictor"]["model"]["args"]
    assert not any("max-model-len" in arg for arg in after["spec"]["predictor"]["model"]["args"])
    ours = [entry for entry in after["metadata"]["managedFields"] if entry["manager"] == "slipway"]
    assert [entry["operation"] for entry in ours] == ["Apply"]
    assert row.applied.number == 2
    still = AppliedObject.objects.filter(deployment=row, kind="ServingRuntime")
    assert still.count() == 1
    if still.get().name != runtime.name:
        assert stage.admin.read(Ref(runtime.api_version, "ServingRuntime", runtime.namespace, runtime.name)) is None


def test_a_hand_edit_of_our_field_loses_and_is_told(stage: Stage):
    row = stage.running()
    stage.edit(stage.service_ref(row), {"spec": {"predictor": {"minReplicas": 9, "maxReplicas": 9}}})

    row = stage.converge(row)

    assert stage.service(row)["spec"]["predictor"]["maxReplicas"] == 1
    event = Event.objects.get(deployment=row, kind="healed")
    assert event.data["by"] == "kubectl-edit"
    with Recorder(stage) as recorder:
        stage.converge(row)
    assert recorder.mutating == []


def test_a_field_of_others_is_left_alone(stage: Stage):
    row = stage.running()
    stage.edit(stage.service_ref(row), {"metadata": {"annotations": {"example.com/note": "mine"}}})

    with Recorder(stage) as recorder:
        row = stage.converge(row)

    assert recorder.mutating == []
    assert stage.service(row)["metadata"]["annotations"]["example.com/note"] == "mine"


def test_a_deleted_object_comes_back(stage: Stage):
    row = stage.running()
    route = stage.ref("HTTPRoute", "chat-slipway")
    stage.remove(route)

    row = stage.converge(row)

    assert stage.admin.read(route) is not None
    assert Event.objects.filter(deployment=row, kind="restored").count() == 1


def test_a_deleted_service_comes_back_only_when_its_pods_are_gone(stage: Stage):
    row = stage.running()
    pod = stage.make_pod(row, "chat-predictor-old", finalizer="example.com/slow")
    uid = stage.service(row)["metadata"]["uid"]
    stage.remove(stage.service_ref(row))

    waiting = stage.converge(row)
    assert stage.service(row) is None
    assert waiting.outcome["code"] == "waiting"

    stage.drop_pod(pod)
    stage.converge_until(row, lambda: stage.service(row) is not None)
    assert stage.service(row)["metadata"]["uid"] != uid
    assert held(row) == 1


def test_a_stranger_keeps_the_name(stage: Stage):
    stage.converge_team()
    row = stage.ask()
    stranger = stage.admin.create(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "chat", "namespace": stage.team.namespace},
        }
    )

    row = stage.converge(row)

    assert (row.outcome["phase"], row.outcome["code"]) == ("blocked", "name_taken")
    assert row.state == Deployment.State.BLOCKED
    now = stage.admin.read(Ref("v1", "ServiceAccount", stage.team.namespace, "chat"))
    assert now["metadata"]["resourceVersion"] == stranger["metadata"]["resourceVersion"]
    assert not AppliedObject.objects.filter(deployment=row).exists()


def test_a_replaced_object_is_a_strangers(stage: Stage):
    row = stage.running()
    route = stage.ref("HTTPRoute", "chat-slipway")
    body = stage.admin.read(route)
    stage.remove(route)
    fresh = {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "metadata": {"name": body["metadata"]["name"], "namespace": body["metadata"]["namespace"]},
        "spec": body["spec"],
    }
    made = stage.admin.create(fresh)

    row = stage.converge(row)

    assert row.outcome["code"] == "name_taken"
    assert stage.admin.read(route)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_an_object_without_our_labels_is_not_written_again(stage: Stage):
    row = stage.running()
    stage.edit(stage.service_ref(row), {"metadata": {"labels": {"slipway.dev/install": None}}})

    with Recorder(stage) as recorder:
        row = stage.converge(row)

    assert recorder.mutating == []
    assert row.outcome["code"] == "disowned"


def test_stopping_takes_the_pods_down_and_gives_the_gpus_back(stage: Stage):
    row = stage.running()
    pod = stage.make_pod(row, "chat-predictor-x", finalizer="example.com/slow")
    assert held(row) == 1
    lifecycle.stop(principal=stage.principal, deployment=row)

    waiting = stage.converge(row)
    assert stage.service(row)["metadata"]["annotations"]["serving.kserve.io/stop"] == "true"
    assert waiting.outcome["code"] == "waiting"
    assert held(row) == 1

    stage.drop_pod(pod)
    row = stage.converge_until(row, lambda: held(row) == 0)
    assert stage.service(row) is not None
    assert row.state in {Deployment.State.STOPPED, Deployment.State.STOPPING}


def test_starting_again_takes_the_stop_away(stage: Stage):
    row = stage.running()
    lifecycle.stop(principal=stage.principal, deployment=row)
    stage.converge_until(row, lambda: held(row) == 0)

    lifecycle.start(principal=stage.principal, deployment=stage.fresh(row))
    row = stage.converge(row)

    assert "serving.kserve.io/stop" not in stage.service(row)["metadata"]["annotations"]
    assert held(row) == 1
    assert row.outcome["phase"] == "applied"


def test_deleting_removes_everything_and_frees_the_name(stage: Stage):
    row = stage.running()
    lifecycle.delete(principal=stage.principal, deployment=row)

    row = stage.converge_until(row, lambda: stage.fresh(row).deleted_at is not None)

    assert row.state == Deployment.State.DELETED
    assert stage.service(row) is None
    assert not AppliedObject.objects.filter(deployment=row).exists()
    assert held(row) == 0
    assert Event.objects.filter(deployment=row, kind="deleted").count() == 1
    assert stage.running("chat").pk != row.pk


def test_deleting_waits_for_a_terminating_pod(stage: Stage):
    row = stage.running()
    pod = stage.make_pod(row, "chat-predictor-x", finalizer="example.com/slow")
    lifecycle.delete(principal=stage.principal, deployment=row)

    stage.converge(row, passes_made=3)
    row = stage.fresh(row)
    assert row.deleted_at is None
    assert held(row) == 1
    assert stage.admin.read(stage.ref("NetworkPolicy", "chat-slipway")) is not None

    stage.drop_pod(pod)
    stage.converge_until(row, lambda: stage.fresh(row).deleted_at is not None)
    assert held(row) == 0


def test_what_was_never_applied_is_deleted_at_once(stage: Stage):
    row = stage.ask()
    lifecycle.delete(principal=stage.principal, deployment=row)

    row = stage.converge(row)

    assert row.deleted_at is not None
    assert held(row) == 0


def test_an_approval_of_something_else_applies_nothing(stage: Stage):
    row = stage.ask()
    forged = [{**obj, "metadata": {**obj["metadata"], "name": "forged"}} for obj in row.latest.objects_json]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")  # past every trigger, as a thief would
        Revision.objects.filter(pk=row.latest_id).update(objects_json=forged)
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")

    with Recorder(stage) as recorder:
        row = stage.converge(row)

    assert row.outcome["code"] == "not_approved"
    assert not any(row.team.namespace in path and "forged" in path for _, path in recorder.calls)
    assert stage.service(row) is None


def test_shrinking_gives_back_what_is_proven_free(stage: Stage):
    row = stage.running(replicas={"min": 3, "max": 3})
    assert held(row) == 3
    row = stage.revise(row, replicas={"min": 1, "max": 1})
    row = stage.converge_until(row, lambda: held(row) == 1)
    assert row.applied.number == 2
