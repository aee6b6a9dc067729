"""Trouble between a worker and the API server: lost answers, late answers, refusals, and messages that come twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from deployments.kube.kinds import Ref, kind_of
from deployments.models import AppliedObject, Cluster, Deployment, Event, Intent, Team
from deployments.reconciler import passes
from deployments.services.convergence import Now
from sandbox.lite.faults import Fault
from sandbox.lite.requests import Request
from tests.deployments.converging.stage import Recorder, Stage

pytestmark = pytest.mark.django_db


def once(stage: Stage, method: str, words: str, fault: Fault) -> Callable[[Request], Fault | None]:
    """A hook that strikes the worker's first request of that kind."""
    struck: list[bool] = []

    def hook(request: Request) -> Fault | None:
        if struck or request.method != method or words not in request.path or not stage.is_workers(request):
            return None
        struck.append(True)
        return fault

    return hook


def services(stage: Stage) -> int:
    return len(
        stage.admin.list_all(kind_of("serving.kserve.io/v1beta1", "InferenceService"), namespace=stage.team.namespace)
    )


@pytest.fixture
def row(stage: Stage) -> Deployment:
    stage.converge_team()
    return stage.ask()


def wait_of(row: Deployment) -> timedelta:
    assert row.next_reconcile_at is not None
    return row.next_reconcile_at - timezone.now()


def test_a_lost_answer_to_a_create_is_found_out(stage: Stage, row: Deployment):
    stage.ground.faults.after_hook = once(stage, "POST", "inferenceservices", Fault(drop=True))
    row = stage.converge(row)
    assert row.outcome["phase"] == "retrying"
    assert Intent.objects.filter(deployment=row, closed_at=None).count() == 1

    row = stage.converge(row)

    assert row.outcome["phase"] == "applied"
    assert services(stage) == 1
    uid = stage.service(row)["metadata"]["uid"]
    assert AppliedObject.objects.get(deployment=row, kind="InferenceService").uid == uid
    assert Intent.objects.get(result="found after a crash").uid == uid


def test_a_create_that_never_arrived_is_made_again(stage: Stage, row: Deployment):
    stage.ground.faults.before_hook = once(stage, "POST", "inferenceservices", Fault(drop=True))
    stage.converge(row)
    row = stage.converge(row)
    assert row.outcome["phase"] == "applied"
    assert services(stage) == 1


def test_a_create_that_outlasts_its_time_is_found_out(stage: Stage, row: Deployment):
    stage.worker.call_seconds = 0.5
    stage.ground.faults.after_hook = once(stage, "POST", "inferenceservices", Fault(delay=3))
    row = stage.converge(row)
    assert row.outcome["code"] == "timeout"
    stage.worker.call_seconds = 10
    row = stage.converge(row)
    assert row.outcome["phase"] == "applied"
    assert services(stage) == 1


def test_an_error_inside_the_server_is_tried_again_soon(stage: Stage, row: Deployment):
    stage.ground.faults.before_hook = once(stage, "POST", "httproutes", Fault(status=503))
    row = stage.converge(row)
    assert (row.outcome["phase"], row.failures) == ("retrying", 1)
    assert wait_of(row) < timedelta(seconds=30)
    row = stage.converge(row)
    assert (row.outcome["phase"], row.failures) == ("applied", 0)


def test_the_server_may_ask_for_patience(stage: Stage, row: Deployment):
    stage.ground.faults.before_hook = once(stage, "POST", "httproutes", Fault(status=429, retry_after=40))
    row = stage.converge(row)
    assert row.outcome["code"] == "too_many_requests"
    assert wait_of(row) > timedelta(seconds=35)


def test_a_refusal_waits_for_a_person(stage: Stage, row: Deployment):
    refusal = Fault(status=422, reason="Invalid", message="spec.predictor: no")
    stage.ground.faults.before_hook = once(stage, "POST", "inferenceservices", refusal)
    row = stage.converge(row)
    assert (row.outcome["phase"], row.outcome["code"]) == ("blocked", "invalid")
    assert "spec.predictor: no" in row.outcome["message"]
    assert row.state == Deployment.State.BLOCKED
    assert wait_of(row) > timedelta(minutes=5)
    assert not Intent.objects.filter(deployment=row, closed_at=None).exists()


def test_a_missing_role_names_itself(stage: Stage, row: Deployment):
    refusal = Fault(status=403, reason="Forbidden", message='User "w" cannot create resource "inferenceservices"')
    stage.ground.faults.before_hook = once(stage, "POST", "inferenceservices", refusal)
    row = stage.converge(row)
    assert (row.outcome["phase"], row.outcome["code"]) == ("blocked", "permission")
    assert "cannot create" in row.outcome["message"]


def test_a_server_that_does_not_know_its_roles_yet_is_no_missing_role(stage: Stage, row: Deployment):
    """kube-apiserver answers for a moment after its start, and refuses everybody everything."""
    stage.ground.faults.before_hook = lambda _: Fault(status=403, reason="Forbidden", message="forbidden")
    row = stage.converge(row)
    assert (row.outcome["phase"], row.outcome["code"], row.outcome["remedy"]) == ("retrying", "starting", "")
    stage.ground.faults.clear()
    assert stage.converge(row).applied == row.latest


def test_a_server_that_reads_its_bindings_is_no_missing_role_either(stage: Stage, row: Deployment):
    """It knows some roles before others: what it refuses until it says that it is ready it may allow then."""
    refusal = Fault(status=403, reason="Forbidden", message="forbidden")
    unready = Fault(status=500, reason="InternalError", message="[-]informer-sync failed: not finished")

    def starting(request: Request) -> Fault | None:
        if request.path == "/readyz":
            return unready
        return refusal if request.method == "POST" and "inferenceservices" in request.path else None

    stage.ground.faults.before_hook = starting
    row = stage.converge(row)
    assert (row.outcome["phase"], row.outcome["code"]) == ("retrying", "starting")


def test_a_conflict_is_read_and_planned_again(stage: Stage):
    row = stage.running()
    row = stage.revise(row, engine={"profile": "vllm-0.32.0", "args": {"max-model-len": 8192}})
    conflict = Fault(status=409, reason="Conflict", message="the object has been modified")
    stage.ground.faults.before_hook = once(stage, "PATCH", "inferenceservices", conflict)
    row = stage.converge(row)
    assert (row.outcome["phase"], row.applied.number) == ("applied", 2)


def test_endless_conflicts_end_the_pass(stage: Stage):
    row = stage.running()
    row = stage.revise(row, engine={"profile": "vllm-0.32.0", "args": {"max-model-len": 8192}})
    conflict = Fault(status=409, reason="Conflict", message="the object has been modified")

    def always(request: Request) -> Fault | None:
        return conflict if request.method == "PATCH" and stage.is_workers(request) else None

    stage.ground.faults.before_hook = always
    row = stage.converge(row)
    assert (row.outcome["phase"], row.outcome["code"]) == ("retrying", "conflict")


def test_a_poisonous_row_is_set_aside_and_others_go_on(stage: Stage, row: Deployment, monkeypatch):
    other = stage.ask("other")
    real = passes.desired_of

    def poisonous(one: Deployment, **how: bool):
        if one.pk == row.pk:
            raise ZeroDivisionError
        return real(one, **how)

    monkeypatch.setattr(passes, "desired_of", poisonous)
    Deployment.objects.filter(pk=row.pk).update(failures=5)
    row, other = stage.converge(row), stage.converge(other)
    assert (row.outcome["phase"], row.outcome["code"]) == ("blocked", "bug")
    assert wait_of(row) > timedelta(minutes=30)
    assert other.outcome["phase"] == "applied"


def test_the_same_message_many_times_does_the_work_once(stage: Stage, row: Deployment):
    with Recorder(stage) as recorder:
        for _ in range(20):
            passes.reconcile(row.pk, stage.worker)
    made = [call for call in recorder.mutating if "inferenceservices" in call[1]]
    assert len(made) == 1
    assert Event.objects.filter(deployment=row, kind="applied").count() == 1


def test_a_closed_port_costs_little_and_loses_nothing(stage: Stage, row: Deployment):
    stage.ground.faults.before_hook = lambda request: Fault(drop=True) if stage.is_workers(request) else None
    began = time.monotonic()
    row = stage.converge(row)
    assert time.monotonic() - began < 5
    assert row.outcome["code"] == "unreachable"
    assert row.next_reconcile_at is not None
    stage.ground.faults.clear()
    assert stage.converge(row).outcome["phase"] == "applied"


def test_a_namespace_deleted_by_hand_comes_back(stage: Stage, row: Deployment):
    row = stage.converge(row)
    namespace = Ref("v1", "Namespace", "", stage.team.namespace)
    uid = stage.admin.read(namespace)["metadata"]["uid"]
    stage.remove(namespace)
    deadline = time.monotonic() + 15
    while (live := stage.admin.read(namespace)) is not None and live["metadata"]["uid"] == uid:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert stage.converge(row).outcome["code"] == "permission", "its role went with the namespace"
    assert Team.objects.filter(next_reconcile_at__lte=Now()).exists(), "so the team is looked at"
    stage.converge_team()
    assert Deployment.objects.due().filter(pk=row.pk).exists(), "and the deployment goes on"
    row = stage.converge(row)

    assert row.outcome["phase"] == "applied"
    assert stage.service(row) is not None
    assert Event.objects.filter(team=stage.team, deployment=None, kind="restored").exists()


def test_a_binding_taken_away_by_hand_comes_back(stage: Stage):
    stage.converge_team()
    binding = stage.ref("RoleBinding", "slipway-worker")
    stage.remove(binding)

    team = stage.converge_team()
    if not team.ready or stage.admin.read(binding) is None:
        team = stage.converge_team()

    assert stage.admin.read(binding) is not None
    assert team.blocked_message == ""


def test_nothing_is_written_to_another_cluster(stage: Stage, row: Deployment):
    stage.converge_team()
    uid = stage.admin.identity()
    Cluster.objects.filter(pk=row.cluster_id).update(uid="of-another-cluster")

    row = stage.converge(row)
    team = stage.converge_team()

    assert (row.outcome["phase"], row.outcome["code"]) == ("blocked", "other_cluster")
    assert uid in row.outcome["message"]
    assert "Another cluster answers" in team.blocked_message
    assert services(stage) == 0
    Cluster.objects.filter(pk=row.cluster_id).update(uid=uid)
    stage.converge_team()
    assert stage.converge(row).outcome["phase"] == "applied"
