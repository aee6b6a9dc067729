"""Keys of a team that somebody made who leads it no more: they go on, and whoever can rotate them is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from deployments.models import EndpointKey, Event, Membership, Notification, Team, User
from deployments.services import accounts, endpoint_keys, memberships
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

pytestmark = pytest.mark.django_db

Ends = Callable[[Team, User, User], object]
ENDS: dict[str, Ends] = {
    "leaves": lambda team, erin, carol: memberships.leave(principal=make.principal(erin), team=team),
    "is taken out": lambda team, erin, carol: memberships.remove(principal=make.principal(carol), team=team, user=erin),
    "is made a member": lambda team, erin, carol: memberships.change(
        principal=make.principal(carol), team=team, user=erin, role="member"
    ),
    "is switched off": lambda team, erin, carol: accounts.switch_off(
        principal=make.principal(carol), user=erin, reason="Gone"
    ),
}


@pytest.fixture
def erin(team: Team) -> User:
    """The lead who goes."""
    return make.make_user("erin", team=team, lead=True)


def key_of(maker: User, team: Team, name: str = "ci", **more: Any) -> EndpointKey:
    return endpoint_keys.create(principal=make.principal(maker), team=team, name=name, every_deployment=True, **more)[0]


def left() -> list[str]:
    return sorted(EndpointKey.objects.left_behind().values_list("name", flat=True))


@pytest.mark.parametrize("how", list(ENDS))
def test_leads_and_admins_are_told_of_keys_that_a_lead_leaves(
    team: Team, alice: User, ann: User, carol: User, erin: User, how: str
) -> None:
    key = key_of(erin, team)
    key_of(alice, team, "of alice")
    assert left() == []

    ENDS[how](team, erin, carol)

    assert left() == ["ci"]
    event = Event.objects.get(kind="key_maker_left")
    assert event.data == {"user": erin.pk, "keys": [key.pk]}
    assert f"erin made the key “ci” ({key.prefix}…)" in event.message
    told = {row.user.username: row.link for row in Notification.objects.filter(event=event)}
    assert told == dict.fromkeys(["alice", "carol"], "/keys/?left=1&team=search")
    assert endpoint_keys.authenticate("slk_nobody") is None
    assert EndpointKey.objects.live().filter(pk=key.pk).exists(), "what programs use goes on"


def test_personal_keys_and_those_of_members_tell_nobody(team: Team, alice: User, ann: User, carol: User) -> None:
    key_of(ann, team, "own", personal=True)
    memberships.remove(principal=make.principal(alice), team=team, user=ann)
    key_of(carol, team, "of an admin")
    assert left() == []
    accounts.take_admin(principal=make.principal(make.make_user("dora", admin=True)), user=carol)
    assert left() == ["of an admin"]
    assert Event.objects.filter(kind="key_maker_left").count() == 1


def test_a_role_by_a_group_that_lapsed_leaves_its_keys_behind(team: Team, alice: User, erin: User) -> None:
    User.objects.filter(pk=erin.pk).update(single_sign_on_at=timezone.now())
    erin.refresh_from_db()
    Membership.objects.filter(user=erin).update(by_group=True)
    key_of(erin, team)
    assert left() == []
    User.objects.filter(pk=erin.pk).update(single_sign_on_at=None)
    assert left() == ["ci"]


def test_one_press_rotates_it_and_it_stands_there_no_more(team: Team, alice: User, ann: User, erin: User) -> None:
    key = key_of(erin, team)
    memberships.leave(principal=make.principal(erin), team=team)
    client, address = signed_in(alice), reverse("keys")

    page = flat(client.get(address).content.decode())
    assert "One key of a team was made by people who lead the team no more" in page
    assert "made by erin, who leads the team no more" in page
    assert "Rotate now" in page
    members = flat(signed_in(ann).get(address).content.decode())
    assert "Rotate now" not in members
    assert "One key of a team" not in members

    nonce = page.partition('name="once" value="')[2].partition('"')[0]
    made = client.post(reverse("keys-rotate", args=[key.pk]), {"grace_hours": "24", "once": nonce})

    assert made.status_code == 201
    assert 'id="new-key"' in made.content.decode()
    assert left() == []
    assert "No key was left behind" in client.get(address + "?left=1").content.decode()
    assert "Rotate now" not in client.get(address).content.decode()


def test_only_keys_that_were_left_are_listed_when_asked_for(team: Team, alice: User, erin: User) -> None:
    key_of(alice, team, "of alice")
    key_of(erin, team)
    memberships.leave(principal=make.principal(erin), team=team)

    answer = signed_in(alice).get(reverse("keys"), {"left": "1", "team": "search"})

    assert [row.key.name for row in answer.context["rows"]] == ["ci"]
    assert signed_in(alice).get(reverse("keys"), {"left": "1", "team": "labs"}).context["rows"] == []
