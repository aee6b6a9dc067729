"""Clients in plain SQL: as quick as the database lets anybody be, and as careless as an application may become."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

import django
import psycopg
from django.urls import reverse
from psycopg import IsolationLevel

from bench.quota.guards import Guard
from bench.quota.shape import LARGEST_GRANT, World

PROCESSES = 4
SERVICES = "bench.quota.fight", "bench.quota.service"
TRIES = 8
AGAIN = ("40001", "40P01")
REFUSED = ("SQ001", "SQ002")

HELD = """SELECT coalesce((SELECT gpus FROM deployments_quotahold WHERE account_id = %s AND deployment_id = %s), 0)"""
MOVE = """INSERT INTO deployments_reservation
    (account_id, deployment_id, delta, balance_before, kind, reason, created_at)
    VALUES (%s, %s, %s, %s, %s, '', now())"""
FREE = """SELECT (SELECT coalesce(sum(g.gpus), 0) FROM deployments_quotagrant g
                   WHERE g.team_id = a.team_id AND g.flavor_id = a.flavor_id) - a.reserved
            FROM deployments_quotaaccount a WHERE a.id = %s"""
LOCK = "SELECT 1 FROM deployments_quotaaccount WHERE id = %s FOR NO KEY UPDATE"
CUT = "UPDATE deployments_quotagrant SET gpus = %s WHERE id = %s"


class OverLimitError(Exception):
    """The client itself saw that the GPUs do not suffice."""


class Client:
    """One connection: asks for, grows, moves and deletes deployments of any team, and cuts grants."""

    def __init__(self, url: str, world: World, guard: Guard, isolation: IsolationLevel, seed: int) -> None:
        self.world, self.guard, self.random = world, guard, random.Random(seed)
        self.connection = psycopg.connect(url)
        self.connection.isolation_level = isolation
        self.counts: Counter[str] = Counter()

    def run(self, transactions: int) -> Counter[str]:
        with self.connection:
            for _ in range(transactions):
                self.one()
        return self.counts

    def one(self) -> None:
        """One transaction, tried again where PostgreSQL says so; what is left after TRIES is the user's."""
        act = self.random.choices((self.take, self.scale, self.move, self.delete, self.cut), (40, 20, 10, 20, 10))[0]
        for attempt in range(1, TRIES + 1):
            try:
                act()
                self.connection.commit()
            except (OverLimitError, psycopg.DatabaseError) as error:
                self.connection.rollback()
                state = getattr(error, "sqlstate", None)
                if state in AGAIN:
                    self.counts["deadlocks" if state == "40P01" else "conflicts"] += 1
                    if state == "40P01" and attempt == TRIES:
                        self.counts["deadlocks left"] += 1
                        return
                    time.sleep(self.random.uniform(0.0005, 0.002) * 2**attempt)
                    continue
                if state not in REFUSED and not isinstance(error, OverLimitError):
                    raise
                self.counts["refused"] += 1
            else:
                self.counts["committed"] += 1
            return
        self.counts["conflicts left"] += 1

    def take(self) -> None:
        account, _, deployment = self.place()
        self.change(account, deployment, self.random.randint(1, 4))

    def scale(self) -> None:
        account, _, deployment = self.place()
        self.change(account, deployment, self.random.choice((-2, -1, 1, 2)))

    def move(self) -> None:
        """To another flavor: beside what it holds, then away from it; accounts in the order of their keys."""
        first, second, deployment = self.place()
        delta = self.random.randint(1, 3)
        self.change(first, deployment, delta)
        self.change(second, deployment, -delta)

    def delete(self) -> None:
        account, _, deployment = self.place()
        self.change(account, deployment, -1000)

    def cut(self) -> None:
        grant = self.random.choice(self.world.grants)
        self.connection.execute(CUT, (self.random.randint(0, LARGEST_GRANT), grant))

    def place(self) -> tuple[int, int, int]:
        """Both accounts of a team, and one of its deployments, which others may be at as well."""
        team = self.random.choice(list(self.world.accounts))
        first, second = self.world.accounts[team]
        return first, second, self.random.choice(self.world.deployments[team])

    def change(self, account: int, deployment: int, delta: int) -> None:
        """Move what is held by `delta`, not below zero."""
        if self.guard.lock_in_client:
            self.connection.execute(LOCK, (account,))
        held = self.number(HELD, (account, deployment))
        delta = max(delta, -held)
        if not delta:
            return
        if delta > 0 and self.guard.look_in_client and self.number(FREE, (account,)) < delta:
            raise OverLimitError
        kind = "take" if delta > 0 else "release"
        self.connection.execute(MOVE, (account, deployment, delta, held, kind))

    def number(self, query: str, values: tuple[int, ...]) -> int:
        row = self.connection.execute(query, values).fetchone()
        assert row is not None
        return int(row[0])


@dataclass(frozen=True)
class Outcome:
    """What clients did together, and in how many seconds: by the clock, and by the processor in all of them."""

    counts: Counter[str]
    took: float
    spent: float

    @property
    def a_second(self) -> float:
        """How many transactions, whatever became of them."""
        return sum(self.counts.values()) / self.took


def together(work: Callable[..., Counter[str]], connections: int, *values: Any) -> Outcome:
    """Run `work(number, *values)` for each connection at once, in PROCESSES processes."""
    share = [range(connections)[start::PROCESSES] for start in range(PROCESSES)]
    context = get_context("spawn")
    # Starting Python is not what is measured: the clock runs once every process has imported what it will call.
    ready = context.Barrier(PROCESSES + 1)
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=prepare, initargs=[ready]) as pool:
        for _ in range(PROCESSES):  # a pool starts a process with each task that none of them has taken
            pool.submit(int)
        ready.wait()
        begun = time.monotonic()
        found = list(pool.map(threads, [work] * PROCESSES, share, [values] * PROCESSES))
        took = time.monotonic() - begun
    return Outcome(sum((counts for counts, _ in found), Counter()), took, sum(spent for _, spent in found))


def prepare(ready: Barrier) -> None:
    """Import everything that a client calls, and wait for the other processes."""
    django.setup()
    for module in SERVICES:
        import_module(module)
    reverse("approvals")  # reads every page's address, as the first request to a web process does
    ready.wait()


def threads(work: Callable[..., Counter[str]], numbers: range, values: tuple[Any, ...]) -> tuple[Counter[str], float]:
    """One thread for each number, and the processor seconds of all; an error of one is an error of the run."""
    before = time.process_time()
    with ThreadPoolExecutor(len(numbers)) as pool:
        counts = sum(pool.map(lambda number: work(number, *values), numbers), Counter[str]())
    return counts, time.process_time() - before


def churn(
    number: int, url: str, world: World, guard: Guard, isolation: IsolationLevel, transactions: int, seed: int
) -> Counter[str]:
    """What one client of `together` does."""
    return Client(url, world, guard, isolation, seed * 1000 + number).run(transactions)
