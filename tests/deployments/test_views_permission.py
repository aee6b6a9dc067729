"""Every page, asked for by everybody: Alice belongs, Bob is a stranger, Carol is an admin, anonymous is nobody."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import get_resolver, reverse

from deployments.models import Deployment, Flavor, Team, User
from tests.deployments import factories as make
from tests.deployments.viewing import add_node, observe, pod, signed_in

OPEN_TO_ALL = ["overview", "overview-heat", "deployment-list", "deployment-create", "catalogue", "approvals", "quotas"]
OPEN_TO_ALL += ["keys", "keys-create"]
OPEN_TO_ALL += ["capacity", "account", "notices", "people"]
FOR_SCRIPTS = ["approvals-waiting", "notices-bell"]
OF_A_TEAM = ["detail", "logs", "revisions", "manifests", "prompt", "stop", "delete"]
MEMBERS_ONLY = ["edit"]
ADMINS_ONLY = ["flavors", "flavor-create", "approvals-policies", "approvals-renderings", "cluster", "people-groups"]
LEADS_AND_ADMINS = ["audit"]
POSTS = ["deployment-preflight", "deployment-edit-preflight", "approvals-decide", "quotas-grant", "account-revoke"]
POSTS += ["quotas-ask", "quotas-withdraw", "quotas-grant-change"]
POSTS += ["notices-read", "notices-read-all", "account-mail", "deployment-start"]
POSTS += ["approvals-policy", "approvals-decide-all", "approvals-decide-quota", "approvals-sign", "approvals-emergency"]
# Held to the same in test_people_pages.py and test_invitations.py.
PEOPLE = ["team", "rename", "archive", "member-add", "member-change", "member-remove", "invite", "invitation-revoke"]
PEOPLE += ["group-remove"]
# Held to the same in test_key_pages.py.
OF_A_KEY = ["keys-rotate", "keys-revoke"]
# Held to the same in test_flavor_pages.py.
OF_A_FLAVOR = ["flavor-edit"]
BY_LINK = ["invitation"]


@pytest.fixture
def chat(team: Team, ann: User, h100: Flavor) -> Deployment:
    make.make_profile()
    chat = make.make_deployment(team, ann, approved=True)
    add_node(holders=[{"namespace": team.namespace, "pod": "chat-predictor-1", "gpus": 1, "deployment": chat.pk}])
    observe(chat, pods=(pod(),))
    return chat


def test_every_page_of_the_domain_stands_in_this_matrix() -> None:
    from deployments import urls

    known = {
        *OPEN_TO_ALL,
        *FOR_SCRIPTS,
        *ADMINS_ONLY,
        *LEADS_AND_ADMINS,
        *POSTS,
        *BY_LINK,
        *OF_A_KEY,
        *OF_A_FLAVOR,
        *(f"people-{name}" for name in PEOPLE),
        *(f"deployment-{name}" for name in OF_A_TEAM + MEMBERS_ONLY),
    }
    assert {pattern.name for pattern in urls.urlpatterns} == known
    assert get_resolver() is not None


@pytest.mark.parametrize("name", OPEN_TO_ALL + FOR_SCRIPTS + ADMINS_ONLY + LEADS_AND_ADMINS)
def test_nobody_is_sent_to_the_sign_in(db: None, name: str) -> None:
    answer = Client().get(reverse(name))

    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/?next=")


@pytest.mark.parametrize("name", OPEN_TO_ALL + FOR_SCRIPTS + ADMINS_ONLY + LEADS_AND_ADMINS)
def test_nobody_is_sent_to_the_sign_in_by_htmx_as_a_whole_page(db: None, name: str) -> None:
    answer = Client().get(reverse(name), headers={"HX-Request": "true"})

    assert answer.status_code == 204
    assert answer["HX-Redirect"].startswith("/accounts/login/")
    assert not answer.content


@pytest.mark.parametrize("name", OF_A_TEAM + MEMBERS_ONLY)
def test_nobody_learns_nothing_of_a_deployment(chat: Deployment, name: str) -> None:
    answer = Client().get(reverse(f"deployment-{name}", args=[chat.pk]))

    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("name", OPEN_TO_ALL)
def test_pages_open_for_everybody(chat: Deployment, alice: User, bob: User, carol: User, name: str) -> None:
    for person in (alice, bob, carol):
        answer = signed_in(person).get(reverse(name))

        assert answer.status_code == 200
        assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", OF_A_TEAM)
def test_a_deployment_is_for_its_team_and_admins(
    chat: Deployment, alice: User, bob: User, carol: User, name: str
) -> None:
    url = reverse(f"deployment-{name}", args=[chat.pk])

    assert signed_in(alice).get(url).status_code == 200
    assert signed_in(carol).get(url).status_code == 200
    assert signed_in(bob).get(url).status_code == 404


def test_only_members_edit(chat: Deployment, alice: User, bob: User, carol: User) -> None:
    url = reverse("deployment-edit", args=[chat.pk])

    assert signed_in(alice).get(url).status_code == 200
    assert signed_in(bob).get(url).status_code == 404
    assert signed_in(carol).get(url).status_code == 404


def test_the_cluster_page_is_for_admins(chat: Deployment, alice: User, carol: User) -> None:
    assert signed_in(carol).get(reverse("cluster")).status_code == 200
    assert signed_in(alice).get(reverse("cluster")).status_code == 404


def test_a_stranger_sees_neither_name_nor_pods(chat: Deployment, bob: User) -> None:
    client = signed_in(bob)

    for name in [*OPEN_TO_ALL, "overview-heat"]:
        text = client.get(reverse(name)).content.decode()
        assert f"/deployments/{chat.pk}/" not in text
        assert "chat-predictor-1" not in text


def test_a_stranger_sees_that_gpus_are_held_but_not_by_whom(chat: Deployment, bob: User) -> None:
    text = signed_in(bob).get(reverse("capacity")).content.decode()

    assert "another team" in text
    assert "search/" not in text
    assert "chat" not in text


def test_a_removed_member_is_a_stranger_at_once(chat: Deployment, alice: User) -> None:
    client = signed_in(alice)
    url = reverse("deployment-detail", args=[chat.pk])
    assert client.get(url).status_code == 200

    alice.memberships.all().delete()

    assert client.get(url).status_code == 404


def test_unsafe_addresses_refuse_get(chat: Deployment, alice: User) -> None:
    client = signed_in(alice)

    for name, args in (
        ("deployment-preflight", []),
        ("approvals-decide", [1]),
        ("quotas-grant", []),
    ):
        assert client.get(reverse(name, args=args)).status_code == 405


def test_unsafe_addresses_need_the_page_they_come_from(chat: Deployment, alice: User) -> None:
    client = signed_in(alice, csrf=True)

    answer = client.post(reverse("deployment-stop", args=[chat.pk]))

    assert answer.status_code == 403
    assert "out of date" in answer.content.decode()
    chat.refresh_from_db()
    assert chat.wanted == "running"
