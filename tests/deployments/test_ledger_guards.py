"""Each guard of the quota alone: the ledger's trigger without a client's lock, and that lock without the trigger's.

What holds is tried beside controls that must let a take through, by two connections that meet at the wrong moment and
by many at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest
from django.db import connection
from psycopg import IsolationLevel
from psycopg.conninfo import make_conninfo

from bench.quota import clients, guards, referee, world
from bench.quota.clients import Client, OverLimitError
from bench.quota.guards import Guard
from bench.quota.shape import World
from deployments.models import QuotaAccount
from deployments.services import holds
from deployments.services.transactions import OVER_LIMIT, SERIALIZATION_FAILURE
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db(transaction=True)

READ_COMMITTED, REPEATABLE_READ = IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ
PLACES = 6
THREADS = 8
EACH = 50
# What makes a take at REPEATABLE READ fail whose snapshot is older than a cut.
VERSIONED = "UPDATE deployments_quotaaccount SET grants_version = grants_version + 1"
UNVERSIONED = "PERFORM 1 FROM deployments_quotaaccount"
each_guard = pytest.mark.parametrize("guard", [guards.TRIGGER, guards.LOCK_ALONE], ids=lambda guard: guard.name)
each_level = pytest.mark.parametrize("level", [READ_COMMITTED, REPEATABLE_READ], ids=lambda level: level.name)


@pytest.fixture
def place() -> World:
    """A team with two accounts of four GPUs each, of two grants, the first of which is cut."""
    team = make.make_team()
    author = make.make_user("alice", team=team)
    cut = [make.make_grant(team, flavor, 3) for flavor in (make.make_flavor(), make.make_flavor("l4-24gb"))]
    for grant in cut:
        make.make_grant(team, grant.flavor, 1)
    rows = [make.make_deployment(team, author, name=f"chat-{n}", approved=True) for n in range(PLACES)]
    accounts = QuotaAccount.objects.order_by("pk").values_list("pk", flat=True)
    return World(
        accounts={team.pk: tuple(accounts)},
        grants=tuple(grant.pk for grant in cut),
        deployments={team.pk: tuple(row.pk for row in rows)},
        pending=(),
        admin=author.pk,
        author=author.pk,
    )


@pytest.fixture
def execute() -> Iterator[Callable[[str], None]]:
    """Put other functions in place of the shipped ones, which come back at the end."""
    with connection.cursor() as cursor:
        shipped = [_definition(name) for name in ("slipway_ledger_post", "slipway_grant_changed")]
        yield cursor.execute
        for function in shipped:
            cursor.execute(function)


@pytest.fixture
def log() -> Iterator[None]:
    """The log that the referee reads."""
    world.install_log()
    yield
    world.remove_log()


def _definition(function: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef(%s::regproc)", [function])
        return str(cursor.fetchone()[0])


def url() -> str:
    options = connection.get_connection_params()
    return make_conninfo(**{name: options[name] for name in ("dbname", "user", "password", "host", "port")})


def cut(first: Client) -> None:
    first.connection.execute(clients.CUT, (0, first.world.grants[0]))


def take(client: Client, number: int = 0) -> None:
    """Three of the four GPUs, for one of the deployments."""
    [(account, _)], [rows] = client.world.accounts.values(), client.world.deployments.values()
    client.change(account, rows[number], 3)


def is_over(first: Callable[[Client], None], place: World, guard: Guard, level: IsolationLevel) -> bool:
    """Take while `first` is done and not committed yet; True when more is reserved in the end than may be."""
    one, other = (Client(url(), place, guard, level, seed=number) for number in range(2))
    with one.connection, other.connection, ThreadPoolExecutor(1) as pool:
        first(one)
        taking = pool.submit(take, other, 1)
        until_it_waits(other)
        one.connection.commit()
        try:
            taking.result(timeout=30)
            other.connection.commit()
        except OverLimitError:
            other.connection.rollback()
        except psycopg.DatabaseError as error:
            other.connection.rollback()
            if error.sqlstate not in (OVER_LIMIT, SERIALIZATION_FAILURE):
                raise
    account = QuotaAccount.objects.order_by("pk")[0]
    return account.reserved > holds.limit_of(account)


def until_it_waits(client: Client) -> None:
    """Return once PostgreSQL says that another transaction keeps this one waiting."""
    deadline = time.monotonic() + 30
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("SELECT cardinality(pg_blocking_pids(%s))", [client.connection.info.backend_pid])
            if cursor.fetchone()[0]:
                return
            time.sleep(0.002)
    pytest.fail("the second take did not meet the first transaction")


@each_level
@each_guard
@pytest.mark.parametrize("first", [cut, take])
def test_each_guard_alone_refuses_what_does_not_fit_any_more(place, execute, first, guard, level):
    execute(guard.sql())
    assert not is_over(first, place, guard, level)


@pytest.mark.parametrize(
    ("guard", "first"),
    [(guards.LOOK_ALONE, take), (guards.LOOK_ALONE, cut), (guards.CONDITION_ALONE, cut)],
    ids=["look, take", "look, cut", "condition, cut"],
)
def test_without_a_lock_the_same_take_goes_over(place, execute, guard, first):
    execute(guard.sql())
    assert is_over(first, place, guard, READ_COMMITTED)


@each_guard
def test_at_repeatable_read_both_need_the_version_that_a_cut_leaves_on_its_account(place, execute, guard):
    execute(guard.sql())
    function = _definition("slipway_grant_changed")
    assert VERSIONED in function
    execute(function.replace(VERSIONED, UNVERSIONED))
    assert is_over(cut, place, guard, REPEATABLE_READ)


def fight(place: World, guard: Guard, level: IsolationLevel) -> tuple[Counter[str], referee.Verdict]:
    """Many clients take, scale, move, delete and cut at once; what they did, and what the referee says of it."""
    referee.begin()
    one = partial(clients.churn, url=url(), world=place, guard=guard, isolation=level, transactions=EACH, seed=7)
    with ThreadPoolExecutor(THREADS) as pool:
        counts = sum(pool.map(one, range(THREADS)), Counter[str]())
    return counts, referee.judge()


@each_level
@each_guard
@pytest.mark.usefixtures("log")
def test_each_guard_alone_holds_against_many(place, execute, guard, level):
    execute(guard.sql())
    counts, verdict = fight(place, guard, level)
    assert verdict.clean, verdict
    assert not counts["deadlocks left"]
    # Both outcomes really happened, and grants were cut between them, or the test proves nothing.
    assert min(verdict.takes, verdict.cuts, counts["refused"]) > 5


@pytest.mark.usefixtures("log")
def test_the_referee_sees_what_many_take_without_a_guard(place, execute):
    execute(guards.LOOK_ALONE.sql())
    _, verdict = fight(place, guards.LOOK_ALONE, READ_COMMITTED)
    assert verdict.over > 0
    assert verdict.worst > 0
