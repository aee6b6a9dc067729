"""Who may still hear what: asked for all open streams together, in a fixed number of queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.sessions.models import Session
from django.db.models import Case, When
from django.utils import timezone

from deployments.models import ApiToken, Deployment, User, admins_now, groups_since
from portal import sessions as age
from portal.live.callers import Caller


@dataclass(frozen=True)
class Reach:
    """The teams whose deployments somebody may see: `every` for an admin."""

    every: bool = False
    teams: frozenset[int] = frozenset()

    def covers(self, team_id: int) -> bool:
        """True for a team that is in it."""
        return self.every or team_id in self.teams


NOTHING = Reach()


def reaches(user_ids: Iterable[int]) -> dict[int, Reach]:
    """What each of these users may see now, as `visible_to` says; users who may see nothing are left out. One query."""
    rows = (
        User.objects.filter(pk__in=set(user_ids), is_active=True)
        .annotate(rules_now=Case(When(admins_now(), then=True), default=False))
        .values_list("pk", "rules_now", "single_sign_on_at", "memberships__team_id", "memberships__by_group")
    )
    since = groups_since()
    rules: set[int] = set()
    belongs: dict[int, set[int]] = defaultdict(set)
    for user_id, is_admin, signed_on, team_id, by_group in rows:
        if is_admin:
            rules.add(user_id)
        if team_id is not None and (not by_group or (signed_on is not None and signed_on > since)):
            belongs[user_id].add(team_id)
    return {pk: Reach(pk in rules, frozenset(belongs.get(pk, ()))) for pk in rules | belongs.keys()}


def hearers(deployment_ids: Iterable[int], user_ids: Iterable[int]) -> dict[int, set[int]]:
    """For each user, which of these deployments they may see: what `visible_to` says, for many at once.

    Two queries, whatever the number of users and deployments.
    """
    ids, people = set(deployment_ids), set(user_ids)
    if not ids or not people:
        return {}
    teams = dict(Deployment.objects.filter(pk__in=ids).values_list("pk", "team_id"))
    return {
        user_id: {pk for pk, team_id in teams.items() if reach.covers(team_id)}
        for user_id, reach in reaches(people).items()
    }


def ended(callers: Iterable[Caller]) -> set[Caller]:
    """Callers whose session, token or account has ended since they came. Three queries at most."""
    known = list(callers)
    keys = {caller.session_key for caller in known if caller.session_key}
    tokens = {caller.token_id for caller in known if caller.token_id is not None}
    people = {caller.user_id for caller in known}
    now = timezone.now()
    sessions = (
        {row.session_key: row for row in Session.objects.filter(session_key__in=keys, expire_date__gt=now)}
        if keys
        else {}
    )
    live_tokens = set(ApiToken.objects.live().filter(pk__in=tokens).values_list("pk", flat=True)) if tokens else set()
    users = {user.pk: user for user in User.objects.filter(pk__in=people, is_active=True)}
    return {caller for caller in known if not _good(caller, users, sessions, live_tokens)}


def lost(claims: Iterable[tuple[Caller, int]]) -> set[tuple[Caller, int]]:
    """Of callers with the deployment that each looks at, those who may not see it any more. Two queries at most."""
    known = set(claims)
    heard = hearers({pk for _, pk in known}, {caller.user_id for caller, _ in known})
    return {(caller, pk) for caller, pk in known if pk not in heard.get(caller.user_id, set())}


def _good(caller: Caller, users: dict[int, User], sessions: dict[str, Session], live_tokens: set[int]) -> bool:
    user = users.get(caller.user_id)
    if user is None:
        return False
    if caller.token_id is not None:
        return caller.token_id in live_tokens
    session = sessions.get(caller.session_key)
    if session is None:
        return False
    data = session.get_decoded()
    same_user = data.get("_auth_user_id") == str(user.pk)
    if age.is_over(data, user):
        return False
    # A changed password ends every session that was opened with the old one.
    return same_user and data.get("_auth_user_hash") == user.get_session_auth_hash()
