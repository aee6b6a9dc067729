"""Endpoint keys over the API: text once, reach of the caller's token, strangers see nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.models import EndpointKey
from deployments.services import endpoint_keys as keys
from deployments.services import invoke, memberships, usage
from deployments.services import tokens as api_tokens
from deployments.services.usage import Use
from tests.deployments import factories as make
from tests.deployments.apis import Api, pointers, problem
from tests.deployments.viewing import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def gateway_reports(settings):
    """The gateway of this installation says how many tokens answers took."""
    settings.GATEWAY_TOKEN = "of-the-gateway"


@pytest.fixture
def chat(team, ann):
    return make.make_deployment(team, ann, approved=True)


def body(**changes: Any) -> dict[str, Any]:
    return {"team": "search", "name": "ci", "every_deployment": True, **changes}


def test_the_life_of_a_key(chat, alice, team):
    api = Api(alice)
    made = api("post", "endpoint-keys/", body(every_deployment=False, deployments=[chat.pk], tokens_per_minute=500))
    assert made.status_code == 201
    shown = made.json()
    text = shown.pop("key")
    assert invoke.admit(f"Bearer {text}", team.namespace, "chat").status == 200
    assert (shown["team"], shown["person"], shown["deployments"]) == ("search", None, [chat.pk])
    assert (shown["requests_per_minute"], shown["tokens_per_minute"]) == (None, 500)
    listed = api("get", "endpoint-keys/?team=search")
    assert text not in listed.content.decode()
    one = api("get", f"endpoint-keys/{shown['id']}/").json()
    assert one.pop("last_used_at") is not None
    assert one == {name: value for name, value in shown.items() if name != "last_used_at"}

    rotated = api("post", f"endpoint-keys/{shown['id']}/rotate/", {"grace_hours": 0})
    assert (rotated.status_code, rotated.json()["replaces"]) == (201, shown["id"])
    assert invoke.admit(f"Bearer {text}", team.namespace, "chat").status == 401
    fresh = rotated.json()
    assert invoke.admit(f"Bearer {fresh['key']}", team.namespace, "chat").status == 200

    assert api("delete", f"endpoint-keys/{fresh['id']}/").status_code == 204
    assert invoke.admit(f"Bearer {fresh['key']}", team.namespace, "chat").status == 401
    assert [row["id"] for row in api("get", "endpoint-keys/").json()["results"]] == [fresh["id"], shown["id"]]


def test_members_make_their_own_and_strangers_see_nothing(chat, ann, alice, bob):
    assert problem(Api(ann)("post", "endpoint-keys/", body()), 403)["code"] == "not_allowed"
    mine = Api(ann)("post", "endpoint-keys/", body(personal=True)).json()
    assert mine["person"] == "ann"
    stranger = Api(bob)
    assert pointers(stranger("post", "endpoint-keys/", body(personal=True))) == {"/team": "team_unknown"}
    assert stranger("get", "endpoint-keys/").json()["results"] == []
    assert stranger("get", f"endpoint-keys/?deployment={chat.pk}").json()["results"] == []
    path = f"endpoint-keys/{mine['id']}/"
    for method, below in (("get", ""), ("get", "usage/"), ("delete", ""), ("post", "rotate/")):
        problem(stranger(method, path + below, {} if method == "post" else None), 404)
    assert problem(Api(alice)("post", path + "rotate/", {}), 403)["code"] == "not_allowed"
    assert Api(alice)("delete", path).status_code == 204


def test_a_token_needs_write_and_invoke_and_its_own_teams(client, chat, alice):
    def by(*scopes: str, teams=None) -> Any:
        _, text = api_tokens.create(principal=make.principal(alice), name=make.a_name(), scopes=scopes, teams=teams)
        headers = {"Authorization": f"Bearer {text}"}
        return client.post("/api/v1/endpoint-keys/", body(), content_type="application/json", headers=headers)

    other = make.make_team("other")
    make.join(alice, other)
    assert by("read", "write").status_code == 403
    assert by("read", "invoke").status_code == 403
    assert by("write", "invoke", teams=[other]).status_code == 422
    made = by("write", "invoke")
    assert made.status_code == 201
    token = alice.api_tokens.order_by("-pk").first()
    assert EndpointKey.objects.get(pk=made.json()["id"]).expires_at == token.expires_at


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"days": 0}, "/days"),
        ({"days": 366}, "/days"),
        ({"requests_per_minute": 0}, "/requests_per_minute"),
        ({"tokens_per_minute": 10**12}, "/tokens_per_minute"),
        ({"every_deployment": False}, "/deployments"),
        ({"every_deployment": False, "deployments": [10**9]}, "/deployments"),
        ({"name": " "}, "/name"),
        ({"digest": "x"}, "/digest"),
        ({"expires_at": None}, "/expires_at"),
    ],
)
def test_odd_bodies_are_refused_at_their_place(chat, alice, change, where):
    assert list(pointers(Api(alice)("post", "endpoint-keys/", body(**change)))) == [where]
    assert not EndpointKey.objects.exists()


def test_keys_are_found_by_the_deployment_they_open(chat, alice, team):
    code = make.make_deployment(team, alice, name="code")
    principal = make.principal(alice)
    both, _ = keys.create(principal=principal, team=team, name="both", deployments=[chat, code])
    every, _ = keys.create(principal=principal, team=team, name="all", every_deployment=True)
    keys.create(principal=principal, team=team, name="code", deployments=[code])

    found = Api(alice)("get", f"endpoint-keys/?deployment={chat.pk}").json()["results"]

    assert [row["id"] for row in found] == [every.pk, both.pk]


def test_keys_that_were_left_behind_are_found_as_on_their_page(alice, bob, team):
    erin = make.make_user("erin", team=team, lead=True)
    of_erin, _ = keys.create(principal=make.principal(erin), team=team, name="of erin", every_deployment=True)
    ended, _ = keys.create(principal=make.principal(erin), team=team, name="ended", every_deployment=True)
    of_alice, _ = keys.create(principal=make.principal(alice), team=team, name="of alice", every_deployment=True)
    keys.revoke(principal=make.principal(erin), key_id=ended.pk)
    api = Api(alice)

    def found(query: str, by: Any = api) -> list[int]:
        return [row["id"] for row in by("get", f"endpoint-keys/?{query}").json()["results"]]

    assert found("left_behind=true") == []
    memberships.leave(principal=make.principal(erin), team=team)
    assert found("left_behind=true") == found("left_behind=true&team=search") == [of_erin.pk]
    assert found("left_behind=false") == [of_alice.pk, ended.pk]
    assert found("left_behind=true&team=labs") == []
    assert found("left_behind=true", Api(bob)) == []
    page = signed_in(alice).get(reverse("keys"), {"left": "1"}).context["rows"]
    assert [row.key.pk for row in page] == [of_erin.pk]


@pytest.mark.parametrize("value", ["", "1", "True", "yes", "true&left_behind=false"])
def test_an_odd_wish_for_keys_that_were_left_is_refused(alice, value):
    assert list(pointers(Api(alice)("get", f"endpoint-keys/?left_behind={value}"))) == ["?left_behind"]


def test_a_list_of_keys_is_one_query_more_than_an_empty_one(alice, team, django_assert_max_num_queries):
    for number in range(12):
        keys.create(principal=make.principal(alice), team=team, name=str(number), every_deployment=True)
    api = Api(alice)
    with django_assert_max_num_queries(4):
        assert len(api("get", "endpoint-keys/?limit=5").json()["results"]) == 5


def test_usage_is_told_by_hour(chat, alice, team):
    key, _ = keys.create(principal=make.principal(alice), team=team, name="ci", every_deployment=True)
    usage.report([Use(key.pk, chat.pk, 3, 1, 40, 50)])
    api = Api(alice)

    (row,) = api("get", f"endpoint-keys/{key.pk}/usage/?days=1&deployment={chat.pk}").json()["results"]

    told = (row["requests"], row["refused"], row["prompt_tokens"], row["completion_tokens"], row["deployment"])
    assert told == (3, 1, 40, 50, chat.pk)
    assert set(pointers(api("get", f"endpoint-keys/{key.pk}/usage/?days=401"))) == {"?days"}
