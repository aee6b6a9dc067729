"""Making an account with an invitation, where settings allow it, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from deployments.models import Event, Membership, User
from deployments.services import events, invitations
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
    assert client.get(link)["Location"] == reverse("people-team", args=["search"])
    assert Membership.objects.get(user__username="dora").role == "lead"


def test_one_link_makes_one_account(word: str, settings: Any) -> None:
    settings.SIGNUP_BY_INVITATION = True
    url, link = reverse("account_signup"), reverse("invitation", args=[word])
    first, second, third = Client(), Client(), Client()
    for client in (first, second):
        client.post(link, {"do": "sign-up"})
    # Both have the form open; the second finds the link used up while it is on its way.
    page = second.get(url)
    assert page.status_code == 200
    first.post(url, NEW)

    late = second.post(url, {**NEW, "username": "mallory"})
    third.post(link, {"do": "sign-up"})
    later = third.post(url, {**NEW, "username": "trudy"})

    for answer in (late, later):
        assert "No account for you yet" in answer.content.decode()
    assert list(User.objects.exclude(username="carol").values_list("username", flat=True)) == ["dora"]


def test_of_two_who_sign_up_at_once_one_gets_an_account(
    word: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SIGNUP_BY_INVITATION = True
    client = Client()
    client.post(reverse("invitation", args=[word]), {"do": "sign-up"})
    monkeypatch.setattr("portal.accounts.AccountAdapter.is_open_for_signup", lambda *_: True)
    other = make.make_user("other")
    invitations.accept(user=other, word=word)

    answer = client.post(reverse("account_signup"), NEW)

    assert answer.status_code == 409
    assert not User.objects.filter(username="dora").exists()
    assert "_auth_user_id" not in client.session


def test_who_was_invited_by_mail_signs_up_with_the_link(settings: Any) -> None:
    settings.SIGNUP_BY_INVITATION = True
    carol = make.make_user("carol", admin=True)
    team = make.make_team("search")
    made = invitations.invite(principal=make.principal(carol), team=team, email="dora@example.org")
    client, link = Client(), reverse("invitation", args=[made[1]])

    client.post(link, {"do": "sign-up"})
    client.post(reverse("account_signup"), NEW)

    assert Membership.objects.get(user__username="dora").role == "member"


def test_a_join_carries_the_id_of_its_request(word: str) -> None:
    client = Client()
    client.force_login(make.make_user("dora"))
    before = events.request_id.get()

    answer = client.post(reverse("invitation", args=[word]))

    event = Event.objects.get(kind="member_added")
    assert event.request_id == answer["X-Request-Id"] not in ("", before)
    assert events.request_id.get() == before, "the next request of this thread would carry it"


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
