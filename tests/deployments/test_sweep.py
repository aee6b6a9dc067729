"""The sweep finds whatever is due: what makes a lost message cost seconds and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from deployments import tasks
from deployments.models import Deployment, Event, Revision, Team
from deployments.reconciler import passes
from deployments.services import approvals, expiry, lifecycle, waiting
from deployments.services.errors import ConflictError
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The messages that a sweep sends; each must expire."""
    found: list[tuple[str, int]] = []

    def send(task: str, *, args: list[int], expires: int, retry: bool, ignore_result: bool) -> None:
        assert 0 < expires <= 60, "an hour of sweeps must not pile up behind a busy worker"
        assert not retry
        found.append((task, args[0]))

    monkeypatch.setattr(tasks.current_app, "send_task", send)
    Team.objects.update(next_reconcile_at=None)
    return found


@pytest.fixture
def row(alice, team, h100) -> Deployment:
    return make.make_deployment(team, alice, approved=True)


def due(row: Deployment) -> None:
    Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=Now())


def test_a_row_whose_hint_was_lost_is_found(row, sent):
    due(row)
    Team.objects.update(next_reconcile_at=None)
    assert tasks.sweep() == 1
    assert sent == [("deployments.reconcile", row.pk)]


def test_teams_come_first_then_the_longest_due(row, alice, team, sent):
    older = make.make_deployment(team, alice, name="older", approved=True)
    due(row)
    Deployment.objects.filter(pk=older.pk).update(next_reconcile_at=Now() - timedelta(minutes=5))
    Team.objects.filter(pk=team.pk).update(next_reconcile_at=Now())
    tasks.sweep()
    assert [pk for task, pk in sent if task == "deployments.reconcile"] == [older.pk, row.pk]
    assert sent[0] == ("deployments.reconcile_team", team.pk)


def test_what_another_worker_holds_is_left_alone(row, sent):
    due(row)
    Team.objects.update(next_reconcile_at=None)
    Deployment.objects.filter(pk=row.pk).update(lease_until=Now() + timedelta(seconds=20))
    assert tasks.sweep() == 0


def test_what_a_dead_worker_held_is_found(row, sent):
    due(row)
    Team.objects.update(next_reconcile_at=None)
    Deployment.objects.filter(pk=row.pk).update(lease_until=Now() - timedelta(seconds=1))
    assert tasks.sweep() == 1


def test_a_still_system_costs_five_queries_and_no_message(row, sent):
    Team.objects.update(next_reconcile_at=None)
    Deployment.objects.update(next_reconcile_at=Now() + timedelta(hours=1))
    with CaptureQueriesContext(connection) as queries:
        assert tasks.sweep() == 0
    # Everything due, the waiting lines, requests and quota requests nobody decided about, and dates of grants.
    assert len(queries) <= 5
    assert sent == []


def test_one_sweep_sends_no_more_than_workers_can_use(row, alice, team, sent, monkeypatch):
    monkeypatch.setattr(tasks, "BATCH", 3)
    for number in range(5):
        due(make.make_deployment(team, alice, name=f"d{number}", approved=True))
    assert tasks.sweep() == 3


def test_what_is_due_is_sent_though_everything_else_fails(row, sent, monkeypatch):
    def fail() -> int:
        raise RuntimeError("the disk is full")

    fail.__name__ = "wake_all"
    monkeypatch.setattr(tasks.waiting, "wake_all", fail)
    expired = []
    monkeypatch.setattr(tasks.expiry, "expire_undecided", lambda: expired.append(1))
    due(row)
    assert tasks.sweep() == 1
    assert sent == [("deployments.reconcile", row.pk)]
    assert expired, "one chore that fails stops no other"


def test_a_request_nobody_decides_about_expires(alice, carol, team, h100, sent, settings):
    settings.REQUEST_EXPIRY_DAYS = 3
    old, fresh, running = (make.make_deployment(team, alice, name=name) for name in ("old", "fresh", "running"))
    make.approve(running.latest)
    make.add_revision(running, alice)
    late = Now() - timedelta(days=3, minutes=1)
    Revision.objects.exclude(deployment=fresh).update(created_at=late)
    Revision.objects.filter(deployment=fresh).update(created_at=Now() - timedelta(days=2, hours=23))

    tasks.sweep()
    for row in (old, fresh, running):
        row.refresh_from_db()
    assert (old.state, old.latest.verdict) == ("Expired", "expired")
    assert (fresh.state, fresh.latest.verdict) == ("AwaitingApproval", "pending")
    assert (running.latest.verdict, running.approved.verdict, running.state) == ("expired", "approved", "Applying")
    assert set(Event.objects.filter(kind="expired").values_list("deployment", flat=True)) == {old.pk, running.pk}
    with pytest.raises(ConflictError):
        approvals.decide(principal=make.principal(carol), revision=old.latest, digest=old.latest.digest, approve=True)

    tasks.sweep()
    assert Event.objects.filter(kind="expired").count() == 2
    lifecycle.delete(principal=make.principal(alice), deployment=old)
    passes.reconcile(old.pk, None)
    assert Deployment.objects.get(pk=old.pk).deleted_at is not None
    assert make.make_deployment(team, alice, name="old").pk != old.pk


def test_one_request_that_cannot_expire_stops_no_other(alice, team, h100, sent, monkeypatch):
    rows = [make.make_deployment(team, alice, name=name) for name in ("one", "two")]
    Revision.objects.update(created_at=Now() - timedelta(days=15))
    expire = expiry._expire

    def poisoned(pk: int) -> bool:
        if pk == rows[0].latest.pk:
            raise RuntimeError("poison")
        return expire(pk)

    monkeypatch.setattr(expiry, "_expire", poisoned)
    assert expiry.expire_undecided() == 1
    assert Revision.objects.get(verdict="expired").deployment == rows[1]


def test_a_line_that_cannot_be_served_stops_no_other(alice, team, h100, monkeypatch):
    labs = make.make_team("labs")
    make.make_grant(labs, h100, 1)
    rows = [make.make_deployment(each, alice, flavor=h100) for each in (team, labs)]
    for row in rows:
        make.approve(row.latest, current=False)
    serve, asked = waiting.wake, []

    def poisoned(account_pk: int) -> int:
        asked.append(account_pk)
        if len(asked) == 1:
            raise RuntimeError("poison")
        return serve(account_pk)

    monkeypatch.setattr(waiting, "wake", poisoned)
    assert waiting.wake_all() == 1
    assert Deployment.objects.exclude(approved=None).count() == 1
    assert waiting.wake_all() == 1  # the next sweep
    assert Deployment.objects.exclude(approved=None).count() == 2
