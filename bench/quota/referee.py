"""Judges a run by its log alone: each take against the limit committed before it, each hold against the last."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from django.db import connection


@dataclass
class Verdict:
    """What the log proves; everything but `takes` and `cuts` has to be nothing."""

    takes: int = 0
    cuts: int = 0
    over: int = 0
    worst: int = 0  # GPUs above the limit after the worst take
    doubled: int = 0  # moves from a balance that was not there: given back or taken twice
    accounts_over: set[int] = field(default_factory=set)
    books_wrong: int = 0

    @property
    def clean(self) -> bool:
        return not (self.over or self.doubled or self.books_wrong)


def judge() -> Verdict:
    """Replay the log in the order of its commits and compare its end with the tables."""
    verdict = Verdict()
    limits: dict[int, int] = defaultdict(int)
    reserved: dict[int, int] = defaultdict(int)
    holds: dict[int, int] = defaultdict(int)
    with connection.cursor() as cursor:
        cursor.execute("SELECT kind, account, subject, before, after FROM bench_log ORDER BY seq")
        for kind, account, subject, before, after in cursor.fetchall():
            if kind == "grant":
                limits[account] += after - before
                verdict.cuts += after < before
                continue
            balances = reserved if kind == "account" else holds
            verdict.doubled += balances[subject] != before or after < 0
            balances[subject] = after
            if kind == "account" and after > before:
                verdict.takes += 1
                above = after - limits[account]
                if above > 0:
                    verdict.over += 1
                    verdict.worst = max(verdict.worst, above)
                    verdict.accounts_over.add(account)
        cursor.execute(
            """SELECT a.id, a.reserved, coalesce((SELECT sum(h.gpus) FROM deployments_quotahold h
                                                   WHERE h.account_id = a.id), 0),
                      coalesce((SELECT sum(r.delta) FROM deployments_reservation r WHERE r.account_id = a.id), 0)
                 FROM deployments_quotaaccount a"""
        )
        for account, now, held, booked in cursor.fetchall():
            verdict.books_wrong += not (now == held == booked == reserved[account])
    return verdict


def begin() -> None:
    """Empty the log but for the limits that hold now."""
    with connection.cursor() as cursor:
        cursor.execute(
            """TRUNCATE bench_log;
               INSERT INTO bench_log SELECT nextval('bench_seq'), 'grant', a.id, g.id, 0, g.gpus
                 FROM deployments_quotagrant g
                 JOIN deployments_quotaaccount a ON a.team_id = g.team_id AND a.flavor_id = g.flavor_id"""
        )
