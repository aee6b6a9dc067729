"""Two people at the same moment: one lead always stays, and a link lets one person in."""

from __future__ import annotations

from functools import partial

import pytest

from deployments.models import Membership, Team, User
from deployments.services import invitations, memberships
from tests.deployments import factories as make
from tests.deployments.test_service_races import kinds, together

pytestmark = pytest.mark.django_db(transaction=True)


def test_two_leads_who_leave_at_once_do_not_leave_a_team_alone(team: Team, alice: User) -> None:
    make.make_flavor()
    other = make.make_user("other", team=team, lead=True)
    make.make_deployment(team, alice)

    said = together([partial(memberships.leave, principal=make.principal(who), team=team) for who in (alice, other)])

    assert kinds(said) == ["ConflictError", "NoneType"]
    assert Membership.objects.filter(team=team, role="lead").count() == 1


def test_one_link_lets_one_of_six_in(team: Team, alice: User) -> None:
    _, word = invitations.invite(principal=make.principal(alice), team=team)
    people = [make.make_user() for _ in range(6)]

    said = together([partial(invitations.accept, user=person, word=word) for person in people])

    assert kinds(said) == ["ConflictError"] * 5 + ["Membership"]
    assert Membership.objects.filter(team=team, user__in=people).count() == 1
