"""Who belongs to a team and who leads it. A change holds from the next request on: roles are read anew each time."""

from __future__ import annotations

from django.utils import timezone

from deployments.models import ApiToken, Deployment, EndpointKey, Invitation, Membership, Principal, Team, User
from deployments.models.accounts import TeamQuerySet
from deployments.services import authority, events, impartial, left_keys, telling
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.principals import anew
from deployments.services.transactions import in_transaction

LAST_LEAD = (
    "This is the team's last lead, and the team has deployments. Make somebody else a lead first, or ask an admin."
)


@in_transaction
def add(
    *, principal: Principal, team: Team, user: User, role: str = Membership.Role.MEMBER, by: str = ""
) -> Membership:
    """Let a person into a team, or change the role they have. Leads do this for their own team, admins for all.

    What a group of the identity provider made is hand-made from then on: no sign-in takes it back. `by` says in the
    audit how they came, where nobody chose them by name.
    """
    row = ruled(principal, team)
    check_role(role)
    if _membership(row, user) is None and not by:
        impartial.needs_own_word(principal, user)
    if not User.objects.filter(pk=user.pk, is_active=True).exists():
        raise InvalidError("This account is switched off.", field="username", pointer="/username")
    before = _membership(row, user)
    if before is not None and before.role == role and not before.by_group:
        return before
    if before is not None and before.role == Membership.Role.LEAD and role != Membership.Role.LEAD:
        _keep_a_lead(principal, row, user)
    return write(row, user, role=role, actor=principal.user, why=by)


@in_transaction
def change(*, principal: Principal, team: Team, user: User, role: str) -> Membership:
    """Give somebody who belongs to the team another role."""
    if _membership(ruled(principal, team), user) is None:
        raise MissingError("This person does not belong to the team.")
    return add(principal=principal, team=team, user=user, role=role)


@in_transaction
def remove(*, principal: Principal, team: Team, user: User) -> None:
    """Take a person out of a team: with the next request they are a stranger there."""
    row = ruled(principal, team)
    _remove(principal, row, user, f"{user.username} was taken out of {row.name}")


@in_transaction
def leave(*, principal: Principal, team: Team) -> None:
    """Leave a team oneself. The last lead of a team with deployments stays, or an admin takes them out."""
    if not principal.may("write"):
        raise NotAllowedError("This token may not do that.")
    row = locked(Team.objects.visible_to(principal), team.pk)
    _remove(principal, row, principal.user, f"{principal.user.username} left {row.name}", kind="member_left")


def write(
    team: Team, user: User, *, role: str, actor: User | None, by_group: bool = False, why: str = ""
) -> Membership:
    """Write a membership down, with its audit. The caller holds the team's lock and has checked the right."""
    before = Membership.objects.select_for_update().filter(team=team, user=user).first()
    values = {"role": role, "by_group": by_group}
    member, _ = Membership.objects.update_or_create(team=team, user=user, defaults=values)
    was = {"role": before.role, "by_group": before.by_group} if before else {}
    if before is not None and before.role == Membership.Role.LEAD and role != Membership.Role.LEAD:
        end_words_of(user, team)
    events.record(
        kind="member_changed" if before else "member_added",
        message=f"{user.username} is now {member.get_role_display().lower()} of {team.name}"
        + (f", {why}" if why else ""),
        team=team,
        actor=actor,
        data=events.changed(was, values) | {"user": user.pk},
    )
    if before is not None and before.role == Membership.Role.LEAD and role != Membership.Role.LEAD:
        left_keys.tell_of(user, team)
    tell_streams()
    return member


def end(team: Team, user: User, *, actor: User | None, message: str, kind: str = "member_removed") -> bool:
    """End a membership and what hangs on it; False when there was none. The caller holds the team's lock."""
    row = _membership(team, user)
    if row is None:
        return False
    row.delete()
    end_words_of(user, team)
    events.record(
        kind=kind,
        message=message,
        team=team,
        actor=actor,
        data={
            "user": user.pk,
            "ended": _end_credentials(user, team),
            "before": {"role": row.role, "by_group": row.by_group},
            "after": {"role": None},
        },
    )
    if row.role == Membership.Role.LEAD:
        left_keys.tell_of(user, team)
    tell_streams()
    return True


def end_words_of(user: User, team: Team) -> None:
    """Whoever leads no more has no open words there: their invitations end, and approvals not yet carried out."""
    if _rules(user, team):
        return
    ended = Invitation.objects.open().filter(team=team, invited_by=user).update(revoked_at=timezone.now())
    if ended:
        many = "invitation" if ended == 1 else "invitations"
        events.record(
            kind="invitation_revoked",
            message=f"{ended} open {many} of {user.username} ended: they do not lead {team.name} now",
            team=team,
            data={"user": user.pk, "invitations": ended},
        )
    authority.withdraw(user, team)


def tell_streams() -> None:
    """Open streams are looked at again at once: whoever left hears nothing more."""
    telling.notify([telling.PEOPLE])


def ruled(principal: Principal, team: Team) -> Team:
    """The team, locked, for whoever may change its people: a lead or an admin. To strangers there is none."""
    may_rule(principal, team)
    row = locked(Team.objects.all(), team.pk)
    # Again: who waited for the lock may rule here no more.
    may_rule(anew(principal), row)
    return row


def may_rule(principal: Principal, team: Team) -> None:
    """NotAllowedError for who may not change the team's people, MissingError for who may not even see it."""
    if Team.objects.managed_by(principal).filter(pk=team.pk).exists():
        return
    if Team.objects.visible_to(principal).filter(pk=team.pk).exists():
        raise NotAllowedError("Only a lead of the team or an admin may change who belongs to it.")
    raise MissingError("There is no such team.")


def locked(rows: TeamQuerySet, pk: int) -> Team:
    """One of these teams, locked: changes of a team's people wait for each other, so that one lead always stays."""
    row = rows.hold(pk)
    if row is None:
        raise MissingError("There is no such team.")
    if row.archived_at is not None:
        raise ConflictError("This team is archived: its people stay as they are.", code="archived")
    return row


def check_role(role: object) -> None:
    """InvalidError for a role that there is not."""
    if role not in Membership.Role.values:
        raise InvalidError(f"Choose one of: {', '.join(Membership.Role.values)}.", field="role", pointer="/role")


def _remove(principal: Principal, team: Team, user: User, message: str, *, kind: str = "member_removed") -> None:
    before = _membership(team, user)
    if before is None:
        raise MissingError("This person does not belong to the team.")
    if before.role == Membership.Role.LEAD:
        _keep_a_lead(principal, team, user)
    end(team, user, actor=principal.user, message=message, kind=kind)


def _end_credentials(user: User, team: Team) -> dict[str, int]:
    """End what of theirs opens this team alone: it opens nothing without them, and shall not when they come back."""
    now = timezone.now()
    keys = EndpointKey.objects.filter(team=team, person=user, revoked_at=None)
    bound = ApiToken.objects.filter(user=user, team_ids=[team.pk], revoked_at=None)
    if user.is_platform_admin:
        bound = bound.none()  # Admins reach the team as before.
    return {"keys": keys.update(revoked_at=now), "tokens": bound.update(revoked_at=now)}


def _keep_a_lead(principal: Principal, team: Team, user: User) -> None:
    """ConflictError when a team that has deployments would be without a lead, unless an admin does it."""
    if Team.objects.governed_by(principal, "write").filter(pk=team.pk).exists():
        return
    others = Membership.objects.filter(team=team, role=Membership.Role.LEAD, user__is_active=True).exclude(user=user)
    if not others.exists() and Deployment.objects.alive().filter(team=team).exists():
        raise ConflictError(LAST_LEAD, field="role", pointer="/role", code="last_lead")


def _membership(team: Team, user: User) -> Membership | None:
    return Membership.objects.select_for_update(of=("self",)).filter(team=team, user=user).first()


def _rules(user: User, team: Team) -> bool:
    fresh = User.objects.get(pk=user.pk)
    return Team.objects.managed_by(Principal(user=fresh)).filter(pk=team.pk).exists()
