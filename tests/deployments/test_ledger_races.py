"""Many connections take, give back and cut grants at once; each isolation level, with the services and without."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from django.db import connection, connections

from deployments.models import Deployment, QuotaAccount, QuotaHold, Reservation, Team, Wanted
from deployments.services import ledger
from deployments.services.convergence import database_now
from deployments.services.errors import QuotaExceededError
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 12
ROUNDS = 120
TAKE = """INSERT INTO deployments_reservation
    (account_id, deployment_id, delta, balance_before, kind, reason, created_at)
    VALUES (%s, %s, %s, %s, %s, '', now())"""
LIMIT = "SELECT coalesce(sum(gpus), 0) FROM deployments_quotagrant WHERE team_id = %s"
LOST = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


@pytest.fixture
def team():
    return make.make_team()


@pytest.fixture
def account(team):
    flavor = make.make_flavor()
    make.make_grant(team, flavor, 6)
    make.make_grant(team, flavor, 2)
    return QuotaAccount.objects.get()


def deployments(team: Team, count: int) -> list[Deployment]:
    author = make.make_user(team=team)
    return [make.make_deployment(team, author, name=f"chat-{n}", approved=True) for n in range(count)]


def connect(isolation: psycopg.IsolationLevel | None = None) -> psycopg.Connection[Any]:
    options = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    made = psycopg.connect(**{name: options[name] for name in names if name in options}, autocommit=isolation is None)
    made.isolation_level = isolation
    return made


def together(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Run `work(n)` in `count` threads that start at the same moment; an error of one is an error of the test."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait()
        try:
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def assert_books_agree(account: QuotaAccount) -> None:
    account.refresh_from_db()
    held = sum(hold.gpus for hold in QuotaHold.objects.filter(account=account))
    booked = sum(row.delta for row in Reservation.objects.filter(account=account))
    assert account.reserved == held == booked


class Churn:
    """One client that takes and gives back at random, and checks the limit while it still holds the lock."""

    def __init__(self, account: QuotaAccount, deployment: Deployment, isolation: psycopg.IsolationLevel) -> None:
        self.account, self.deployment = account, deployment
        self.connection, self.outside = connect(isolation), connect()
        self.random = random.Random(deployment.pk)
        self.held = self.taken = self.refused = self.over = 0

    def run(self) -> Churn:
        with self.connection, self.outside:
            for _ in range(ROUNDS):
                self.round()
        return self

    def round(self) -> None:
        give_back = self.held > 0 and self.random.random() < 0.5
        delta = -self.held if give_back else self.random.randint(1, 4)
        row = (self.account.pk, self.deployment.pk, delta, self.held, "release" if give_back else "take")
        try:
            self.connection.execute(TAKE, row)
            if delta > 0:
                self.check()
            self.connection.commit()
        except LOST:
            self.connection.rollback()
        except psycopg.DatabaseError as error:
            self.connection.rollback()
            if error.sqlstate != "SQ001":
                raise
            self.refused += 1
        else:
            self.held += delta
            self.taken += delta > 0

    def check(self) -> None:
        # Grants change only under the lock that this transaction holds, so another connection sees the limit that is
        # valid now, whatever snapshot this one reads from.
        query = "SELECT reserved FROM deployments_quotaaccount WHERE id = %s"
        reserved = self.connection.execute(query, (self.account.pk,)).fetchone()
        limit = self.outside.execute(LIMIT, (self.account.team_id,)).fetchone()
        assert reserved is not None
        assert limit is not None
        self.over += reserved[0] > limit[0]


@pytest.mark.parametrize(
    "isolation", [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ], ids=str
)
def test_no_take_passes_the_limit_while_grants_are_cut(account, team, isolation):
    clients = [Churn(account, deployment, isolation) for deployment in deployments(team, THREADS)]

    def work(number: int) -> Churn | None:
        if number < THREADS:
            return clients[number].run()
        cut = random.Random(7)
        with connect() as own:
            for _ in range(ROUNDS):
                query = "UPDATE deployments_quotagrant SET gpus = %s WHERE id = (SELECT min(id) FROM %s)"
                own.execute(query.replace("FROM %s", "FROM deployments_quotagrant"), (cut.randint(0, 10),))
        return None

    together(work, THREADS + 1)
    assert sum(client.over for client in clients) == 0
    # Both outcomes really happened, or the test proves nothing.
    assert sum(client.taken for client in clients) > THREADS
    assert sum(client.refused for client in clients) > THREADS
    assert_books_agree(account)


def test_services_that_race_for_the_last_gpus_share_them(account, team):
    rows = deployments(team, THREADS)

    def work(number: int) -> bool:
        try:
            ledger.reserve(deployment=rows[number], revision=rows[number].latest, gpus=2)
        except QuotaExceededError:
            return False
        return True

    assert sum(together(work)) == 4
    assert_books_agree(account)
    assert account.reserved == 8


def test_many_releases_at_once_give_back_once(account, team):
    (chat,) = deployments(team, 1)
    ledger.reserve(deployment=chat, revision=chat.latest, gpus=4)
    Deployment.objects.filter(pk=chat.pk).update(wanted=Wanted.STOPPED)
    proof, lease = ledger.Proof(database_now()), make.lease(chat)

    released = together(lambda number: len(ledger.release(deployment=chat, lease=lease, proof=proof)))
    assert sum(released) == 1
    assert_books_agree(account)
    assert account.reserved == 0


def test_taking_and_giving_back_of_two_flavors_never_deadlocks(account, team):
    other = make.make_flavor("l4-24gb")
    make.make_grant(team, other, 100)
    rows = deployments(team, THREADS)
    for row in rows:
        ledger.reserve(deployment=row, revision=make.add_revision(row, row.created_by, flavor=other), gpus=1)
    Deployment.objects.all().update(wanted=Wanted.STOPPED, approved=None)

    def work(number: int) -> None:
        row = rows[number]
        for _ in range(4):
            make.release(row)
            for revision in row.revisions.order_by("number" if number % 2 else "-number"):
                try:
                    ledger.reserve(deployment=row, revision=revision, gpus=1)
                except QuotaExceededError:
                    continue

    together(work)
    for either in QuotaAccount.objects.all():
        assert_books_agree(either)
