"""Teams, who belongs to them, and the quota that admins grant them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import datetime

from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments.models import Flavor, Membership, Principal, QuotaAccount, QuotaGrant, Team, User
from deployments.services import events, waiting
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.text import line_of
from deployments.services.transactions import in_transaction
from portal.lib.hints import RECONCILE_TEAM, hint

SLUG = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")
# No vowels: a random word shall not be one.
SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz0123456789"
MOST_GPUS = 10_000


@in_transaction
def create(*, principal: Principal, slug: str, name: str, policy: str = Team.Policy.ASK) -> Team:
    """Make a team with a namespace of its own, whose random suffix nobody has had before."""
    _needs_admin(principal, "make teams")
    if principal.team_ids is not None:
        raise NotAllowedError("A token that is bound to teams makes no new ones.")
    if not isinstance(slug, str) or not SLUG.fullmatch(slug):
        raise InvalidError(
            "Use 1 to 20 lower-case letters, digits and “-”, beginning with a letter.", field="slug", pointer="/slug"
        )
    suffix = "".join(secrets.choice(SUFFIX_LETTERS) for _ in range(5))
    try:
        with transaction.atomic():
            team = Team.objects.create(
                slug=slug,
                name=line_of(name, field="name", longest=80),
                namespace=f"{slug}-{suffix}",
                policy=_policy(policy),
            )
    except IntegrityError:
        raise ConflictError(f"There is a team “{slug}” already.", field="slug", pointer="/slug") from None
    events.record(
        kind="team_created",
        message=f"Team {team.name} made",
        team=team,
        actor=principal.user,
        data={"after": {"slug": slug, "namespace": team.namespace, "policy": team.policy}},
    )
    hint(RECONCILE_TEAM, team.pk)
    return team


@in_transaction
def set_policy(*, principal: Principal, team: Team, policy: str) -> Team:
    """Say who approves the team's requests."""
    _needs_admin(principal, "change who approves")
    row = _governed(principal, team.pk)
    before, row.policy = row.policy, _policy(policy)
    if before != row.policy:
        row.save(update_fields=["policy"])
        events.record(
            kind="team_policy",
            message=f"Approval of {row.name} is now “{row.policy}”",
            team=row,
            actor=principal.user,
            data=events.changed({"policy": before}, {"policy": row.policy}),
        )
    return row


@in_transaction
def add_member(*, principal: Principal, team: Team, user: User, role: str = Membership.Role.MEMBER) -> Membership:
    """Let a person into a team, or change their role. Leads do this for their own team, admins for all."""
    _needs_lead(principal, team)
    if role not in Membership.Role.values:
        raise InvalidError(f"Choose one of: {', '.join(Membership.Role.values)}.", field="role", pointer="/role")
    before = Membership.objects.select_for_update().filter(team=team, user=user).first()
    if before is not None and before.role == role:
        return before
    member, _ = Membership.objects.update_or_create(team=team, user=user, defaults={"role": role})
    events.record(
        kind="member_added" if before is None else "member_changed",
        message=f"{user.username} is now {member.get_role_display().lower()} of {team.name}",
        team=team,
        actor=principal.user,
        data=events.changed({"role": before.role if before else None}, {"role": role}) | {"user": user.pk},
    )
    return member


@in_transaction
def remove_member(*, principal: Principal, team: Team, user: User) -> None:
    """Take a person out of a team: with the next request they are a stranger there."""
    _needs_lead(principal, team)
    deleted, _ = Membership.objects.filter(team=team, user=user).delete()
    if not deleted:
        raise MissingError("This person does not belong to the team.")
    events.record(
        kind="member_removed",
        message=f"{user.username} left {team.name}",
        team=team,
        actor=principal.user,
        data={"user": user.pk},
    )


@in_transaction
def grant(
    *,
    principal: Principal,
    team: Team,
    flavor: Flavor,
    gpus: int,
    until: datetime | None = None,
    comment: str = "",
) -> QuotaGrant:
    """Let a team hold more GPUs of a flavor, until `until` if given; whoever waits for them is served."""
    _needs_admin(principal, "grant quota")
    _check_gpus(gpus, least=1)
    if until is not None and until <= timezone.now():
        raise InvalidError("Must lie in the future.", field="until", pointer="/until")
    # The team before the account that the trigger locks, as `requests.submit` does: no deadlocks.
    _governed(principal, team.pk)
    made = QuotaGrant.objects.create(
        team=team,
        flavor=flavor,
        gpus=gpus,
        valid_until=until,
        granted_by=principal.user,
        comment=line_of(comment, field="comment", longest=500, required=False),
    )
    _granted(principal, made, f"{gpus} × {flavor.name} granted to {team.name}", {"after": {"gpus": gpus}})
    return made


@in_transaction
def change_grant(
    *, principal: Principal, grant_id: int, gpus: int | None = None, until: datetime | None = None
) -> QuotaGrant:
    """Cut, raise or end a grant. What is held stays held: growth alone is refused from then on."""
    _needs_admin(principal, "grant quota")
    row = QuotaGrant.objects.writable_by(principal).select_related("team", "flavor").filter(pk=grant_id).first()
    if row is None:
        raise MissingError("There is no such grant.")
    _governed(principal, row.team_id)
    row.refresh_from_db(fields=["gpus", "valid_until"])
    before = {"gpus": row.gpus, "until": row.valid_until.isoformat() if row.valid_until else None}
    if gpus is not None:
        _check_gpus(gpus, least=0)
        row.gpus = gpus
    if until is not None:
        row.valid_until = until
    row.save(update_fields=["gpus", "valid_until"])
    after = {"gpus": row.gpus, "until": row.valid_until.isoformat() if row.valid_until else None}
    message = f"Grant of {row.flavor.name} to {row.team.name} changed to {row.gpus}"
    _granted(principal, row, message, events.changed(before, after))
    return row


def _granted(principal: Principal, row: QuotaGrant, message: str, data: Mapping[str, object]) -> None:
    events.record(
        kind="quota_granted",
        message=message,
        team=row.team,
        actor=principal.user,
        data={**data, "grant": row.pk, "flavor": row.flavor.slug},
    )
    # The namespace's ResourceQuota follows the grants.
    Team.objects.filter(pk=row.team_id).update(next_reconcile_at=timezone.now())
    hint(RECONCILE_TEAM, row.team_id)
    waiting.wake_later(QuotaAccount.objects.get(team=row.team, flavor=row.flavor).pk)


def _check_gpus(gpus: object, *, least: int) -> None:
    if isinstance(gpus, bool) or not isinstance(gpus, int) or not least <= gpus <= MOST_GPUS:
        raise InvalidError(f"Must be a whole number from {least} to {MOST_GPUS:,}.", field="gpus", pointer="/gpus")


def _policy(policy: str) -> str:
    if policy not in Team.Policy.values:
        raise InvalidError(f"Choose one of: {', '.join(Team.Policy.values)}.", field="policy", pointer="/policy")
    return policy


def _needs_admin(principal: Principal, what: str) -> None:
    if not (principal.is_admin and principal.may("approve")):
        raise NotAllowedError(f"Only an admin may {what}.")


def _governed(principal: Principal, team_id: int) -> Team:
    """The team, locked; to a token that does not reach it there is none."""
    row = Team.objects.governed_by(principal).select_for_update(no_key=True, of=("self",)).filter(pk=team_id).first()
    if row is None:
        raise MissingError("There is no such team.")
    return row


def _needs_lead(principal: Principal, team: Team) -> None:
    if Team.objects.governed_by(principal, "write").filter(pk=team.pk).exists():
        return
    if not principal.may("write") or not Team.objects.led_by(principal).filter(pk=team.pk).exists():
        raise NotAllowedError("Only a lead of the team or an admin may change who belongs to it.")
