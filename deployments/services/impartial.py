"""Nobody gets GPUs by their own rule: what whoever asks has arranged for themselves, somebody else decides about."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from allauth.socialaccount.models import SocialAccount
from django.db.models import Exists, F, OuterRef, QuerySet, Subquery
from django.utils import timezone

from deployments.models import (
    Event,
    Flavor,
    Invitation,
    Membership,
    Principal,
    QuotaGrant,
    QuotaRequest,
    Team,
    User,
    admins_now,
)
from deployments.services.asks import LEAD, Ask
from deployments.services.errors import NotAllowedError

# What decides whether policy approves; another field of it says nothing about who arranged that.
RULES = ("policy", "ask_above")
# So long somebody who left a team is no stranger to it.
LATELY = timedelta(days=30)
ADMIN_ASKS = Ask("author_rules", "An admin asks for it: somebody else decides.", LEAD)
SETTER_ASKS = Ask("author_rules", "Who asks for it has set the team's policy: somebody else decides.", LEAD)
GRANTER_ASKS = Ask("author_rules", "Who asks for it has granted the quota: somebody else decides.", LEAD)


def own_rule(authors: Collection[int], team: Team, flavor: Flavor | None) -> Ask | None:
    """Why policy does not approve what these people ask for, though it would for others; None where it may."""
    # Also one whose right has lapsed until they sign in again.
    if User.objects.filter(pk__in=authors, is_platform_admin=True).exists():
        return ADMIN_ASKS
    if not setters_of(team).isdisjoint(authors):
        return SETTER_ASKS
    if flavor is not None and not _granters(team, flavor).isdisjoint(authors):
        return GRANTER_ASKS
    return None


def setters_of(team: Team) -> set[int]:
    """Who last set each part of the team's policy that is in force; nobody where its makers are not known."""
    rows = Event.objects.filter(team=team, kind__in=("team_policy", "team_created"), actor__isnull=False)
    each = (rows.filter(data__after__has_key=name).order_by("-pk").values("actor_id") for name in RULES)
    last = Team.objects.filter(pk=team.pk).values_list(*(Subquery(actors[:1]) for actors in each))
    return {actor for actors in last for actor in actors if actor is not None}


def hosts_of(user: User) -> set[int]:
    """By whose invitations this account came about: who gave it, who gave theirs, and so on.

    Empty for one that an operator made or single sign-on vouches for: those people are somebody. An account that a link
    makes may be its giver's own second one. One query, and one more for each of them.
    """
    found: set[int] = set()
    host = guests_hosts(user.pk).first()
    while host is not None and host not in found:
        found.add(host)
        host = guests_hosts(host).first()
    return found


def guests_hosts(user_id: int) -> QuerySet[Invitation, int]:
    """Who gave the invitation with which this account was made, if one did."""
    vouched = SocialAccount.objects.filter(user=OuterRef("accepted_by"))
    rows = Invitation.objects.filter(
        ~Exists(vouched), accepted_by=user_id, accepted_by__date_joined__gte=F("created_at")
    )
    return rows.order_by("pk").values_list("invited_by_id", flat=True)


def needs_stranger(principal: Principal, team: Team, what: str) -> None:
    """NotAllowedError for an admin who is no stranger to the team: `what`, as a verb, is another admin's there.

    Where there is no other, it is enough to have left.
    """
    bond = _bond(principal.user, team)
    if bond is None:
        return
    words = f"{bond.words}: another admin has to {what}."
    if not User.objects.filter(admins_now()).exclude(pk=principal.user.pk).exists():
        if not bond.is_member:
            return
        words += " There is no other admin: leave the team first, or have one made (manage.py make_admin)."
    raise NotAllowedError(words)


@dataclass(frozen=True)
class _Bond:
    """What ties somebody to a team, as a clause."""

    words: str
    is_member: bool = False


def _bond(user: User, team: Team) -> _Bond | None:
    """Why somebody is no stranger to a team: they belong to it, did a moment ago, or asked for quota of it."""
    if Membership.objects.filter(team=team, user=user).exists():
        return _Bond(f"You belong to {team.name}", is_member=True)
    left = Event.objects.filter(team=team, kind__in=("member_left", "member_removed"), data__user=user.pk)
    if left.filter(created_at__gt=timezone.now() - LATELY).exists():
        return _Bond(f"You belonged to {team.name} within the last {LATELY.days} days")
    if QuotaRequest.objects.pending().filter(team=team, author=user).exists():
        return _Bond(f"You asked for quota of {team.name}, which waits")
    return None


def needs_own_word(principal: Principal, user: User) -> None:
    """NotAllowedError for whoever lets an admin into a team and is none: an admin who belongs to it cannot rule it."""
    if user.pk == principal.user.pk or principal.is_admin:
        return
    if User.objects.filter(admins_now(), pk=user.pk).exists():
        raise NotAllowedError(
            f"{user.username} is an admin, and admins rule no team that they belong to: send them an invitation, which "
            "they take up themselves, or ask an admin."
        )


def _granters(team: Team, flavor: Flavor) -> set[int]:
    """Who made or changed the grants that the team has of this flavor now."""
    live = QuotaGrant.objects.live().filter(team=team, flavor=flavor)
    made = dict(live.values_list("pk", "granted_by_id"))
    changed = Event.objects.filter(team=team, kind="quota_granted", data__grant__in=list(made))
    actors = {*made.values(), *changed.values_list("actor_id", flat=True)}
    return {pk for pk in actors if pk is not None}
