"""The same fight through Slipway's own services, and what an approval costs beside the least that SQL could do."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
from django.db import DatabaseError, connection
from django.db.models.functions import Now
from psycopg import IsolationLevel

from bench.quota.shape import LARGEST_GRANT, World

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


def churn(
    number: int, world: World, connections: int, isolation: IsolationLevel, transactions: int, seed: int
) -> Counter[str]:
    """Grow, give back, delete and cut through the services; every tenth wish cuts a grant."""
    from deployments.models import Deployment, Principal, User, Wanted
    from deployments.services import grants, holds, ledger
    from deployments.services.convergence import Lease, LeaseLostError, database_now
    from deployments.services.errors import DomainError

    isolate(isolation)
    chance = random.Random(seed * 1000 + number)
    principal = Principal(user=User.objects.get(pk=world.admin))
    counts: Counter[str] = Counter()

    def lease(row: Deployment) -> Lease:
        token = uuid4()
        rows = Deployment.objects.filter(pk=row.pk)
        rows.update(lease_token=token, lease_until=Now() + timedelta(seconds=60), wanted=Wanted.STOPPED)
        return Lease(Deployment, row.pk, token)

    def one() -> None:
        act = chance.choices(("take", "release", "cut"), (60, 30, 10))[0]
        if act == "cut":
            grants.change_grant(
                principal=principal, grant_id=chance.choice(world.grants), gpus=chance.randint(0, LARGEST_GRANT)
            )
            return
        team = chance.choice(list(world.deployments))
        row = Deployment.objects.select_related("latest", "team").get(pk=chance.choice(world.deployments[team]))
        assert row.latest is not None
        if act == "take":
            holds.reserve(deployment=row, revision=row.latest, gpus=holds.held_by(row) + chance.randint(1, 3))
        else:
            held = lease(row)
            ledger.release(deployment=row, lease=held, proof=ledger.Proof(database_now()))

    for _ in range(transactions):
        try:
            one()
        except DomainError as error:
            counts[f"refused: {error.code}"] += 1
        except LeaseLostError:
            counts["lease lost to another client"] += 1
        except DatabaseError as error:
            counts[left_as(error)] += 1
        else:
            counts["committed"] += 1
    connection.close()
    return counts
