"""Whoever lets people make accounts does not so become two: a lead whose account an invitation made does not approve
for whoever gave it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from deployments.models import Deployment, Flavor, Invitation, Membership, Reservation, Revision, Team, User
from deployments.services import approvals, impartial, inbox, invitations
from deployments.services.errors import NotAllowedError
from tests.deployments import factories as make
from tests.deployments.test_approvals import ask, decide, policy
from tests.deployments.viewing import flat, signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]


def invited(host: User, team: Team, username: str, role: str = "lead") -> User:
    """An account that was made with an invitation by `host`."""
    row, word = invitations.invite(principal=make.principal(host), team=team, role=role)
    guest = make.make_user(username)
    invitations.accept_by_sign_up(user=guest, digest=invitations.digest_of(word))
    assert Invitation.objects.get(pk=row.pk).accepted_by == guest
    return guest


@pytest.fixture
def wish(hub: list[str], team: Team, h100: Flavor, alice: User) -> Deployment:
    """What Alice, a lead, asks for in a team whose leads approve."""
    policy(team, Team.Policy.LEAD)
    return ask(alice, team)


def may(user: User, row: Deployment) -> tuple[bool, bool]:
    """What they may decide, and that inbox and count say the same."""
    principal = make.principal(user)
    assert row.latest is not None
    standing = approvals.standing_of(principal, Revision.objects.get(pk=row.latest.pk))
    (case,) = inbox.waiting(principal).cases
    assert (case.standing.approve, case.standing.reject) == (standing.approve, standing.reject)
    return standing.approve, standing.reject


def counted(user: User) -> int:
    return inbox.undecided(make.principal(user)).count()


def test_a_lead_whose_account_an_author_invited_does_not_approve(team: Team, alice: User, wish: Deployment) -> None:
    guest = invited(alice, team, "second-alice")

    assert may(guest, wish) == (False, True)
    assert counted(guest) == 0
    with pytest.raises(NotAllowedError, match="invited you to your account"):
        decide(guest, wish)
    assert "another lead or an admin has to approve it" in flat(signed_in(guest).get("/approvals/").content.decode())
    assert not Reservation.objects.exists()


def test_neither_does_a_guest_of_that_guest_nor_one_of_another_team(team: Team, alice: User, wish: Deployment) -> None:
    labs = make.make_team("labs")
    make.join(alice, labs, lead=True)
    elsewhere = invited(alice, labs, "elsewhere")
    make.join(elsewhere, team, lead=True)
    third = invited(invited(alice, team, "second"), team, "third")

    assert impartial.hosts_of(third) == {alice.pk, User.objects.get(username="second").pk}
    assert may(elsewhere, wish) == (False, True)
    assert may(third, wish) == (False, True)


@pytest.mark.parametrize("how", ["by an admin", "by another lead", "was there before", "single sign-on", "by hand"])
def test_whom_somebody_else_vouches_for_approves(
    team: Team, alice: User, carol: User, wish: Deployment, how: str
) -> None:
    if how == "by an admin":
        lead = invited(carol, team, "dave")
    elif how == "by another lead":
        lead = invited(make.make_user("erin", team=team, lead=True), team, "dave")
    elif how == "by hand":
        lead = make.make_user("dave", team=team, lead=True)
    else:
        lead = invited(alice, team, "dave")
        if how == "single sign-on":
            SocialAccount.objects.create(user=lead, provider="oidc", uid="dave")
        else:
            User.objects.filter(pk=lead.pk).update(date_joined=timezone.now() - timedelta(days=9))

    assert may(lead, wish) == (True, True)
    assert counted(lead) == 1
    decide(lead, wish)
    assert Reservation.objects.get(deployment=wish).delta == 1


def test_who_invites_goes_on_deciding_for_their_guests(team: Team, alice: User, hub: list[str], h100: Flavor) -> None:
    policy(team, Team.Policy.LEAD)
    member = invited(alice, team, "dave", Membership.Role.MEMBER)

    row = ask(member, team)

    assert may(alice, row) == (True, True)
    assert counted(alice) == 1
