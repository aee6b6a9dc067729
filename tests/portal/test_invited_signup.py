"""Making an account with an invitation, where settings allow it, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from deployments.models import Membership, User
from deployments.services import invitations
from tests.deployments import factories as make
from tests.deployments.viewing import flat

pytestmark = pytest.mark.django_db

NEW = {"username": "dora", "password1": "correct horse battery", "password2": "correct horse battery"}


@pytest.fixture
def word() -> str:
    carol = make.make_user("carol", admin=True)
    return invitations.invite(principal=make.principal(carol), team=make.make_team("search"), role="lead")[1]


def test_an_invited_person_makes_an_account_and_joins(word: str, settings: Any) -> None:
    settings.SIGNUP_BY_INVITATION = True
    client, link = Client(), reverse("invitation", args=[word])

    assert "Make an account" in client.get(link).content.decode()
    there = client.post(link, {"do": "sign-up"})
    page = flat(client.get(there["Location"]).content.decode())
    assert "You were invited." in page
    weak = client.post(there["Location"], {**NEW, "password1": "dora", "password2": "dora"})
    assert weak.status_code == 200
    assert 'value="dora"' in weak.content.decode()
    assert not User.objects.filter(username="dora").exists()

    made = client.post(there["Location"], NEW)

    assert made["Location"] == link
    client.post(link)
    assert Membership.objects.get(user__username="dora").role == "lead"


def test_without_an_open_invitation_there_is_no_account(word: str, settings: Any) -> None:
    settings.SIGNUP_BY_INVITATION = True
    url = reverse("account_signup")
    assert Client().post(url, NEW).status_code == 200

    client = Client()
    client.post(reverse("invitation", args=[word]), {"do": "sign-up"})
    row = invitations.found(word)
    assert row is not None
    invitations.revoke(principal=make.principal(User.objects.get(username="carol")), invitation_id=row.pk)
    refused = client.post(url, NEW)

    assert "No account for you yet" in refused.content.decode()
    assert not User.objects.filter(username="dora").exists()


def test_where_settings_say_nothing_invitations_make_no_accounts(word: str) -> None:
    client, link = Client(), reverse("invitation", args=[word])

    assert "Make an account" not in client.get(link).content.decode()
    client.post(link, {"do": "sign-up"})
    assert client.get(reverse("account_signup")).status_code == 404
    assert client.post(reverse("account_signup"), NEW).status_code == 404
    assert not User.objects.filter(username="dora").exists()
