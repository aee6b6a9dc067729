"""Whom a notice may reach: people who may see what its event is about, but whoever did it."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection
from django.db.models import Q

from deployments.models import Event, Membership, User, admins_now, groups_since

KNOWN = ("email", "mail_notices")  # what is read of each
# One user. By hand, for each decision is told to who asked for it, and Django takes longer to write it than PostgreSQL
# to answer; a test compares it with what is said of many.
_ONE = """
SELECT u.id, u.email, u.mail_notices FROM deployments_user u
 WHERE u.id = %(user)s AND u.is_active AND (
       %(team)s::bigint IS NULL
    OR u.is_platform_admin AND (NOT u.admin_by_group OR u.single_sign_on_at > %(since)s)
    OR EXISTS (SELECT 1 FROM deployments_membership m WHERE m.user_id = u.id AND m.team_id = %(team)s
                  AND (NOT m.by_group OR u.single_sign_on_at > %(since)s)))
"""


def people_of(event: Event, whom: Q | int) -> Iterable[User]:
    """Who is told: those of a condition on users, or one user by key, who may see what belongs to the event's team."""
    if isinstance(whom, int):
        return _one(event, whom)
    return User.objects.filter(_seeing(event.team_id) & whom & ~Q(pk=event.actor_id or 0)).only(*KNOWN)


def _one(event: Event, pk: int) -> list[User]:
    if pk == event.actor_id:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_ONE, {"user": pk, "team": event.team_id, "since": groups_since()})
        return [User.from_db(connection.alias, ("id", *KNOWN), row) for row in cursor.fetchall()]


def _seeing(team_id: int | None) -> Q:
    if team_id is None:
        return Q(is_active=True)
    members = Membership.objects.in_force().filter(team=team_id)
    return Q(is_active=True) & (admins_now() | Q(pk__in=members.values("user")))
