"""What pages tell whom, beside who may open them (tests/security): Alice belongs, Bob is a stranger, Carol an admin."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from deployments.models import Deployment, Flavor, Team, User
from tests.deployments import factories as make
from tests.deployments.viewing import add_node, observe, pod, signed_in

OPEN_TO_ALL = ["overview", "overview-heat", "deployment-list", "deployment-create", "catalogue", "approvals", "quotas"]
OPEN_TO_ALL += ["keys", "keys-create"]
OPEN_TO_ALL += ["capacity", "account", "notices", "people"]
FOR_SCRIPTS = ["approvals-waiting", "notices-bell"]
ADMINS_ONLY = ["flavors", "flavor-create", "approvals-policies", "approvals-renderings", "cluster", "people-groups"]
LEADS_AND_ADMINS = ["audit"]


@pytest.fixture
def chat(team: Team, ann: User, h100: Flavor) -> Deployment:
    make.make_profile()
    chat = make.make_deployment(team, ann, approved=True)
    add_node(holders=[{"namespace": team.namespace, "pod": "chat-predictor-1", "gpus": 1, "deployment": chat.pk}])
    observe(chat, pods=(pod(),))
    return chat


@pytest.mark.parametrize("name", OPEN_TO_ALL + FOR_SCRIPTS + ADMINS_ONLY + LEADS_AND_ADMINS)
def test_nobody_is_sent_to_the_sign_in_by_htmx_as_a_whole_page(db: None, name: str) -> None:
    answer = Client().get(reverse(name), headers={"HX-Request": "true"})

    assert answer.status_code == 204
    assert answer["HX-Redirect"].startswith("/accounts/login/")
    assert not answer.content


@pytest.mark.parametrize("name", OPEN_TO_ALL)
def test_pages_open_for_everybody(chat: Deployment, alice: User, bob: User, carol: User, name: str) -> None:
    for person in (alice, bob, carol):
        answer = signed_in(person).get(reverse(name))

        assert answer.status_code == 200
        assert answer["Cache-Control"] == "no-store"


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


def test_unsafe_addresses_need_the_page_they_come_from(chat: Deployment, alice: User) -> None:
    client = signed_in(alice, csrf=True)

    answer = client.post(reverse("deployment-stop", args=[chat.pk]))

    assert answer.status_code == 403
    assert "out of date" in answer.content.decode()
    chat.refresh_from_db()
    assert chat.wanted == "running"
