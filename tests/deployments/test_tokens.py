"""API tokens: narrow, short-lived, stored as a hash, dead when revoked."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from deployments.models import ApiToken, Event
from deployments.services import endpoint_keys, events, tokens
from deployments.services.errors import InvalidError, MissingError, NotAllowedError
from deployments.services.principals import principal_of_token
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db


def new(user, *scopes, **fields) -> tuple[ApiToken, str]:
    return tokens.create(principal=make.principal(user), scopes=scopes or ("read",), **{"name": make.a_name()} | fields)


def test_a_token_opens_the_door_and_its_text_is_not_stored(ann):
    token, text = new(ann, "read", "write")
    assert text.startswith("slp_")
    assert len(text) > 40
    assert tokens.authenticate(text) == token
    stored = " ".join(str(value) for value in ApiToken.objects.values_list().get())
    assert text not in stored
    assert text.removeprefix("slp_") not in stored
    assert text not in str(list(Event.objects.values()))


@pytest.mark.parametrize("text", ["", "slp_", "slp_wrong", "slp_" + "x" * 10_000, "slp_\x00", "slp_é", "sli_x"])
def test_anything_else_does_not(ann, text):
    new(ann)
    assert tokens.authenticate(text) is None


def test_revoked_expired_and_disabled_are_refused_at_once(ann):
    revoked, first = new(ann)
    expired, second = new(ann)
    _, third = new(ann)
    tokens.revoke(principal=make.principal(ann), token_id=revoked.pk)
    ApiToken.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert tokens.authenticate(first) is None
    assert tokens.authenticate(second) is None
    assert tokens.authenticate(third) is not None
    ann.is_active = False
    ann.save()
    assert tokens.authenticate(third) is None


def test_a_token_gives_no_more_than_its_maker_has(ann, team):
    reader = principal_of_token(new(ann, "read", "write", teams=[team])[0])
    with pytest.raises(NotAllowedError):
        tokens.create(principal=reader, name="more", scopes=["approve"])
    with pytest.raises(NotAllowedError):
        tokens.create(principal=make.principal(ann, "read"), name="more", scopes=["read"])
    token, _ = tokens.create(principal=reader, name="same", scopes=["read"])
    assert token.team_ids == [team.pk]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "x" * 81},
        {"name": "\x00\x01"},
        {"scopes": []},
        {"scopes": ["root"]},
        {"days": 0},
        {"days": 91},
        {"days": True},
    ],
)
def test_odd_tokens_are_refused_at_their_field(ann, fields):
    values = {"name": "ci", "scopes": ["read"], "days": 30, **fields}
    with pytest.raises(InvalidError) as error:
        tokens.create(principal=make.principal(ann), **values)
    assert error.value.field == next(iter(fields))


def test_others_tokens_do_not_exist_for_strangers_and_admins_may_revoke(ann, bob, carol):
    token, text = new(ann)
    with pytest.raises(MissingError):
        tokens.revoke(principal=make.principal(bob), token_id=token.pk)
    tokens.revoke(principal=make.principal(carol), token_id=token.pk)
    assert tokens.authenticate(text) is None
    assert Event.objects.get(kind="token_revoked").actor == carol


def test_use_is_noted_to_the_minute(ann, django_assert_num_queries):
    _, text = new(ann)
    tokens.authenticate(text)
    with django_assert_num_queries(1):
        tokens.authenticate(text)
    assert ApiToken.objects.get().last_used_at is not None


def test_a_token_lives_ninety_days_at_most_and_an_older_one_to_its_end(ann, client):
    new_one, _ = new(ann, days=90)
    old, text = new(ann, days=90)
    # Made while a year was allowed.
    ApiToken.objects.filter(pk=old.pk).update(expires_at=timezone.now() + timedelta(days=300))

    assert tokens.authenticate(text) == old
    assert timedelta(days=89, hours=23) < new_one.expires_at - timezone.now() <= timedelta(days=90)
    client.force_login(ann)
    page = client.post("/account/", {"name": "mine", "scopes": "read", "days": "91"})
    assert "A token lives 1 to 90 days." in page.content.decode()
    answer = client.post("/api/v1/tokens/", {"name": "x", "scopes": ["read"], "days": 91}, "application/json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/days")
    assert ApiToken.objects.count() == 2


def test_a_token_made_by_a_token_ends_with_it(ann):
    first, _ = new(ann, "read", "write", days=2)
    second, _ = tokens.create(principal=principal_of_token(first), name="longer", scopes=["read"], days=90)
    assert second.expires_at == first.expires_at
    third, _ = tokens.create(principal=principal_of_token(first), name="shorter", scopes=["read"], days=1)
    assert third.expires_at < first.expires_at


def test_a_token_revokes_none_that_may_do_more(ann, team, carol):
    narrow = principal_of_token(new(ann, "read", "write", teams=[team])[0])
    wider = [new(ann, "read", "write")[0], new(ann, "approve", teams=[team])[0], new(carol, "read")[0]]
    for token in wider:
        with pytest.raises(MissingError):
            tokens.revoke(principal=narrow, token_id=token.pk)
    own, _ = tokens.create(principal=narrow, name="own", scopes=["read"])
    assert tokens.revoke(principal=narrow, token_id=own.pk).revoked_at is not None


def test_what_a_token_made_ends_with_it(ann, team):
    """Its tokens, theirs, and the endpoint keys of all of them; what somebody else made lives on."""
    root, _ = new(ann, "read", "write", "invoke")
    child, _ = tokens.create(principal=principal_of_token(root), name="child", scopes=["read", "write", "invoke"])
    grandchild, text = tokens.create(principal=principal_of_token(child), name="grandchild", scopes=["read"])
    acting = {"principal": principal_of_token(child), "team": team, "personal": True, "every_deployment": True}
    key, key_text = endpoint_keys.create(name="k", **acting)
    successor, successor_text = endpoint_keys.rotate(principal=principal_of_token(child), key_id=key.pk)
    own, own_text = endpoint_keys.create(name="own", **(acting | {"principal": make.principal(ann)}))
    sibling, sibling_text = new(ann)

    tokens.revoke(principal=make.principal(ann), token_id=root.pk)

    assert tokens.authenticate(text) is None
    assert tokens.authenticate(sibling_text) == sibling
    assert endpoint_keys.authenticate(key_text) is None
    assert endpoint_keys.authenticate(successor_text) is None
    assert endpoint_keys.authenticate(own_text) == own
    assert list(ApiToken.objects.live()) == [sibling]
    told = Event.objects.filter(kind="token_revoked").order_by("pk")
    assert [(event.data["token"], event.data.get("parent")) for event in told] == [
        (root.pk, None),
        (child.pk, root.pk),
        (grandchild.pk, child.pk),
    ]
    keys_told = Event.objects.filter(kind="key_revoked").values_list("data__key", flat=True)
    assert sorted(keys_told) == sorted([key.pk, successor.pk])


def test_a_token_that_was_revoked_meanwhile_makes_nothing(ann, team):
    token, _ = new(ann, "read", "write", "invoke")
    acting = principal_of_token(token)
    tokens.revoke(principal=make.principal(ann), token_id=token.pk)
    with pytest.raises(NotAllowedError):
        tokens.create(principal=acting, name="late", scopes=["read"])
    with pytest.raises(NotAllowedError):
        endpoint_keys.create(principal=acting, team=team, name="late", personal=True, every_deployment=True)


def test_the_audit_names_the_token_that_acted(ann, client):
    token, text = new(ann, "read", "write")
    made = client.post(
        "/api/v1/tokens/",
        {"name": "child", "scopes": ["read"]},
        content_type="application/json",
        headers={"Authorization": f"Bearer {text}"},
    )
    assert made.status_code == 201
    event = Event.objects.filter(kind="token_created").latest("pk")
    assert event.data["by_token"] == token.prefix
    client.force_login(ann)
    client.post("/account/", {"name": "mine", "scopes": "read", "days": "9"})
    assert "by_token" not in Event.objects.filter(kind="token_created").latest("pk").data


def test_what_the_thread_does_next_is_not_said_to_be_by_the_token(client, ann):
    _, secret = new(ann, "read")

    answer = client.get("/api/v1/whoami/", headers={"authorization": f"Bearer {secret}"})
    assert answer.status_code == 200
    events.record(kind="test", message="Somebody without a request", actor=ann)

    assert Event.objects.get(kind="test").data == {}


def test_to_write_or_approve_one_must_see(ann):
    assert new(ann, "write")[0].scopes == ["read", "write"]
    assert new(ann, "approve")[0].scopes == ["approve", "read"]
    assert new(ann, "invoke")[0].scopes == ["invoke"]
    blind = make.principal(ann, "write")
    assert tokens.create(principal=blind, name="blind", scopes=["write"])[0].scopes == ["write"], (
        "never more than its maker"
    )
