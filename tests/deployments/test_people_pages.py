"""Pages of teams and their people: leads and admins change them, members read, to strangers there is nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from deployments.models import GroupRule, Invitation, Membership, Team, User
from deployments.services import endpoint_keys, memberships, policies
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

pytestmark = pytest.mark.django_db


def page(client: Client, name: str, *args: Any) -> str:
    answer = client.get(reverse(name, args=args))
    assert answer.status_code == 200, answer.status_code
    return flat(answer.content.decode())


def roles(team: Team) -> dict[str, str]:
    return dict(Membership.objects.filter(team=team).values_list("user__username", "role"))


def member_of(team: Team, user: User) -> int:
    return int(Membership.objects.get(team=team, user=user).pk)


def test_a_member_reads_who_belongs_and_finds_nothing_to_change(team: Team, alice: User, ann: User) -> None:
    html = page(signed_in(ann), "people-team", team.slug)

    assert "alice" in html
    assert "ann" in html
    assert "Leave the team" in html
    for words in ("Take out", "Make the invitation", "Rename", "Archive the team", 'name="role"'):
        assert words not in html


def test_the_navigation_names_it_for_leads_and_admins(alice: User, ann: User, carol: User) -> None:
    link = f'<a href="{reverse("people")}"'
    assert link in page(signed_in(alice), "overview")
    assert link in page(signed_in(carol), "overview")
    assert link not in page(signed_in(ann), "overview")
    assert reverse("people-team", args=["search"]) in page(signed_in(ann), "account")


@pytest.mark.parametrize("who", ["ann", "bob"])
def test_who_may_not_change_people_finds_no_such_address(
    team: Team, alice: User, ann: User, bob: User, who: str
) -> None:
    client = signed_in({"ann": ann, "bob": bob}[who])
    target = member_of(team, alice)
    before = roles(team)
    posts: list[tuple[str, list[Any], dict[str, str]]] = [
        ("people-member-add", [team.slug], {"username": "bob", "role": "lead"}),
        ("people-member-change", [team.slug, target], {"role": "member"}),
        ("people-member-remove", [team.slug, target], {}),
        ("people-invite", [team.slug], {"role": "lead", "days": "7"}),
        ("people-rename", [team.slug], {"name": "Mine"}),
        ("people-archive", [team.slug], {"confirm": team.slug}),
        ("people-groups", [], {"group": "g", "team": "*"}),
        ("people", [], {"slug": "mine", "name": "Mine"}),
    ]
    for name, args, data in posts:
        assert client.post(reverse(name, args=args), data).status_code == 404, name
    assert client.get(reverse("people-groups")).status_code == 404
    assert client.get(reverse("people-team", args=[team.slug])).status_code == (200 if who == "ann" else 404)
    assert roles(team) == before
    team.refresh_from_db()
    assert (team.name, team.archived_at) == ("Search", None)


def test_a_lead_adds_changes_and_takes_out(team: Team, alice: User, bob: User) -> None:
    client = signed_in(alice)

    client.post(reverse("people-member-add", args=[team.slug]), {"username": "bob", "role": "member"})
    assert roles(team)["bob"] == "member"
    client.post(reverse("people-member-change", args=[team.slug, member_of(team, bob)]), {"role": "lead"})
    assert roles(team)["bob"] == "lead"
    box = client.get(reverse("people-member-remove", args=[team.slug, member_of(team, bob)])).content.decode()
    assert "Take bob out of Search?" in flat(box)
    client.post(reverse("people-member-remove", args=[team.slug, member_of(team, bob)]))
    assert roles(team) == {"alice": "lead"}


def test_a_member_of_another_team_is_not_reached_through_ones_own(team: Team, alice: User, bob: User) -> None:
    theirs = Membership.objects.get(user=bob)
    client = signed_in(alice)
    for name in ("people-member-change", "people-member-remove"):
        assert client.post(reverse(name, args=[team.slug, theirs.pk]), {"role": "member"}).status_code == 404
    theirs.refresh_from_db()
    assert theirs.role == "lead"


def test_what_was_typed_stays_and_the_error_stands_at_its_field(team: Team, alice: User) -> None:
    client = signed_in(alice)

    answer = client.post(reverse("people-member-add", args=[team.slug]), {"username": "nobody<b>", "role": "lead"})
    html = flat(answer.content.decode())
    assert answer.status_code == 422
    assert "nobody&lt;b&gt;" in html
    assert "There is no account of this user name" in html

    answer = client.post(
        reverse("people-invite", args=[team.slug]), {"email": "not an address", "role": "lead", "days": "900"}
    )
    html = flat(answer.content.decode())
    assert answer.status_code == 422
    assert "An invitation lives 1 to 30 days." in html
    assert "This is no e-mail address." in html
    assert html.count('aria-invalid="true"') == 2
    assert 'value="not an address"' in html
    assert 'value="900"' in html
    assert not Invitation.objects.exists()


def test_all_that_is_wrong_with_a_team_is_said_at_once(carol: User, db: None) -> None:
    answer = signed_in(carol).post(reverse("people"), {"slug": "Not A Slug", "name": " "})
    html = flat(answer.content.decode())
    assert answer.status_code == 422
    assert set(answer.context["errors"]) == {"slug", "name"}
    assert html.count('aria-invalid="true"') == 2
    assert 'value="Not A Slug"' in html
    assert not Team.objects.exists()


def test_a_teams_page_says_who_approves_and_why_it_matters(team: Team, ann: User, carol: User) -> None:
    html = page(signed_in(ann), "people-team", team.slug)
    assert "An admin approves every request" in html
    assert "Nothing of this team starts before an admin has looked at it" in html
    assert reverse("approvals-policies") not in html

    changes = {"policy": "auto", "ask_above": 4, "at_expiry": "stop"}
    policies.set_policy(principal=make.principal(carol), team=team, **changes)  # type: ignore[arg-type]

    html = page(signed_in(ann), "people-team", team.slug)
    assert "Above 4 GPUs an admin decides" in html
    assert "nobody looks at them first" in html
    assert "the newest deployments beyond what is left are stopped" in html
    assert "Set by carol" in html
    assert f"{reverse('approvals-policies')}#t{team.pk}" in page(signed_in(carol), "people-team", team.slug)


def test_a_teams_page_leads_to_keys_that_were_left(team: Team, alice: User, ann: User) -> None:
    erin = make.make_user("erin", team=team, lead=True)
    endpoint_keys.create(principal=make.principal(erin), team=team, name="ci", every_deployment=True)
    assert "left behind" not in page(signed_in(alice), "people-team", team.slug)
    memberships.leave(principal=make.principal(erin), team=team)
    assert "/keys/?left=1&amp;team=search" in page(signed_in(alice), "people-team", team.slug)
    assert "left behind" not in page(signed_in(ann), "people-team", team.slug)


def test_the_last_lead_is_told_why_they_stay(team: Team, alice: User, ann: User) -> None:
    make.make_deployment(team, ann)
    url = reverse("people-member-remove", args=[team.slug, member_of(team, alice)])

    answer = signed_in(alice).post(url, headers={"HX-Request": "true"})

    assert "last lead" in answer.content.decode()
    assert roles(team)["alice"] == "lead"


def test_leaving_leads_away_from_what_one_sees_no_more(team: Team, ann: User) -> None:
    url = reverse("people-member-remove", args=[team.slug, member_of(team, ann)])
    client = signed_in(ann)

    assert "Leave Search?" in flat(client.get(url).content.decode())
    answer = client.post(url, headers={"HX-Request": "true"})

    assert answer["HX-Redirect"] == reverse("people")
    assert client.get(reverse("people-team", args=[team.slug])).status_code == 404


def test_an_admin_makes_renames_and_archives_a_team(carol: User, db: None) -> None:
    client = signed_in(carol)
    refused = client.post(reverse("people"), {"slug": "No Spaces", "name": "Vision"})
    assert refused.status_code == 422
    assert 'value="No Spaces"' in refused.content.decode()

    client.post(reverse("people"), {"slug": "vision", "name": "Vision"})
    client.post(reverse("people-rename", args=["vision"]), {"name": "Vision and video"})
    made = Team.objects.get(slug="vision")
    assert re.fullmatch(r"vision-[a-z0-9]{5}", made.namespace)
    assert made.name == "Vision and video"

    url = reverse("people-archive", args=["vision"])
    assert "Type vision to archive it." in flat(client.post(url, {"confirm": "Vision"}).content.decode())
    client.post(url, {"confirm": "vision"})
    made.refresh_from_db()
    assert made.archived_at is not None
    assert "vision" not in page(client, "people")
    assert "vision" in flat(client.get(reverse("people"), {"archived": "1"}).content.decode())
    assert "Archived" in page(client, "people-team", "vision")
    for name in ("people-rename", "people-member-add", "people-invite"):
        assert client.post(reverse(name, args=["vision"]), {"name": "x"}).status_code == 404


def test_a_team_with_deployments_is_shown_what_keeps_it(team: Team, ann: User, carol: User) -> None:
    make.make_deployment(team, ann)
    client = signed_in(carol)

    assert "It has 1 deployment." in page(client, "people-archive", team.slug)
    client.post(reverse("people-archive", args=[team.slug]), {"confirm": team.slug})
    team.refresh_from_db()
    assert team.archived_at is None


def test_an_admin_makes_and_removes_rules(team: Team, carol: User) -> None:
    client, url = signed_in(carol), reverse("people-groups")

    client.post(url, {"group": "search-leads", "team": "search", "role": "lead"})
    client.post(url, {"group": "gpu-admins", "team": "*", "role": "member"})
    again = client.post(url, {"group": "gpu-admins", "team": "*", "role": "member", "once": "n" * 32})
    assert again.status_code == 422
    assert "There is a rule for this group already" in again.content.decode()
    assert client.post(url, {"group": "x", "team": "none", "role": "lead"}).status_code == 422

    rules = {str(rule): rule for rule in GroupRule.objects.all()}
    assert set(rules) == {"search-leads → Search", "gpu-admins → platform admins"}
    html = page(client, "people-groups")
    assert "search-leads" in html
    assert "Single sign-on is not set up" in html
    assert "search-leads" in page(client, "people-team", "search")

    ann = make.make_user("ann")
    Membership.objects.create(team=team, user=ann, by_group=True, role="lead")
    removal = reverse("people-group-remove", args=[rules["search-leads → Search"].pk])
    assert "out at once" in flat(client.get(removal).content.decode())
    client.post(removal)
    assert "ann" not in roles(team), "nothing else can have let her in"


def test_lists_ask_the_database_the_same_however_long_they_are(
    team: Team, alice: User, carol: User, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        make.join(make.make_user(f"member{number:02}"), team)
        make.make_team(f"team{number}")
        GroupRule.objects.create(group=f"group{number}", team=team)
    for person, name, args in (
        (carol, "people", []),
        (alice, "people-team", [team.slug]),
        (carol, "people-groups", []),
    ):
        client = signed_in(person)
        client.get(reverse(name, args=args))
        # Session, user and frame are three of them.
        most = {"people": 4, "people-groups": 4, "people-team": 10}[name]
        with django_assert_max_num_queries(most):
            client.get(reverse(name, args=args))
