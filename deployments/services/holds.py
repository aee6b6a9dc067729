"""What deployments hold of their team's quota: reading it, and taking more. The database's triggers decide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import connection
from django.db.models import F, Sum

from deployments.models import (
    Deployment,
    Flavor,
    QuotaAccount,
    QuotaGrant,
    QuotaHold,
    Reservation,
    Revision,
    Team,
    User,
)
from deployments.services.errors import QuotaExceededError
from deployments.services.inserting import insert
from deployments.services.transactions import in_transaction

# By hand, for it is read with each approval and Django would take longer to write it than PostgreSQL to answer. `live`
# grants and deployments `awaiting_quota` are what the models' methods of these names say; a test compares them.
# Few deployments of a team want another revision than they run: each is looked at, for a join would be planned longer.
_ROOM = """
SELECT a.reserved,
       (SELECT coalesce(sum(g.gpus), 0) FROM deployments_quotagrant g
         WHERE g.team_id = a.team_id AND g.flavor_id = a.flavor_id AND g.valid_from <= statement_timestamp()
           AND (g.valid_until IS NULL OR g.valid_until > statement_timestamp())),
       (SELECT coalesce(sum(h.gpus), 0) FROM deployments_quotahold h
         WHERE h.account_id = a.id AND h.deployment_id = %(deployment)s),
       EXISTS (SELECT 1 FROM deployments_deployment d
                WHERE d.team_id = a.team_id AND d.id <> %(deployment)s AND d.deleted_at IS NULL
                  AND d.wanted = 'running' AND d.approved_id IS DISTINCT FROM d.latest_id
                  AND (SELECT r.flavor_id = a.flavor_id AND r.verdict = 'approved'
                         FROM deployments_revision r WHERE r.id = d.latest_id))
  FROM deployments_quotaaccount a WHERE a.id = %(account)s
"""
_LOCK = """
SELECT id, team_id, flavor_id FROM deployments_quotaaccount WHERE team_id = %s AND flavor_id = %s FOR NO KEY UPDATE
"""


@dataclass(frozen=True)
class Usage:
    """A team's quota of one flavor, in GPUs. `until` is when the first of its grants ends, `ending` what ends then."""

    flavor: Flavor
    limit: int
    reserved: int
    until: datetime | None = None
    ending: int = 0

    @property
    def free(self) -> int:
        """GPUs that may still be taken; none while a limit was cut below what is held."""
        return max(0, self.limit - self.reserved)

    @property
    def over(self) -> int:
        """GPUs held beyond the limit: it was cut, or a grant has ended."""
        return max(0, self.reserved - self.limit)


@dataclass(frozen=True)
class Room:
    """What an account has for a deployment, in GPUs, while the account is locked. `awaited`: others wait for it too."""

    account: QuotaAccount
    reserved: int
    limit: int
    held: int
    awaited: bool

    @property
    def free(self) -> int:
        """GPUs that may still be taken."""
        return max(0, self.limit - self.reserved)


@in_transaction
def reserve(*, deployment: Deployment, revision: Revision, gpus: int, actor: User | None = None) -> Reservation | None:
    """Raise what the deployment holds of the revision's flavor to `gpus`; None when it holds that much.

    Raises QuotaExceededError when the team's live grants do not cover it.
    """
    # The order is deployment, then account, as in every service: no deadlocks, and nobody else moves this hold.
    Deployment.objects.hold(deployment.pk)
    room = room_for(deployment, revision)
    return take(room, deployment=deployment, revision=revision, gpus=gpus, actor=actor)


def room_for(deployment: Deployment, revision: Revision) -> Room:
    """Lock the account that a revision is paid from, until the transaction ends, and look what it has.

    The caller holds the deployment's lock. Who takes what it finds needs no savepoint to fall back to: nobody else
    takes from the account or cuts its grants meanwhile.
    """
    team, flavor = deployment.team_id, revision.flavor_id
    account = _locked(team, flavor)
    if account is None:
        account_of(team_id=team, flavor_id=flavor)
        account = _locked(team, flavor)
        assert account is not None
    # A statement of its own, after the lock: it sees every grant committed until now.
    with connection.cursor() as cursor:
        cursor.execute(_ROOM, {"deployment": deployment.pk, "account": account.pk})
        reserved, limit, held, awaited = cursor.fetchone()
    return Room(account, reserved, limit, held, awaited)


def take(
    room: Room, *, deployment: Deployment, revision: Revision, gpus: int, actor: User | None
) -> Reservation | None:
    """`reserve` in an open transaction of a caller that holds the deployment's lock and has looked for room."""
    more = gpus - room.held
    if more <= 0:
        return None
    if more > room.free:
        raise QuotaExceededError(
            f"{more} more GPUs of {revision.flavor.name} are needed; "
            f"{deployment.team.name} has {room.free} of {room.limit} free.",
            pointer="/spec/flavor",
        )
    taken = Reservation(
        account=room.account,
        deployment=deployment,
        revision=revision,
        delta=more,
        balance_before=room.held,
        kind=Reservation.Kind.TAKE,
        reason=f"revision {revision.number}",
        actor=actor,
    )
    insert([taken])
    return taken


def usage(team: Team) -> list[Usage]:
    """The team's quota by flavor: what the live grants allow and what is reserved (two queries)."""
    return usage_of([team]).get(team.pk, [])


def usage_of(teams: Iterable[Team]) -> dict[int, list[Usage]]:
    """`usage` of many teams by primary key, in two queries."""
    pks = [team.pk for team in teams]
    grants: dict[tuple[int, int], list[tuple[datetime | None, int]]] = {}
    live = QuotaGrant.objects.live().filter(team__in=pks, gpus__gt=0)
    for team, flavor, until, gpus in live.order_by(F("valid_until").asc(nulls_last=True)).values_list(
        "team_id", "flavor_id", "valid_until", "gpus"
    ):
        grants.setdefault((team, flavor), []).append((until, gpus))
    found: dict[int, list[Usage]] = {pk: [] for pk in pks}
    accounts = QuotaAccount.objects.filter(team__in=pks).select_related("flavor")
    for account in accounts.order_by("-flavor__memory_mib", "flavor__slug"):
        own = grants.get((account.team_id, account.flavor_id), [])
        if own or account.reserved:
            limit, until = sum(gpus for _, gpus in own), own[0][0] if own else None
            ending = sum(gpus for end, gpus in own if end == until) if until else 0
            found[account.team_id].append(Usage(account.flavor, limit, account.reserved, until, ending))
    return found


def limit_of(account: QuotaAccount) -> int:
    """GPUs that the live grants of an account allow together."""
    grants = QuotaGrant.objects.live().filter(team_id=account.team_id, flavor_id=account.flavor_id)
    return grants.aggregate(limit=Sum("gpus"))["limit"] or 0


def usage_in(*, team: Team, flavor: Flavor) -> Usage:
    """The team's quota of one flavor; zeros where nothing was ever granted."""
    for row in usage(team):
        if row.flavor.pk == flavor.pk:
            return row
    return Usage(flavor, 0, 0)


def held_by(deployment: Deployment, flavor: Flavor | None = None) -> int:
    """GPUs that the deployment holds, of one flavor or of all."""
    holds = QuotaHold.objects.filter(deployment=deployment)
    if flavor is not None:
        holds = holds.filter(account__flavor=flavor)
    return holds.aggregate(total=Sum("gpus"))["total"] or 0


def charge(*, old: Revision | None, new: Revision) -> int:
    """GPUs of the new revision's flavor at the worst moment of the change from `old` to it.

    Rolling inside one workload holds the larger of the two and the surge; pods of another flavor are paid beside.
    """
    if old is not None and old.flavor_id == new.flavor_id:
        return max(old.gpus, new.gpus) + max(old.surge, new.surge)
    return new.gpus + new.surge


def account_of(*, team_id: int, flavor_id: int) -> QuotaAccount:
    """The account of a team and flavor, made at first use."""
    accounts = QuotaAccount.objects.filter(team_id=team_id, flavor_id=flavor_id)
    found = accounts.first()
    if found is None:
        QuotaAccount.objects.bulk_create([QuotaAccount(team_id=team_id, flavor_id=flavor_id)], ignore_conflicts=True)
        found = accounts.get()
    return found


def _locked(team_id: int, flavor_id: int) -> QuotaAccount | None:
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, [team_id, flavor_id])
        found = cursor.fetchone()
    return QuotaAccount.from_db(connection.alias, ("id", "team_id", "flavor_id"), found) if found else None
