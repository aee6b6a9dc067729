"""Endpoint keys: narrow, ending, stored as a hash, and made by those whose they are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from deployments.models import EndpointKey, Event, Membership
from deployments.services import endpoint_keys as keys
from deployments.services import invoke
from deployments.services.endpoint_keys import Limits
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from deployments.services.invoke import Admission, KeyTerms, Refusal
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def gateway_reports(settings):
    """The gateway of this installation says how many tokens answers took."""
    settings.GATEWAY_TOKEN = "of-the-gateway"


@pytest.fixture
def chat(team, ann):
    return make.make_deployment(team, ann, approved=True)


def new(user, team, **fields):
    wish = {"name": make.a_name(), "every_deployment": not fields.get("deployments"), **fields}
    return keys.create(principal=make.principal(user), team=team, **wish)


def ask(text, deployment, *, name=None) -> Admission | Refusal:
    return invoke.admit(f"Bearer {text}", deployment.team.namespace, name or deployment.name)


def test_a_key_opens_what_it_was_made_for_and_its_text_is_not_stored(chat, alice, team):
    other = make.make_deployment(team, alice, name="code")
    key, text = new(alice, team, deployments=[chat])

    assert text.startswith("slk_")
    assert len(text) > 40
    assert ask(text, chat) == Admission(
        f"key:{text[:12]}", chat.pk, key=KeyTerms(key.pk), remembered=4.0, without_answer=0.0
    )
    assert (ask(text, other).status, ask(text, chat, name="nothing")) == (403, ask(text, other))
    stored = " ".join(str(value) for value in EndpointKey.objects.values_list().get())
    assert text.removeprefix("slk_") not in stored
    assert text not in str(list(Event.objects.values()))


def test_a_key_for_all_deployments_opens_those_to_come_but_no_other_teams(alice, team, bob):
    _, text = new(alice, team)
    later = make.make_deployment(team, alice, name="later")
    foreign = make.make_deployment(bob.memberships.get().team, bob, name="later")

    assert ask(text, later).status == 200
    assert ask(text, foreign).status == 403
    later.deleted_at = timezone.now()
    later.save()
    assert ask(text, later).status == 403


@pytest.mark.parametrize("text", ["slk_", "slk_wrong", "slk_" + "x" * 1000, "slk_é", "slk_\x00"])
def test_anything_else_is_no_key(chat, alice, team, text):
    new(alice, team)

    answer = ask(text, chat)

    assert (answer.status, answer.code) == (401, "invalid_api_key")


def test_revoked_and_expired_keys_are_refused_at_once(chat, alice, team):
    revoked, first = new(alice, team)
    expired, second = new(alice, team)
    keys.revoke(principal=make.principal(alice), key_id=revoked.pk)
    EndpointKey.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))

    assert [ask(text, chat).status for text in (first, second)] == [401, 401]
    lines = Event.objects.filter(kind="key_revoked")
    assert [line.data["after"] for line in lines] == [{"revoked": True}]
    keys.revoke(principal=make.principal(alice), key_id=revoked.pk)
    assert lines.count() == 1


def test_an_answer_is_remembered_no_longer_than_the_key_lives(chat, alice, team):
    key, text = new(alice, team)
    EndpointKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() + timedelta(seconds=2))

    assert 0 < ask(text, chat).remembered <= 2


def test_a_key_with_limits_is_asked_for_each_time(chat, alice, team):
    key, text = new(alice, team, limits=Limits(requests_per_minute=3, tokens_per_minute=900))

    answer = ask(text, chat)

    assert (answer.key, answer.remembered) == (KeyTerms(key.pk, 3, 900), 0.0)


def test_a_persons_key_ends_with_the_membership(chat, ann, team):
    _, text = new(ann, team, personal=True)
    assert ask(text, chat).status == 200
    Membership.objects.filter(user=ann).delete()
    assert ask(text, chat).status == 401
    make.join(ann, team)
    ann.is_active = False
    ann.save()
    assert ask(text, chat).status == 401


def test_members_make_keys_of_their_own_leads_and_admins_those_of_the_team(chat, ann, alice, carol, bob, team):
    assert new(ann, team, personal=True)[0].person == ann
    with pytest.raises(NotAllowedError):
        new(ann, team)
    assert new(alice, team)[0].person is None
    assert new(carol, team)[0].person is None
    with pytest.raises(NotAllowedError):
        new(carol, team, personal=True)  # she belongs to no team
    for personal in (True, False):
        with pytest.raises(MissingError):
            new(bob, team, personal=personal)


def test_a_token_makes_keys_only_within_its_own_reach(chat, alice, team):
    other = make.make_team("other")
    make.join(alice, other, lead=True)

    def by(*scopes, teams=None, expires_at=None):
        principal = make.Principal(
            user=alice, scopes=frozenset(scopes), team_ids=teams and frozenset(teams), expires_at=expires_at
        )
        return keys.create(principal=principal, team=team, name=make.a_name(), every_deployment=True)[0]

    for scopes in (("read",), ("read", "write"), ("read", "invoke")):
        with pytest.raises(NotAllowedError):
            by(*scopes)
    with pytest.raises(MissingError):
        by("read", "write", "invoke", teams=[other.pk])
    soon = timezone.now() + timedelta(days=1)
    assert by("write", "invoke", teams=[team.pk], expires_at=soon).expires_at == soon


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"days": 0}, "days"),
        ({"days": 366}, "days"),
        ({"days": True}, "days"),
        ({"limits": Limits(requests_per_minute=0)}, "requests_per_minute"),
        ({"limits": Limits(tokens_per_minute=10**10)}, "tokens_per_minute"),
        ({"every_deployment": False}, "deployments"),
    ],
)
def test_odd_wishes_are_refused_at_their_field(alice, team, fields, field):
    with pytest.raises(InvalidError) as refused:
        new(alice, team, **fields)

    assert refused.value.field == field


def test_where_nothing_counts_tokens_there_is_no_limit_of_them(alice, team, settings):
    settings.GATEWAY_TOKEN = ""
    with pytest.raises(InvalidError) as refused:
        new(alice, team, limits=Limits(tokens_per_minute=5))

    assert (refused.value.field, refused.value.code) == ("tokens_per_minute", "not_counted")
    assert new(alice, team, limits=Limits(requests_per_minute=5))[0].requests_per_minute == 5


def test_a_key_names_no_deployment_of_another_team(alice, team, bob):
    foreign = make.make_deployment(bob.memberships.get().team, bob)

    with pytest.raises(InvalidError) as refused:
        new(alice, team, deployments=[foreign])

    assert refused.value.field == "deployments"


def test_a_rotated_key_goes_on_for_the_grace_chosen(chat, alice, team):
    old, first = new(alice, team, deployments=[chat], limits=Limits(5, None), days=30)

    successor, second = keys.rotate(principal=make.principal(alice), key_id=old.pk, grace_hours=2)

    assert (successor.rotated_from, successor.requests_per_minute) == (old, 5)
    assert list(successor.deployments.all()) == [chat]
    assert abs(successor.expires_at - old.expires_at) < timedelta(minutes=1)
    old.refresh_from_db()
    assert timedelta(hours=1.9) < old.expires_at - timezone.now() <= timedelta(hours=2)
    assert [ask(text, chat).status for text in (first, second)] == [200, 200]
    with pytest.raises(ConflictError):
        keys.rotate(principal=make.principal(alice), key_id=old.pk)


def test_without_grace_the_old_key_ends_at_once(chat, alice, team):
    old, first = new(alice, team)
    _, second = keys.rotate(principal=make.principal(alice), key_id=old.pk, grace_hours=0)

    assert [ask(text, chat).status for text in (first, second)] == [401, 200]
    with pytest.raises(ConflictError):
        keys.rotate(principal=make.principal(alice), key_id=old.pk)


def test_grace_never_lengthens_a_life(alice, team):
    old, _ = new(alice, team, days=1)
    before = old.expires_at
    keys.rotate(principal=make.principal(alice), key_id=old.pk, grace_hours=100)
    old.refresh_from_db()

    assert old.expires_at == before


def test_a_lead_ends_a_members_key_but_never_learns_one(ann, alice, bob, team):
    key, _ = new(ann, team, personal=True)
    with pytest.raises(NotAllowedError):
        keys.rotate(principal=make.principal(alice), key_id=key.pk)
    with pytest.raises(MissingError):
        keys.revoke(principal=make.principal(bob), key_id=key.pk)
    other = make.make_user("amir", team=team)
    with pytest.raises(NotAllowedError):
        keys.revoke(principal=make.principal(other), key_id=key.pk)
    assert keys.revoke(principal=make.principal(alice), key_id=key.pk).revoked_at is not None


def test_last_use_is_kept_to_the_minute(chat, alice, team, django_assert_num_queries):
    _, text = new(alice, team)
    ask(text, chat)
    assert EndpointKey.objects.get().last_used_at is not None
    with django_assert_num_queries(2):
        ask(text, chat)
