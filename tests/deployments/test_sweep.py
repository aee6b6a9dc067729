"""The sweep finds whatever is due: what makes a lost message cost seconds and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from deployments import tasks
from deployments.models import Deployment, Team
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


def test_a_still_system_costs_two_queries_and_no_message(row, sent):
    Team.objects.update(next_reconcile_at=None)
    Deployment.objects.update(next_reconcile_at=Now() + timedelta(hours=1))
    with CaptureQueriesContext(connection) as queries:
        assert tasks.sweep() == 0
    assert len(queries) <= 2  # the waiting lines, and everything due
    assert sent == []


def test_one_sweep_sends_no_more_than_workers_can_use(row, alice, team, sent, monkeypatch):
    monkeypatch.setattr(tasks, "BATCH", 3)
    for number in range(5):
        due(make.make_deployment(team, alice, name=f"d{number}", approved=True))
    assert tasks.sweep() == 3
