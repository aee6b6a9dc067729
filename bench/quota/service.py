"""What an approval costs through the service, and beside it the least that SQL could do."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
from django.db import DatabaseError, connection
from psycopg import IsolationLevel

from bench.quota.shape import World

LEFT = {"40001": "conflicts left", "40P01": "deadlocks left"}
# The fewest statements after which the same rows are approved, reserved and wanted.
BARE = (
    """INSERT INTO deployments_approval (revision_id, digest, kind, actor_id, approved, comment, created_at)
       SELECT id, digest, 'admin', %(admin)s, true, '', now() FROM deployments_revision WHERE id = %(revision)s""",
    "UPDATE deployments_revision SET verdict = 'approved' WHERE id = %(revision)s",
    """INSERT INTO deployments_reservation
           (account_id, deployment_id, revision_id, delta, balance_before, kind, reason, actor_id, created_at)
       SELECT a.id, d.id, r.id, r.gpus, 0, 'take', '', %(admin)s, now()
         FROM deployments_revision r JOIN deployments_deployment d ON d.id = r.deployment_id
         JOIN deployments_quotaaccount a ON a.team_id = d.team_id AND a.flavor_id = r.flavor_id
        WHERE r.id = %(revision)s""",
    """UPDATE deployments_deployment SET approved_id = %(revision)s
        WHERE id = (SELECT deployment_id FROM deployments_revision WHERE id = %(revision)s)""",
)


def isolate(isolation: IsolationLevel) -> None:
    """Let the connection that this thread opens next work at that level."""
    options: dict[str, Any] = connection.settings_dict.setdefault("OPTIONS", {})
    options["isolation_level"] = isolation
    options["pool"] = False  # 32 clients stand for 32 programs


def left_as(error: DatabaseError) -> str:
    """What the service gave up on after its tries; any other error of the database is a fault of the run."""
    state = getattr(error.__cause__, "sqlstate", None)
    if state not in LEFT:
        raise error
    return LEFT[state]


def approve_in_sql(number: int, url: str, world: World, connections: int) -> Counter[str]:
    """Approve this client's share of what waits with the fewest statements that leave the same rows."""
    counts: Counter[str] = Counter()
    with psycopg.connect(url) as own:
        for revision in world.pending[number::connections]:
            try:
                for statement in BARE:
                    own.execute(statement, {"revision": revision, "admin": world.admin})
                own.commit()
            except psycopg.DatabaseError as error:
                own.rollback()
                if error.sqlstate != "SQ001":
                    raise
                counts["refused"] += 1
            else:
                counts["approved"] += 1
    return counts


def approve(number: int, world: World, connections: int, isolation: IsolationLevel) -> Counter[str]:
    """Approve this client's share of what waits as an admin's click does."""
    from deployments.models import Principal, Revision, User
    from deployments.services import approvals

    isolate(isolation)
    counts: Counter[str] = Counter()
    principal = Principal(user=User.objects.get(pk=world.admin))
    for pk in world.pending[number::connections]:
        revision = Revision.objects.only("deployment", "digest").get(pk=pk)
        try:
            approvals.decide(principal=principal, revision=revision, digest=revision.digest, approve=True)
        except DatabaseError as error:
            counts[left_as(error)] += 1
        else:
            counts["approved"] += 1
    connection.close()
    return counts
