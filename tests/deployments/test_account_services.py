"""Accounts switched off and on, sessions ended, administration taken: by admins, and by none to themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from deployments.models import ApiToken, Event, Membership, Principal, Team, User
from deployments.services import accounts, endpoint_keys, invitations, tokens
from deployments.services.errors import ConflictError, InvalidError, NotAllowedError
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

pytestmark = pytest.mark.django_db
Do = Callable[..., User]


def off(*, principal: Principal | None, user: User) -> User:
    return accounts.switch_off(principal=principal, user=user, reason="They left.")


ALL: list[Do] = [off, accounts.switch_on, accounts.end_sessions, accounts.take_admin]


@pytest.fixture
def erin(db: None) -> User:
    """Another admin."""
    return make.make_user("erin", admin=True)


def enters(client: Client, token: str) -> tuple[bool, bool]:
    """Whether the browser and the token let somebody in."""
    by_token = Client(headers={"authorization": f"Bearer {token}"}).get("/api/v1/whoami/")
    return client.get(reverse("account")).status_code == 200, by_token.status_code == 200


@pytest.mark.parametrize("do", [off, accounts.end_sessions])
def test_sessions_tokens_and_keys_end_at_once(team: Team, alice: User, carol: User, do: Do) -> None:
    client, who = signed_in(alice), make.principal(alice)
    token = tokens.create(principal=who, name="t")[1]
    key = endpoint_keys.create(principal=who, team=team, name="k", personal=True, every_deployment=True)[1]
    assert enters(client, token) == (True, True)

    do(principal=make.principal(carol), user=alice)

    assert enters(client, token) == (False, False)
    assert endpoint_keys.authenticate(key) is None
    assert enters(signed_in(alice), token) == (do is accounts.end_sessions, False)
    event = Event.objects.latest("pk")
    assert event.actor == carol
    assert event.data["ended"] == {"tokens": 1, "keys": 1}


def test_switched_on_again_nothing_old_opens(team: Team, alice: User, carol: User) -> None:
    token = tokens.create(principal=make.principal(alice), name="t")[1]
    word = invitations.invite(principal=make.principal(alice), team=team)[1]
    client = signed_in(alice)
    off(principal=make.principal(carol), user=alice)
    row = invitations.found(word)
    assert row is not None
    assert invitations.standing(row) is invitations.Standing.REVOKED

    accounts.switch_on(principal=make.principal(carol), user=alice)

    assert enters(client, token) == (False, False)
    alice.refresh_from_db()
    assert enters(signed_in(alice), token) == (True, False)
    assert Membership.objects.filter(user=alice, role="lead").exists()
    assert list(Event.objects.filter(kind__startswith="account_o").order_by("pk").values_list("kind", flat=True)) == [
        "account_off",
        "account_on",
    ]


def test_administration_is_taken_and_what_hung_on_it_ends(team: Team, carol: User, erin: User) -> None:
    word = invitations.invite(principal=make.principal(erin), team=team)[1]
    browser = signed_in(erin)

    accounts.take_admin(principal=make.principal(carol), user=erin)

    erin.refresh_from_db()
    assert (erin.is_platform_admin, erin.admin_by_group, erin.is_staff, erin.is_active) == (False, False, False, True)
    assert browser.get(reverse("approvals-policies")).status_code == 404
    row = invitations.found(word)
    assert row is not None
    assert row.revoked_at is not None
    event = Event.objects.get(kind="admin_taken")
    assert (event.actor, event.data["before"], event.data["after"]) == (carol, {"admin": True}, {"admin": False})


@pytest.mark.parametrize("do", ALL)
def test_nobody_does_it_to_themselves_and_only_admins_do(carol: User, erin: User, alice: User, do: Do) -> None:
    for who, whom in ((carol, carol), (alice, carol)):
        with pytest.raises(NotAllowedError):
            do(principal=make.principal(who), user=whom)
    for narrow in (make.principal(carol, "read", "write"), Principal(user=carol, team_ids=frozenset({1}))):
        with pytest.raises(NotAllowedError):
            do(principal=narrow, user=erin)

    assert not Event.objects.exists()


@pytest.mark.parametrize("do", [off, accounts.take_admin])
def test_an_admin_who_was_one_a_moment_ago_does_nothing(carol: User, erin: User, do: Do) -> None:
    held = make.principal(User.objects.get(pk=carol.pk))
    accounts.take_admin(principal=make.principal(erin), user=carol)

    with pytest.raises(NotAllowedError):
        do(principal=held, user=erin)


@pytest.mark.parametrize("do", [off, accounts.take_admin])
def test_the_last_admin_stays(carol: User, erin: User, do: Do) -> None:
    User.objects.filter(pk=erin.pk).update(admin_by_group=True)  # Whose single sign-on is long ago.

    with pytest.raises(ConflictError, match="last platform admin"):
        do(principal=None, user=carol)

    User.objects.filter(pk=erin.pk).update(admin_by_group=False)
    do(principal=None, user=carol)


def test_why_is_asked_for(alice: User, carol: User) -> None:
    with pytest.raises(InvalidError):
        accounts.switch_off(principal=make.principal(carol), user=alice, reason=" ")


def test_the_page_does_it_and_says_what_is_wrong(alice: User, carol: User) -> None:
    client, url = signed_in(carol), reverse("people-account", args=[alice.pk])
    assert "alice" in client.get(reverse("people-accounts")).content.decode()

    refused = client.post(url, {"do": "switch-off", "reason": ""})
    assert refused.status_code == 422
    text = flat(refused.content.decode())
    assert 'name="reason" maxlength="300" required value="" aria-invalid="true"' in text
    assert text.count("note t-red") == 1
    assert client.post(url, {"do": "switch-off", "reason": "They left."})["Location"] == url
    alice.refresh_from_db()
    assert not alice.is_active
    assert "Switch on alice" in client.get(url).content.decode()
    client.post(url, {"do": "switch-on"})
    alice.refresh_from_db()
    assert alice.is_active
    assert client.post(url, {"do": "delete"}).status_code == 404
    assert "your own account" in client.get(reverse("people-account", args=[carol.pk])).content.decode()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ALI", ["alice"]),
        ("ahrens", ["alice"]),
        ("alice ahrens", ["alice"]),
        ("example.org", ["alice"]),
        ("alice berg", []),
        (" ", ["alice", "carol"]),
    ],
)
def test_an_account_is_found_by_its_names(alice: User, carol: User, words: str, found: list[str]) -> None:
    User.objects.filter(pk=alice.pk).update(first_name="Alice", last_name="Ahrens", email="a@example.org")

    answer = signed_in(carol).get(reverse("people-accounts"), {"q": words})

    assert [row.username for row in answer.context["page"].rows] == found
    assert ("Nobody is called that" in answer.content.decode()) is (not found)


def test_the_api_does_it(alice: User, carol: User, erin: User) -> None:
    text = tokens.create(principal=make.principal(carol), name="t", scopes=["read", "write", "approve"])[1]
    api = Client(headers={"authorization": f"Bearer {text}"})

    def patch(user: User, **body: Any) -> Any:
        return api.patch(f"/api/v1/accounts/{user.pk}/", body, content_type="application/json")

    assert patch(alice, active=False).status_code == 422
    assert patch(alice, admin=True).status_code == 422
    assert patch(alice, active=False, reason="They left.").json()["active"] is False
    assert patch(alice, active=True).json()["active"] is True
    assert patch(erin, admin=False).json()["admin"] is False
    assert patch(carol, admin=False).status_code == 403
    tokens.create(principal=make.principal(alice), name="t")
    assert api.post(f"/api/v1/accounts/{alice.pk}/end-sessions/").status_code == 200
    assert not ApiToken.objects.live().filter(user=alice).exists()
    assert {row["username"] for row in api.get("/api/v1/accounts/").json()["results"]} == {"alice", "carol", "erin"}


def test_the_operator_does_it_at_the_command_line(alice: User, carol: User) -> None:
    call_command("account", "switch-off", "alice", "--reason", "They left.")

    event = Event.objects.get(kind="account_off")
    assert (event.actor, event.message) == (None, "The account alice is switched off: They left., by the operator")
    with pytest.raises(CommandError, match="no account"):
        call_command("account", "switch-on", "nobody")
    with pytest.raises(CommandError, match="last platform admin"):
        call_command("account", "take-admin", "carol")
