"""One worker at a time holds a row, and one that slept too long changes nothing."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from deployments.kube.kinds import Ref
from deployments.models import AppliedObject, Deployment, Event, Intent, Team
from deployments.reconciler import passes
from deployments.reconciler.endings import Ending
from deployments.services import convergence, events, ledger
from deployments.services.convergence import Lease, LeaseLostError, Outcome
from tests.deployments import factories as make

REF = Ref("v1", "ServiceAccount", "ns", "chat")


@pytest.fixture
def row(alice, team, h100) -> Deployment:
    deployment = make.make_deployment(team, alice, approved=True)
    Deployment.objects.filter(pk=deployment.pk).update(next_reconcile_at=Now())
    return deployment


def expire(row: Deployment) -> None:
    Deployment.objects.filter(pk=row.pk).update(lease_until=Now() - timedelta(seconds=1))


@pytest.mark.django_db
def test_a_held_row_is_nobody_elses(row):
    with convergence.lease(Deployment, row.pk) as first:
        Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=Now())
        with convergence.lease(Deployment, row.pk) as second:
            assert first is not None
            assert second is None


@pytest.mark.django_db
def test_a_row_that_is_not_due_is_not_held(row):
    Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=Now() + timedelta(hours=1))
    with convergence.lease(Deployment, row.pk) as held:
        assert held is None


@pytest.mark.django_db
def test_a_dead_workers_row_is_due_again_when_its_lease_runs_out(row):
    held = convergence.lease(Deployment, row.pk)
    held.__enter__()  # and never leaves
    assert not Deployment.objects.due().filter(pk=row.pk).exists()
    Deployment.objects.filter(pk=row.pk).update(
        lease_until=Now() - timedelta(seconds=1), next_reconcile_at=Now() - timedelta(seconds=1)
    )
    with convergence.lease(Deployment, row.pk) as second:
        assert second is not None


@pytest.mark.django_db
def test_a_late_worker_records_nothing(row):
    with convergence.lease(Deployment, row.pk) as held:
        assert held is not None
        intent = convergence.open_intent(held, verb="create", ref=REF, digest="d")
        expire(row)

        with pytest.raises(LeaseLostError):
            convergence.written(held, intent, ref=REF, uid="u", digest="d", managed="m", owned=False, revision=None)
        with pytest.raises(LeaseLostError):
            convergence.settled(held, intent, "done")
        with pytest.raises(LeaseLostError):
            convergence.open_intent(held, verb="delete", ref=REF)
        stored = convergence.finish(held, outcome=Outcome("applied"), again=timedelta(hours=1), failures=0)

    assert not stored
    assert not AppliedObject.objects.exists()
    assert Intent.objects.get().closed_at is None
    row.refresh_from_db()
    assert row.outcome == {}


@pytest.mark.django_db
def test_a_wish_made_during_a_pass_is_not_forgotten(row):
    with convergence.lease(Deployment, row.pk) as held:
        assert held is not None
        Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=Now())  # as a service does
        convergence.finish(held, outcome=Outcome("applied"), again=timedelta(hours=1), failures=0)
    assert Deployment.objects.due().filter(pk=row.pk).exists()


@pytest.mark.django_db
def test_a_finished_row_is_due_again_later(row):
    with convergence.lease(Deployment, row.pk) as held:
        assert held is not None
        convergence.finish(held, outcome=Outcome("applied"), again=timedelta(hours=1), failures=0)
    assert not Deployment.objects.due().filter(pk=row.pk).exists()
    row.refresh_from_db()
    assert row.next_reconcile_at is not None
    assert row.lease_until is None


@pytest.mark.django_db
def test_a_team_is_leased_the_same_way(team):
    Team.objects.update(next_reconcile_at=Now())
    with convergence.lease(Team, team.pk) as first, convergence.lease(Team, team.pk) as second:
        assert first is not None
        assert second is None


@pytest.mark.django_db
def test_a_write_after_the_lease_leaves_a_trace_and_a_due_row(row):
    with convergence.lease(Deployment, row.pk) as held:
        assert held is not None
        intent = convergence.open_intent(held, verb="create", ref=REF)
    Intent.objects.update(closed_at=Now(), result="never arrived")
    convergence.unrecorded(held, intent)
    assert Intent.objects.get().closed_at is None
    assert Deployment.objects.due().filter(pk=row.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_at_once_one_gets_the_row(row):
    start = threading.Barrier(6)
    won: list[Lease] = []

    def work() -> None:
        try:
            start.wait()
            with convergence.lease(Deployment, row.pk) as held:
                if held is not None:
                    won.append(held)
                    release.wait(10)
        finally:
            connection.close()

    release = threading.Event()
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads[:]:
        thread.join(1)
    release.set()
    for thread in threads:
        thread.join(10)
    assert len(won) == 1


def test_backoff_grows_is_jittered_and_bounded():
    first = [convergence.backoff(0).total_seconds() for _ in range(200)]
    late = [convergence.backoff(50).total_seconds() for _ in range(200)]
    assert min(first) >= 0.5
    assert max(first) <= 2
    assert max(late) <= 300
    assert len(set(late)) > 100


def silence(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The audit cannot store events of this kind: what they tell of must not happen either."""
    record = events.record

    def record_or_fail(**fields: object) -> object:
        if fields["kind"] == kind:
            raise RuntimeError("the audit is full")
        return record(**fields)

    monkeypatch.setattr(events, "record", record_or_fail)


@pytest.mark.django_db
def test_nothing_is_deleted_without_its_line_in_the_audit(row, monkeypatch):
    gone = Ending(Outcome("gone"), None, 0, {"deleted_at": timezone.now()})
    monkeypatch.setattr(passes, "_pass", lambda held, cluster, row: gone)
    silence(monkeypatch, "deleted")
    with pytest.raises(RuntimeError):
        passes.reconcile(row.pk, None)
    row.refresh_from_db()
    assert row.deleted_at is None
    monkeypatch.undo()
    monkeypatch.setattr(passes, "_pass", lambda held, cluster, row: gone)
    Deployment.objects.filter(pk=row.pk).update(next_reconcile_at=Now())
    passes.reconcile(row.pk, None)
    row.refresh_from_db()
    assert row.deleted_at is not None
    assert Event.objects.filter(kind="deleted", deployment=row).count() == 1


@pytest.mark.django_db
def test_no_revision_is_applied_without_its_line_in_the_audit(row, monkeypatch):
    silence(monkeypatch, "applied")
    with convergence.lease(Deployment, row.pk) as held, pytest.raises(RuntimeError):
        passes._running(held, None, Deployment.objects.get(pk=row.pk), None)
    row.refresh_from_db()
    assert row.applied is None


@pytest.mark.django_db
def test_a_list_too_old_to_prove_anything_is_made_again_soon(row, monkeypatch):
    def too_old(*_: object) -> Ending:
        raise ledger.ProofError("The list of pods is older than the last start or stop.")

    monkeypatch.setattr(passes, "_pass", too_old)
    passes.reconcile(row.pk, None)
    row.refresh_from_db()
    assert row.outcome["code"] == "waiting"
    assert row.next_reconcile_at < timezone.now() + timedelta(minutes=2)
