"""Invitations: shown once, accepted once, and a clear page for each that lets nobody in."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.models import Event, Invitation, Membership, Team, User
from deployments.services import invitations, memberships
from deployments.services.errors import ConflictError, InvalidError, MissingError
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def dora(db: None) -> User:
    """Somebody with an account who belongs nowhere."""
    return make.make_user("dora")


@pytest.fixture
def word(team: Team, alice: User) -> str:
    return invitations.invite(principal=make.principal(alice), team=team)[1]


def url(word: str) -> str:
    return reverse("invitation", args=[word])


def shown(client: Client, word: str) -> tuple[int, str]:
    answer = client.get(url(word))
    return answer.status_code, flat(answer.content.decode())


def test_the_link_is_shown_once_and_stored_nowhere(team: Team, alice: User) -> None:
    client = signed_in(alice)
    made = client.post(reverse("people-invite", args=[team.slug]), {"role": "member", "days": "7"})

    first = made.content.decode()
    link = re.search(r"http://127.0.0.1:8000/join/([A-Za-z0-9_-]{32})/", first)
    assert link is not None
    assert link.group(1) not in client.get(reverse("people-team", args=[team.slug])).content.decode()
    row = Invitation.objects.get()
    assert link.group(1) not in str(vars(row))
    assert link.group(1) not in str(list(Event.objects.values()))
    assert invitations.found(link.group(1)) == row


def test_whoever_has_no_session_signs_in_and_comes_back(team: Team, word: str, dora: User) -> None:
    client = Client()
    status, html = shown(client, word)
    assert status == 200
    assert "Join Search" in html
    link = re.search(r'href="(/accounts/login/\?next=[^"]+)"', html)
    assert link is not None
    dora.set_password("correct horse battery")
    dora.save()

    answer = client.post(
        reverse("account_login"), {"login": "dora", "password": "correct horse battery", "next": url(word)}
    )
    assert answer["Location"] == url(word)
    assert "Join as dora" in shown(client, word)[1]
    client.post(url(word))
    assert Membership.objects.get(user=dora).role == "member"


def test_a_look_at_the_link_changes_nothing_and_its_page_is_kept_nowhere(word: str, dora: User) -> None:
    client = signed_in(dora)
    answer = client.get(url(word))

    assert answer["Cache-Control"] == "no-store"
    assert answer["Referrer-Policy"] == "same-origin", "without a referrer the browser's own POST is refused"
    assert not Membership.objects.filter(user=dora).exists()
    assert Client(enforce_csrf_checks=True).post(url(word)).status_code == 403


def test_it_lets_in_one_person_once(team: Team, word: str, dora: User, bob: User) -> None:
    assert invitations.accept(user=dora, word=word).role == "member"

    client = signed_in(bob)
    status, html = shown(client, word)
    assert (status, "used up" in html) == (410, True)
    assert "Search" not in html
    assert client.post(url(word)).status_code == 409
    assert not Membership.objects.filter(team=team, user=bob).exists()
    assert signed_in(dora).get(url(word))["Location"] == reverse("people-team", args=[team.slug])
    row = Invitation.objects.get()
    assert row.accepted_by == dora
    line = Event.objects.get(kind="member_added")
    assert "invited by alice" in line.message
    assert line.actor == dora


def test_expired_revoked_and_unknown_links_say_so(team: Team, alice: User, word: str, dora: User) -> None:
    client = signed_in(dora)
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    status, html = shown(client, word)
    assert (status, "has expired" in html) == (410, True)
    assert client.post(url(word)).status_code == 409

    Invitation.objects.update(expires_at=timezone.now() + timedelta(days=1))
    signed_in(alice).post(reverse("people-invitation-revoke", args=[Invitation.objects.get().pk]))
    status, html = shown(client, word)
    assert (status, "no longer good" in html) == (410, True)

    for unknown in ("x", "A" * 32, "A" * 101):
        assert shown(client, unknown)[0] == 404
        assert shown(Client(), unknown)[0] == 404
    assert not Membership.objects.filter(user=dora).exists()


def test_who_belongs_already_keeps_it_for_somebody_else_unless_it_makes_them_a_lead(
    team: Team, alice: User, ann: User, word: str
) -> None:
    assert "You belong to Search already" in shown(signed_in(ann), word)[1]
    for person in (ann, alice):
        with pytest.raises(ConflictError) as caught:
            invitations.accept(user=person, word=word)
        assert caught.value.code == "member"
    assert Invitation.objects.open().count() == 1

    _, up = invitations.invite(principal=make.principal(alice), team=team, role="lead")
    assert invitations.accept(user=ann, word=up).role == "lead"


def test_it_ends_with_the_right_of_the_one_who_invited(team: Team, alice: User, carol: User, word: str) -> None:
    _, other = invitations.invite(principal=make.principal(alice), team=team)
    memberships.change(principal=make.principal(carol), team=team, user=alice, role="member")
    memberships.change(principal=make.principal(carol), team=team, user=alice, role="lead")

    # Leading again does not bring back what ended.
    for one in (word, other):
        known = invitations.found(one)
        assert known is not None
        assert invitations.standing(known) is invitations.Standing.REVOKED


def test_strangers_and_members_revoke_nothing(team: Team, ann: User, bob: User, word: str) -> None:
    pk = Invitation.objects.get().pk
    for person in (ann, bob):
        with pytest.raises(MissingError):
            invitations.revoke(principal=make.principal(person), invitation_id=pk)
        signed_in(person).post(reverse("people-invitation-revoke", args=[pk]))
    assert Invitation.objects.open().count() == 1


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("days", {"days": 0}),
        ("days", {"days": 31}),
        ("days", {"days": True}),
        ("role", {"role": "owner"}),
        ("email", {"email": "nobody"}),
        ("email", {"email": "a@b.org\nBcc: everybody@b.org"}),
        ("email", {"email": 7}),
    ],
)
def test_odd_wishes_are_refused_at_their_field(team: Team, alice: User, field: str, wish: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as caught:
        invitations.invite(principal=make.principal(alice), team=team, **wish)
    assert caught.value.field == field


def test_a_team_has_so_many_open_invitations_and_no_more(
    team: Team, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invitations, "MOST_OPEN", 2)
    for _ in range(2):
        invitations.invite(principal=make.principal(alice), team=team)
    with pytest.raises(ConflictError):
        invitations.invite(principal=make.principal(alice), team=team)


def test_an_account_that_is_off_joins_nothing(word: str, dora: User) -> None:
    User.objects.filter(pk=dora.pk).update(is_active=False)
    dora.refresh_from_db()
    with pytest.raises(MissingError):
        invitations.accept(user=dora, word=word)


def addressed(team: Team, carol: User) -> str:
    return invitations.invite(principal=make.principal(carol), team=team, email="Dora@example.org")[1]


@pytest.mark.parametrize("known", ["verified", "given by the operator"])
def test_one_that_was_mailed_is_taken_by_whose_address_it_is(team: Team, carol: User, known: str) -> None:
    word, dora = addressed(team, carol), make.make_user("dora")
    if known == "verified":
        EmailAddress.objects.create(user=dora, email="dora@example.org", verified=True)
    else:
        User.objects.filter(pk=dora.pk).update(email="dora@EXAMPLE.org")
        dora.refresh_from_db()

    assert invitations.accept(user=dora, word=word).user == dora


@pytest.mark.parametrize("said", ["nothing", "another", "unverified", "by an issuer"])
def test_one_that_was_mailed_is_nobody_elses(team: Team, carol: User, said: str) -> None:
    word, bob = addressed(team, carol), make.make_user("bob")
    if said == "another":
        EmailAddress.objects.create(user=bob, email="bob@example.org", verified=True)
    elif said == "unverified":
        EmailAddress.objects.create(user=bob, email="dora@example.org", verified=False)
    elif said == "by an issuer":
        SocialAccount.objects.create(user=bob, provider="oidc", uid="b-1")
        User.objects.filter(pk=bob.pk).update(email="dora@example.org")
        bob.refresh_from_db()

    with pytest.raises(ConflictError) as refused:
        invitations.accept(user=bob, word=word)

    assert refused.value.code == "elsewhere"
    row = invitations.found(word)
    assert row is not None
    assert invitations.standing(row) is invitations.Standing.OPEN
    client = signed_in(bob)
    for answer in (client.get(f"/join/{word}/"), client.post(f"/join/{word}/")):
        assert answer.status_code == 409
        assert "somebody else's" in html.unescape(answer.content.decode())
