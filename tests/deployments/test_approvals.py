"""A second person decides about a digest; without quota what was approved waits in line."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from deployments.models import Approval, Deployment, Event, Revision, Team, Wanted
from deployments.services import approvals, grants, ledger, lifecycle, requests, waiting
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError, StaleError
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]

State = Deployment.State
GUARDED = {"profile": "vllm-0.32.0", "args": {"max-model-len": 16384, "trust-remote-code": True}}


def ask(user, team, name="chat", gpus=1, **changes) -> Deployment:
    spec = DeploymentSpec.from_json(make.a_spec(replicas={"min": gpus, "max": gpus}, **changes))
    return requests.submit(principal=make.principal(user), team=team, name=name, spec=spec)


def revise(user, deployment, gpus) -> Revision:
    deployment.refresh_from_db()
    spec = DeploymentSpec.from_json(make.a_spec(replicas={"min": gpus, "max": gpus}))
    return requests.revise(
        principal=make.principal(user), deployment=deployment, spec=spec, base_revision=deployment.latest.number
    )


def decide(user, deployment, *, approve=True, digest=None, **fields) -> Approval:
    deployment.refresh_from_db()
    revision = deployment.latest
    return approvals.decide(
        principal=make.principal(user), revision=revision, digest=digest or revision.digest, approve=approve, **fields
    )


def policy(team, value) -> None:
    Team.objects.filter(pk=team.pk).update(policy=value)


def test_an_admin_approves_and_the_gpus_are_reserved(ann, carol, team, h100):
    deployment = ask(ann, team, gpus=2)
    approval = decide(carol, deployment, comment="go ahead")
    deployment.refresh_from_db()
    assert (approval.kind, approval.actor, approval.comment) == ("admin", carol, "go ahead")
    assert deployment.approved == deployment.latest
    assert deployment.state == State.APPLYING
    assert ledger.held_by(deployment, h100) == 2
    event = Event.objects.get(kind="approved")
    assert (event.actor, event.data["digest"]) == (carol, deployment.latest.digest)


@pytest.mark.django_db(transaction=True)
def test_an_approval_takes_15_statements(ann, carol, team, django_assert_max_num_queries):
    """So many approvals a second depend on it: begin, the rows, audit, notices, ledger, state, commit."""
    revision = ask(ann, team).latest
    with django_assert_max_num_queries(15):
        approvals.decide(principal=make.principal(carol), revision=revision, digest=revision.digest, approve=True)


def test_a_rejection_reserves_nothing(ann, carol, team):
    deployment = ask(ann, team)
    decide(carol, deployment, approve=False, comment="too big")
    deployment.refresh_from_db()
    assert (deployment.state, deployment.approved) == (State.REJECTED, None)
    assert ledger.held_by(deployment) == 0


def test_another_digest_than_the_newest_is_stale(ann, carol, team):
    deployment = ask(ann, team)
    shown = deployment.latest.digest
    revise(ann, deployment, 2)
    first = deployment.revisions.get(number=1)
    for revision, digest in ((deployment.latest, shown), (first, shown), (deployment.latest, "x")):
        with pytest.raises(StaleError):
            approvals.decide(principal=make.principal(carol), revision=revision, digest=digest, approve=True)
    assert not Approval.objects.exists()


def test_nobody_approves_what_they_asked_for_or_edited(alice, ann, carol, team):
    policy(team, Team.Policy.LEAD)
    make.join(carol, team)
    own = ask(alice, team, "own")
    with pytest.raises(NotAllowedError, match="somebody else"):
        decide(alice, own)
    edited = ask(alice, team, "edited")
    revise(carol, edited, 2)
    for author in (alice, carol):
        with pytest.raises(NotAllowedError, match="somebody else"):
            decide(author, edited)
    assert decide(make.make_user("erin", admin=True), edited).approved


def test_who_wrote_only_what_is_approved_already_may_decide_about_the_next(alice, ann, carol, team):
    policy(team, Team.Policy.LEAD)
    deployment = ask(alice, team)
    decide(carol, deployment)
    revise(ann, deployment, 2)
    assert decide(alice, deployment).kind == "lead"


@pytest.mark.parametrize(
    ("value", "changes", "gpus", "allowed"),
    [
        (Team.Policy.ASK, {}, 1, False),
        (Team.Policy.LEAD, {}, 1, True),
        (Team.Policy.LEAD, {"engine": GUARDED}, 1, False),
        (Team.Policy.LEAD, {}, 4, False),
    ],
    ids=["asks an admin", "within quota", "guarded", "over quota"],
)
def test_a_lead_approves_within_policy_and_quota(alice, ann, carol, team, value, changes, gpus, allowed):
    decide(carol, ask(ann, team, "first"))
    policy(team, value)
    deployment = ask(ann, team, gpus=gpus, **changes)
    if allowed:
        assert decide(alice, deployment).kind == "lead"
    else:
        with pytest.raises(NotAllowedError):
            decide(alice, deployment)
        assert decide(alice, deployment, approve=False, comment="too much").kind == "lead"


def test_members_strangers_and_reading_tokens_decide_nothing(ann, bob, carol, team):
    deployment = ask(ann, team)
    member = make.make_user("max", team=team)
    with pytest.raises(NotAllowedError):
        decide(member, deployment)
    with pytest.raises(MissingError):
        decide(bob, deployment)
    with pytest.raises(NotAllowedError):
        approvals.decide(
            principal=make.principal(carol, "read", "write"),
            revision=deployment.latest,
            digest=deployment.latest.digest,
            approve=True,
        )
    carol.is_active = False
    with pytest.raises(MissingError):
        decide(carol, deployment)


def test_a_rejection_needs_a_reason(ann, carol, team):
    deployment = ask(ann, team)
    with pytest.raises(InvalidError) as refused:
        decide(carol, deployment, approve=False, comment="  ")
    assert (refused.value.field, refused.value.code) == ("comment", "required")
    assert not Approval.objects.exists()


def test_a_decision_is_made_once(ann, carol, team):
    deployment = ask(ann, team)
    decide(carol, deployment)
    with pytest.raises(ConflictError):
        decide(carol, deployment, approve=False)


def test_what_is_being_deleted_is_not_approved(ann, carol, team):
    deployment = ask(ann, team)
    lifecycle.delete(principal=make.principal(ann), deployment=deployment)
    with pytest.raises(ConflictError):
        decide(carol, deployment)


def test_an_edit_of_equal_size_costs_only_its_surge(ann, carol, team):
    deployment = ask(ann, team, gpus=4)
    decide(carol, deployment)
    spec = make.a_spec(replicas={"min": 4, "max": 4}, engine={"args": {"max-model-len": 8192}})
    requests.revise(
        principal=make.principal(ann), deployment=deployment, spec=DeploymentSpec.from_json(spec), base_revision=1
    )
    decide(carol, deployment)
    deployment.refresh_from_db()
    assert (deployment.approved.number, ledger.held_by(deployment)) == (2, 4)


# Waiting lines


def settle(*deployments: Deployment) -> list[bool]:
    """Which of them run (reserved and current) after everybody woken has had a turn."""
    for deployment in deployments:
        deployment.refresh_from_db()
    return [deployment.approved_id is not None for deployment in deployments]


@pytest.fixture
def full(ann, carol, team) -> Deployment:
    """A deployment that holds three of the team's four GPUs."""
    deployment = ask(ann, team, "full", gpus=3)
    decide(carol, deployment)
    return deployment


def give_back(deployment: Deployment, user) -> None:
    lifecycle.stop(principal=make.principal(user), deployment=deployment)
    make.release(deployment)


def test_without_quota_the_approved_waits_and_the_next_release_lets_it_run(
    ann, carol, team, full, django_capture_on_commit_callbacks
):
    waits = ask(ann, team, gpus=2)
    decide(carol, waits)
    waits.refresh_from_db()
    assert (waits.state, waits.approved, waits.latest.verdict) == (State.AWAITING_QUOTA, None, "approved")
    with django_capture_on_commit_callbacks(execute=True):
        give_back(full, ann)
    waits.refresh_from_db()
    assert (waits.state, ledger.held_by(waits)) == (State.APPLYING, 2)


def test_a_new_grant_wakes_the_line(ann, carol, team, h100, full, django_capture_on_commit_callbacks):
    waits = ask(ann, team, gpus=2)
    decide(carol, waits)
    with django_capture_on_commit_callbacks(execute=True):
        grants.grant(principal=make.principal(carol), team=team, flavor=h100, gpus=2)
    assert settle(waits) == [True]


def test_the_line_is_served_in_order_and_nobody_overtakes(ann, carol, team, full, django_capture_on_commit_callbacks):
    first, second = ask(ann, team, "first", gpus=4), ask(ann, team, "second", gpus=1)
    with django_capture_on_commit_callbacks(execute=True):
        decide(carol, first)
        decide(carol, second)
    assert settle(first, second) == [False, False]
    with django_capture_on_commit_callbacks(execute=True):
        give_back(full, ann)
    assert settle(first, second) == [True, False]
    with django_capture_on_commit_callbacks(execute=True):
        give_back(first, ann)
    assert settle(second) == [True]


def test_who_needs_more_than_the_whole_limit_lets_others_pass(ann, carol, team, h100, full):
    big, small = ask(ann, team, "big", gpus=4), ask(ann, team, "small", gpus=1)
    decide(carol, big)
    team.grants.update(gpus=3)
    team.grants.create(flavor=h100, gpus=0)
    full.refresh_from_db()
    give_back(full, ann)
    decide(carol, small)
    assert settle(big, small) == [False, True]


def test_the_sweep_serves_a_line_whose_waker_died(ann, carol, team, full):
    waits = ask(ann, team, gpus=2)
    decide(carol, waits)
    give_back(full, ann)
    assert settle(waits) == [False]
    assert waiting.wake_all() == 1
    assert settle(waits) == [True]
    assert waiting.wake_all() == 0


def test_an_empty_line_costs_the_sweep_one_query(django_assert_num_queries, full):
    with django_assert_num_queries(1):
        waiting.wake_all()


def test_who_stopped_waiting_is_not_served(ann, carol, team, full):
    waits = ask(ann, team, gpus=2)
    decide(carol, waits)
    lifecycle.stop(principal=make.principal(ann), deployment=waits)
    give_back(full, ann)
    assert waiting.wake_all() == 0
    assert ledger.held_by(waits) == 0
    lifecycle.start(principal=make.principal(ann), deployment=waits)
    assert settle(waits) == [True]


def test_an_approved_edit_of_a_stopped_deployment_reserves_when_it_starts(ann, carol, team):
    deployment = ask(ann, team)
    decide(carol, deployment)
    give_back(deployment, ann)
    revise(ann, deployment, 3)
    decide(carol, deployment)
    assert ledger.held_by(deployment) == 0
    lifecycle.start(principal=make.principal(ann), deployment=deployment)
    assert ledger.held_by(deployment) == 3


# The database alone


def test_the_database_refuses_a_self_approval(ann, team):
    deployment = ask(ann, team)
    with pytest.raises(DatabaseError), transaction.atomic():
        Approval.objects.create(
            revision=deployment.latest, digest=deployment.latest.digest, kind="admin", actor=ann, approved=True
        )


def test_the_database_runs_nothing_unapproved(ann, team):
    deployment = ask(ann, team)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    with pytest.raises(DatabaseError), transaction.atomic():
        Deployment.objects.filter(pk=deployment.pk).update(approved=deployment.latest)


@pytest.mark.parametrize("column", ["digest", "spec", "objects_json", "resolution", "gpus"])
def test_the_database_keeps_what_an_approval_signed(ann, team, column):
    deployment = ask(ann, team)
    value = {"digest": "0" * 64, "gpus": 7}.get(column, {"other": 1})
    with pytest.raises(DatabaseError), transaction.atomic():
        Revision.objects.filter(pk=deployment.latest.pk).update(**{column: value})


@pytest.mark.parametrize("model", [Event, Approval])
def test_the_database_keeps_the_audit(ann, carol, team, model):
    decide(carol, ask(ann, team))
    with pytest.raises(DatabaseError), transaction.atomic():
        model.objects.update(created_at=timezone.now() - timedelta(days=1))
    with pytest.raises(DatabaseError), transaction.atomic():
        model.objects.all().delete()


def test_stopping_keeps_the_gpus_until_the_pods_are_gone(ann, carol, team):
    deployment = ask(ann, team, gpus=2)
    decide(carol, deployment)
    lifecycle.stop(principal=make.principal(ann), deployment=deployment)
    deployment.refresh_from_db()
    assert (deployment.wanted, ledger.held_by(deployment)) == (Wanted.STOPPED, 2)
