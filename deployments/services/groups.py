"""Groups of the identity provider: rules say which of them make members, leads and platform admins.

Applied at each sign-in. What a group made, a later sign-in without it ends, and it lapses (models.groups_since) until
the next one where somebody stays away; what people made by hand is never touched.
Group names are compared exactly, and no groups means no rights by group.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TypeGuard

from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments.models import GroupRule, Membership, Principal, Team, User
from deployments.services import authority, events, left_keys, memberships
from deployments.services.errors import ConflictError, MissingError, NotAllowedError
from deployments.services.principals import anew
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction

logger = logging.getLogger(__name__)

MOST_RULES = 500
MOST_GROUPS = 2000
LONGEST = 200


@in_transaction
def add_rule(*, principal: Principal, group: str, team: Team | None, role: str = Membership.Role.MEMBER) -> GroupRule:
    """Make a rule: people of this group belong to the team in this role, or without a team are platform admins.

    It holds from the next sign-in of each person on. Only an admin whose token is bound to no team makes rules.
    """
    _needs_admin(principal)
    name = line_of(group, field="group", longest=LONGEST)
    memberships.check_role(role)
    if team is not None:
        memberships.locked(Team.objects.all(), team.pk)
        _needs_admin(anew(principal))
    if GroupRule.objects.count() >= MOST_RULES:
        raise ConflictError(f"At most {MOST_RULES} rules: remove one first.", code="too_many")
    try:
        with transaction.atomic():
            rule = GroupRule.objects.create(group=name, team=team, role=role if team else Membership.Role.MEMBER)
    except IntegrityError:
        raise ConflictError(
            "There is a rule for this group already: remove it first.", field="group", pointer="/group"
        ) from None
    events.record(
        kind="group_rule_added",
        message=f"People of the group “{name}” are {_what(rule)} from their next sign-in on",
        team=team,
        actor=principal.user,
        data={"rule": rule.pk, "after": _data(rule)},
    )
    return rule


@in_transaction
def remove_rule(*, principal: Principal, rule_id: int) -> None:
    """Remove a rule. What no other rule can have given ends at once, the rest with each person's next sign-in.

    Which groups somebody is in is known at their sign-in alone.
    """
    _needs_admin(principal)
    seen = GroupRule.objects.filter(pk=rule_id).values_list("team_id").first()
    if seen is None:
        raise MissingError("There is no such rule.")
    # The team before its rule, as archiving does.
    team = memberships.locked(Team.objects.all(), seen[0]) if seen[0] is not None else None
    rule = GroupRule.objects.hold(rule_id, "team")
    _needs_admin(anew(principal))
    if rule is None:
        raise MissingError("There is no such rule.")
    before, words = _data(rule), _what(rule)
    rule.delete()
    events.record(
        kind="group_rule_removed",
        message=f"People of the group “{before['group']}” are no longer {words} by it",
        team=team,
        actor=principal.user,
        data={"rule": rule_id, "before": before},
    )
    if GroupRule.objects.filter(team=team).exists():
        return
    if team is None:
        _end_admins()
        return
    for row in Membership.objects.filter(team=team, by_group=True).select_related("user").order_by("pk"):
        message = f"{row.user.username} left {team.name} with the rule of their group"
        memberships.end(team, row.user, actor=principal.user, message=message)


@in_transaction
def apply(*, user: User, groups: Iterable[str]) -> None:
    """Make this person's rights by group what the rules say of these groups. A disabled account stays untouched."""
    user_now = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    if not user_now.is_active:
        return
    user.single_sign_on_at = user_now.single_sign_on_at = timezone.now()
    user_now.save(update_fields=["single_sign_on_at"])
    rules = list(matching(groups))
    wanted: dict[int, str] = {}
    for rule in rules:
        if rule.team_id is not None and wanted.get(rule.team_id) != Membership.Role.LEAD:
            wanted[rule.team_id] = rule.role
    had = Membership.objects.filter(user=user_now, by_group=True, team__archived_at=None)
    # In order of primary key: two sign-ins that touch the same teams never wait for each other in a circle.
    for team_id in sorted({*wanted, *had.values_list("team_id", flat=True)}):
        _apply_in(user_now, team_id, wanted.get(team_id))
    _apply_admin(user_now, any(rule.makes_admins for rule in rules))
    user.is_platform_admin, user.admin_by_group = user_now.is_platform_admin, user_now.admin_by_group


def matching(groups: Iterable[str]) -> list[GroupRule]:
    """The rules that speak of any of these groups, but those of archived teams. One query."""
    return list(GroupRule.objects.filter(group__in=list(groups)[:MOST_GROUPS], team__archived_at=None))


def groups_in(claims: Mapping[str, object], claim: str) -> list[str]:
    """The groups that these claims tell of: a list of names, one name, or a list of objects with a `name`.

    Everything else names no group: providers leave the claim out where somebody has too many groups (the names are
    then to be asked for elsewhere, as `_claim_names` says), and an object or a number is nothing to compare with.
    """
    value = claims.get(claim)
    if value is None:
        names = claims.get("_claim_names")
        if isinstance(names, Mapping) and claim in names:
            logger.warning("single sign-on: “%s” is too long for the token and was left out: no groups", claim)
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        logger.warning("single sign-on: “%s” is %s and not a list of names: no groups", claim, type(value).__name__)
        return []
    found = [item.get("name") if isinstance(item, Mapping) else item for item in value]
    return list(dict.fromkeys(name for name in found if _is_name(name)))[:MOST_GROUPS]


def _is_name(value: object) -> TypeGuard[str]:
    # Printable: a name with NUL cannot even be asked for.
    return isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable()


def _apply_in(user: User, team_id: int, role: str | None) -> None:
    team = Team.objects.active().hold(team_id)
    if team is None:
        return
    row = Membership.objects.filter(team=team, user=user).first()
    if row is not None and not row.by_group:
        return
    if role is None:
        memberships.end(team, user, actor=None, message=f"{user.username} left {team.name} with their group")
    elif row is None or row.role != role:
        memberships.write(team, user, role=role, actor=None, by_group=True, why="by a group")


def _apply_admin(user: User, wanted: bool) -> None:
    """Admins that people made stay; those that a group made end with it."""
    if wanted == user.is_platform_admin or (not wanted and not user.admin_by_group):
        return
    user.is_platform_admin = user.admin_by_group = wanted
    user.save(update_fields=["is_platform_admin", "admin_by_group"])
    events.record(
        kind="admin_by_group",
        message=f"{user.username} is {'now' if wanted else 'no longer'} a platform admin, by a group",
        level="warning",
        data={"user": user.pk, **events.changed({"admin": not wanted}, {"admin": wanted})},
    )
    if not wanted:
        authority.withdraw(user)
        left_keys.tell_of(user)
    memberships.tell_streams()


def _end_admins() -> None:
    """No rule makes admins any more. ConflictError when nobody would be one then."""
    if not User.objects.filter(is_platform_admin=True, admin_by_group=False, is_active=True).exists():
        raise ConflictError("Nobody would be a platform admin then: make one by hand first (manage.py make_admin).")
    for user in User.objects.select_for_update(no_key=True).filter(admin_by_group=True).order_by("pk"):
        _apply_admin(user, False)


def _needs_admin(principal: Principal) -> None:
    if not (principal.is_admin and principal.may("approve") and principal.may("write")):
        raise NotAllowedError("Only an admin rules which groups belong where.")
    if principal.team_ids is not None:
        raise NotAllowedError("A token that is bound to teams makes no rules.")


def _what(rule: GroupRule) -> str:
    return f"{rule.get_role_display().lower()}s of {rule.team.name}" if rule.team else "platform admins"


def _data(rule: GroupRule) -> dict[str, str | None]:
    return {
        "group": rule.group,
        "team": rule.team.slug if rule.team else None,
        "role": rule.role if rule.team else None,
    }
