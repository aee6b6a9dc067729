"""Two people at the same moment: one of them wins, nothing is half done, and the database's conflicts are retried."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test import Client

from deployments.models import Approval, Deployment, Reservation, Revision, Team
from deployments.services import approvals, ledger, lifecycle, requests, tokens, transactions, waiting
from deployments.services.errors import ConflictError, DomainError, RefusedError, StaleError
from deployments.services.transactions import in_transaction
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("hub")]

AT_ONCE = 6


def together(works: list[Callable[[], Any]]) -> list[Any]:
    """What each returned, or the DomainError it raised; all start at the same moment."""
    barrier = threading.Barrier(len(works))

    def one(work: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return work()
        except DomainError as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(one, works))


def kinds(results: list[Any]) -> list[str]:
    return sorted(type(result).__name__ for result in results)


def ask(user, team, name="chat", gpus=1) -> Deployment:
    spec = DeploymentSpec.from_json(make.a_spec(replicas={"min": gpus, "max": gpus}))
    return requests.submit(principal=make.principal(user), team=team, name=name, spec=spec)


def decide(user, deployment, approve=True) -> Approval:
    revision = deployment.latest
    return approvals.decide(
        principal=make.principal(user),
        revision=revision,
        digest=revision.digest,
        approve=approve,
        comment="" if approve else "Too large.",
    )


def test_a_name_asked_for_at_once_is_given_once(ann, team):
    results = together([lambda: ask(ann, team)] * AT_ONCE)
    assert kinds(results) == ["Deployment", *["RefusedError"] * (AT_ONCE - 1)]
    assert {error.code for error in results if isinstance(error, RefusedError)} == {"preflight"}
    assert Deployment.objects.count() == 1


def test_policy_never_approves_past_the_quota(ann, team):
    Team.objects.update(policy=Team.Policy.AUTO)
    results = together([lambda n=n: ask(ann, team, f"chat-{n}") for n in range(AT_ONCE)])
    assert kinds(results) == ["Deployment"] * AT_ONCE
    assert Deployment.objects.exclude(approved=None).count() == 4
    assert sum(row.delta for row in Reservation.objects.all()) == 4


def test_two_admins_who_disagree_are_one_decision(ann, team):
    deployment = ask(ann, team)
    admins = [make.make_user(f"admin{n}", admin=True) for n in range(AT_ONCE)]
    results = together([lambda n=n: decide(admins[n], deployment, approve=n % 2 == 0) for n in range(AT_ONCE)])
    assert kinds(results) == ["Approval", *["ConflictError"] * (AT_ONCE - 1)]
    deployment.refresh_from_db()
    assert Approval.objects.count() == 1
    assert (deployment.approved is not None) == Approval.objects.get().approved


def test_an_edit_beside_an_approval_leaves_what_was_approved_running(ann, carol, team):
    deployment = ask(ann, team)
    change = DeploymentSpec.from_json(make.a_spec(replicas={"min": 2, "max": 2}))
    results = together(
        [
            lambda: decide(carol, deployment),
            lambda: requests.revise(principal=make.principal(ann), deployment=deployment, spec=change, base_revision=1),
        ]
    )
    deployment.refresh_from_db()
    assert deployment.latest.number == 2
    if isinstance(results[0], StaleError):
        assert deployment.approved is None
    else:
        assert deployment.approved.number == 1
        assert deployment.approved.digest == Approval.objects.get().digest


def test_approvals_and_starts_for_the_last_gpus_never_overshoot(ann, carol, team):
    asked = [ask(ann, team, f"chat-{n}", gpus=3) for n in range(3)]
    stopped = ask(ann, team, "stopped", gpus=3)
    decide(carol, stopped)
    lifecycle.stop(principal=make.principal(ann), deployment=stopped)
    make.release(stopped)
    works: list[Callable[[], Any]] = [lambda row=row: decide(carol, row) for row in asked]
    works.append(lambda: lifecycle.start(principal=make.principal(ann), deployment=stopped))
    together(works)
    assert sum(ledger.held_by(row) for row in Deployment.objects.all()) == 3
    assert [(row.reserved, row.limit) for row in ledger.usage(team)] == [(3, 4)]


def test_many_wakers_of_one_line_admit_each_once(ann, carol, team):
    rows = [ask(ann, team, f"chat-{n}", gpus=1) for n in range(4)]
    blocker = ask(ann, team, "blocker", gpus=4)
    decide(carol, blocker)
    for row in rows:
        decide(carol, row)
    lifecycle.stop(principal=make.principal(ann), deployment=blocker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "wake", lambda account_pk: 0)
        make.release(blocker)
    assert sum(together([waiting.wake_all] * AT_ONCE)) == 4
    assert [ledger.held_by(row) for row in rows] == [1, 1, 1, 1]
    assert Reservation.objects.filter(kind="take").count() == 5


def test_edits_of_one_deployment_at_once_are_one_edit_and_stale_pages(ann, team):
    """Over connections of their own: who waits for the lock hears of the newer revision, and nothing breaks."""
    pk = ask(ann, team).pk
    _, text = tokens.create(principal=make.principal(ann), name="t", scopes=["read", "write"])

    def edit(base: int, length: int) -> int:
        body = {"spec": {"engine": {"args": {"max-model-len": length}}}, "base_revision": base}
        headers = {"Authorization": f"Bearer {text}"}
        path = f"/api/v1/deployments/{pk}/"
        return Client().patch(path, body, content_type="application/json", headers=headers).status_code

    for base in range(1, 9):
        answers = together([lambda n=n, base=base: edit(base, 4096 + 16 * (8 * base + n)) for n in range(AT_ONCE)])
        assert sorted(answers) == [200, *[412] * (AT_ONCE - 1)]
    assert list(Revision.objects.order_by("number").values_list("number", flat=True)) == list(range(1, 10))


def test_a_row_that_was_waited_for_is_read_with_its_relations_of_now(ann, team):
    """A lock and a join in one statement would see the new key and the old revisions: no revision at all."""
    deployment = ask(ann, team)
    moved, read = threading.Event(), []

    def wait_for_it() -> None:
        with transaction.atomic():
            moved.wait(10)
            row = Deployment.objects.hold(deployment.pk, "latest")
            read.append(row.latest.number if row and row.latest else None)
        connections.close_all()

    waiter = threading.Thread(target=wait_for_it)
    waiter.start()
    with transaction.atomic():
        revision = make.add_revision(deployment, ann)
        Deployment.objects.filter(pk=deployment.pk).update(latest=revision)
        moved.set()
        until_somebody_waits_for_a_lock()
    waiter.join(10)
    assert read == [2]


def until_somebody_waits_for_a_lock() -> None:
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(waits)
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waited")


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_conflicts_of_the_database_are_tried_again(code):
    tries = []

    @in_transaction
    def service() -> int:
        tries.append(1)
        if len(tries) < 3:
            with connection.cursor() as cursor:
                cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$")
        return len(tries)

    assert service() == 3


def test_other_errors_and_endless_conflicts_are_not(monkeypatch):
    monkeypatch.setattr(transactions.time, "sleep", lambda seconds: None)
    tries = []

    @in_transaction
    def service(code: str) -> None:
        tries.append(code)
        with connection.cursor() as cursor:
            cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$")

    with pytest.raises(OperationalError):
        service("40001")
    assert len(tries) == transactions.TRIES
    with pytest.raises(Exception, match="x"):
        service("22000")
    assert len(tries) == transactions.TRIES + 1


def test_inside_a_transaction_the_outermost_retries():
    tries = []

    @in_transaction
    def inner() -> None:
        tries.append(1)
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$")

    with pytest.raises(OperationalError), transaction.atomic():
        inner()
    assert len(tries) == 1


def test_a_refused_wish_leaves_nothing(ann, carol, team):
    deployment = ask(ann, team)
    decide(carol, deployment)
    with pytest.raises(ConflictError):
        decide(carol, deployment)
    assert Approval.objects.count() == 1
