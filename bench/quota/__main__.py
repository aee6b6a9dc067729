"""Try to overshoot a quota with many connections at once, and count; then say what the guards cost.

    make bench-quota                                  # or .venv/bin/python -m bench.quota --transactions 50000

Clients in plain SQL take, scale, move, delete and cut grants at both isolation levels: with the ledger's trigger as it
is shipped, with each guard alone, and with guards that must fail, which shows that the referee sees what it looks for.
Then people ask, scale, approve, stop, start, delete and cut through the services while workers give back, `--services`
times at each level: as often as the shipped guard where not said, which takes an hour and more on two processors.
Then approvals per second through the service beside the fewest SQL statements that leave the same rows. A referee
replays a log that is written under the accounts' locks: a take counts as over when the account stands above the limit
committed before it. Deadlocks and conflicts (40001) are given as seen/left after as many tries as a service makes; of
services only those that were left show. The database is one of its own and is thrown away.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from psycopg import IsolationLevel

from bench.quota.clients import Outcome
from bench.quota.referee import Verdict
from portal.demo.running import running

LEVELS = {"read-committed": IsolationLevel.READ_COMMITTED, "repeatable-read": IsolationLevel.REPEATABLE_READ}
ROW = "{:<28} {:<16} {:>8} {:>8} {:>7} {:>7} {:>6} {:>6} {:>8} {:>8} {:>9} {:>9} {:>7}"
HEAD = (
    "guard",
    "isolation",
    "done",
    "refused",
    "takes",
    "cuts",
    "over",
    "worst",
    "accounts",
    "doubled",
    "deadlocks",
    "conflicts",
    "tx/s",
)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--transactions", type=int, default=50_000, help="of the shipped guard, at each level")
    arguments.add_argument("--services", type=int, help="transactions through the services, at each level")
    arguments.add_argument("--connections", type=int, default=32)
    arguments.add_argument("--approvals", type=int, default=2_000)
    arguments.add_argument("--isolation", choices=LEVELS, help="one level alone")
    arguments.add_argument("--seed", type=int, default=1)
    wanted = arguments.parse_args()
    wanted.levels = [level for name, level in LEVELS.items() if wanted.isolation in (None, name)]
    wanted.services = wanted.transactions if wanted.services is None else wanted.services
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user where this runs as root
        with running(Path(folder) / "data", only=["postgres", "redis"], quick=True) as environment:
            os.environ.update(environment)
            return measure(environment["DATABASE_URL"], wanted)


def measure(url: str, wanted: argparse.Namespace) -> int:
    """Run everything against this database; 1 when a guard that should hold did not."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django

    django.setup()
    from django.core.management import call_command

    from bench.quota import clients, shape, world

    call_command("migrate", verbosity=0)
    world.install_log()
    print(
        f"{wanted.connections} connections from {clients.PROCESSES} processes, {os.cpu_count()} processors, "
        f"{shape.TEAMS} teams, {shape.PLACES} deployments each, seed {wanted.seed}\n"
    )
    print(ROW.format(*HEAD))
    failed = plain(url, wanted)
    failed |= through_services(url, wanted)
    print("\nA guard that should hold did not." if failed else "\nEvery guard that should hold did.")
    return int(failed)


def plain(url: str, wanted: argparse.Namespace) -> bool:
    """Each guard at each isolation level, by clients in SQL."""
    from django.db import connection

    from bench.quota import clients, guards, referee, world

    failed = False
    for guard in guards.EACH:
        for level in wanted.levels:
            made = world.make(waiting=0, seed=wanted.seed)
            with connection.cursor() as cursor:
                cursor.execute(guard.sql())
            referee_starts()
            total = wanted.transactions if guard is guards.TRIGGER else wanted.transactions // 5
            outcome = clients.together(
                clients.churn, wanted.connections, url, made, guard, level, total // wanted.connections, wanted.seed
            )
            verdict = referee.judge()
            show(guard.name + ("" if guard.holds else " (control)"), level, outcome, verdict)
            failed |= guard.holds and not (verdict.clean and not outcome.counts["deadlocks left"])
    with connection.cursor() as cursor:
        cursor.execute(guards.TRIGGER.sql())
    return failed


def through_services(url: str, wanted: argparse.Namespace) -> bool:
    """The fight by the services, then approvals by the service and in the least SQL."""
    from bench.quota import clients, fight, referee, service, spent, world

    failed = False
    rates = {}
    for level in wanted.levels:
        made = world.make(waiting=0, seed=wanted.seed)
        referee_starts()
        share = wanted.services // wanted.connections
        before = spent.by_postgres(url)
        outcome = clients.together(fight.churn, wanted.connections, made, level, share, wanted.seed)
        server = spent.by_postgres(url) - before
        verdict = referee.judge()
        total = Counter[str]()
        for act, count in outcome.counts.items():
            total[act.partition(": ")[2]] += count
        show("through the services", level, replace(outcome, counts=total), verdict)
        show_acts(outcome, server)
        failed |= not verdict.clean or bool(total["deadlocks left"])
    ways: list[tuple[str, IsolationLevel | None]] = [("in SQL", None)]
    ways += [(f"by the service, {level.name}", level) for level in wanted.levels]
    for name, way in ways:
        made = world.make(waiting=wanted.approvals, seed=wanted.seed)
        referee_starts()
        before = spent.by_postgres(url)
        if way is None:
            outcome = clients.together(service.approve_in_sql, wanted.connections, url, made, wanted.connections)
        else:
            outcome = clients.together(service.approve, wanted.connections, made, wanted.connections, way)
        server = spent.by_postgres(url) - before
        verdict = referee.judge()
        failed |= not verdict.clean or bool(outcome.counts["deadlocks left"])
        rates[name] = outcome.a_second
        counted = ", ".join(f"{count} {what}" for what, count in sorted(outcome.counts.items()))
        each = 1000 / wanted.approvals
        print(
            f"\napprovals {name}: {rates[name]:.0f} a second ({counted}; {verdict.takes} took GPUs); processor time of "
            f"each: {outcome.spent * each:.1f} ms of the client, {server * each:.1f} ms of PostgreSQL",
            end="",
            flush=True,
        )
    sql, *services = rates.values()
    print(f"\nthe service reaches {' and '.join(f'{rate / sql:.2f}' for rate in services)} of plain SQL")
    return failed


def referee_starts() -> None:
    """Forget the log but for the limits that hold at the start, and leave the database to the clients."""
    from django.db import connection

    from bench.quota import referee

    referee.begin()
    connection.close()


def show(name: str, level: IsolationLevel, outcome: Outcome, verdict: Verdict) -> None:
    """One line of the table."""
    counts = outcome.counts
    refused = sum(count for what, count in counts.items() if what.startswith("refused"))
    done = counts["committed"]
    deadlocks = f"{counts['deadlocks']}/{counts['deadlocks left']}"
    conflicts = f"{counts['conflicts']}/{counts['conflicts left']}"
    print(
        ROW.format(
            name[:28], level.name.replace("_", " ").lower(), done, refused, verdict.takes, verdict.cuts, verdict.over,
            verdict.worst, len(verdict.accounts_over), verdict.doubled + verdict.books_wrong, deadlocks, conflicts,
            f"{(done + refused) / outcome.took:.0f}",
        ),
        flush=True,
    )  # fmt: skip


def show_acts(outcome: Outcome, server: float) -> None:
    """What became of each act through the services; `server` are PostgreSQL's processor seconds of all of them."""
    acts: dict[str, list[str]] = {}
    for name, count in sorted(outcome.counts.items()):
        act, _, became = name.partition(": ")
        acts.setdefault(act, []).append(f"{count} {became}")
    for act, found in acts.items():
        print(f"    {act:<8} {', '.join(found)}")
    each = 1000 / sum(outcome.counts.values())
    print(
        f"    each in {outcome.spent * each:.1f} ms of the client and {server * each:.1f} ms of PostgreSQL", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
