"""Stop, start and delete record what is wanted; GPUs and names follow."""

from __future__ import annotations

import pytest

from deployments.models import Deployment, Event, Wanted
from deployments.services import ledger, lifecycle
from deployments.services.errors import (
    ConflictError,
    InvalidError,
    MissingError,
    NotAllowedError,
    QuotaExceededError,
)
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def chat(team, ann, h100):
    deployment = make.make_deployment(team, ann, gpus=3, approved=True)
    ledger.reserve(deployment=deployment, revision=deployment.latest, gpus=3)
    return deployment


def free(deployment) -> None:
    make.release(deployment)


def test_stop_is_recorded_and_a_worker_is_told(chat, ann, no_broker, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.stop(principal=make.principal(ann), deployment=chat, reason="night")
    chat.refresh_from_db()
    assert (chat.wanted, chat.state) == (Wanted.STOPPED, Deployment.State.STOPPING)
    assert chat.next_reconcile_at is not None
    assert ("deployments.reconcile", chat.pk) in no_broker
    event = Event.objects.get(kind="stopped")
    assert (event.actor, event.data) == (ann, {"before": {"wanted": "running"}, "after": {"wanted": "stopped"}})


def test_stopping_and_starting_twice_changes_nothing(chat, ann):
    who = make.principal(ann)
    for _ in range(2):
        lifecycle.stop(principal=who, deployment=chat)
    for _ in range(2):
        lifecycle.start(principal=who, deployment=chat)
    assert Event.objects.filter(kind__in=["stopped", "started"]).count() == 2
    assert ledger.held_by(chat) == 3


def test_start_takes_the_gpus_again(chat, ann):
    lifecycle.stop(principal=make.principal(ann), deployment=chat)
    free(chat)
    assert ledger.held_by(chat) == 0
    lifecycle.start(principal=make.principal(ann), deployment=chat)
    assert ledger.held_by(chat) == 3


def test_start_without_quota_is_refused_and_changes_nothing(chat, ann, team):
    lifecycle.stop(principal=make.principal(ann), deployment=chat)
    free(chat)
    team.grants.update(gpus=2)
    with pytest.raises(QuotaExceededError):
        lifecycle.start(principal=make.principal(ann), deployment=chat)
    chat.refresh_from_db()
    assert chat.wanted == Wanted.STOPPED
    assert not Event.objects.filter(kind="started").exists()


def test_what_was_never_approved_is_withdrawn_not_stopped(team, ann):
    waits = make.make_deployment(team, ann)
    with pytest.raises(ConflictError):
        lifecycle.stop(principal=make.principal(ann), deployment=waits)
    lifecycle.delete(principal=make.principal(ann), deployment=waits)
    waits.refresh_from_db()
    assert (waits.wanted, waits.latest.verdict) == (Wanted.DELETED, "superseded")


def test_delete_marks_and_keeps_row_ledger_and_events(chat, ann):
    lifecycle.delete(principal=make.principal(ann), deployment=chat)
    chat.refresh_from_db()
    assert (chat.wanted, chat.deleted_at) == (Wanted.DELETED, None)
    assert ledger.held_by(chat) == 3
    assert Event.objects.filter(kind="delete_asked", deployment=chat).count() == 1
    for refused in (lifecycle.stop, lifecycle.start):
        with pytest.raises(ConflictError):
            refused(principal=make.principal(ann), deployment=chat)
    lifecycle.delete(principal=make.principal(ann), deployment=chat)
    assert Event.objects.filter(kind="delete_asked").count() == 1


def test_a_person_types_the_name_to_delete(chat, ann):
    with pytest.raises(InvalidError) as error:
        lifecycle.delete(principal=make.principal(ann), deployment=chat, confirm="chatt")
    assert error.value.field == "confirm"


@pytest.mark.parametrize("name", ["stop", "start", "delete"])
def test_strangers_find_nothing_and_readers_may_not(chat, ann, bob, carol, name):
    service = getattr(lifecycle, name)
    with pytest.raises(MissingError):
        service(principal=make.principal(bob), deployment=chat)
    with pytest.raises(NotAllowedError):
        service(principal=make.principal(ann, "read"), deployment=chat)
    service(principal=make.principal(carol), deployment=chat)
