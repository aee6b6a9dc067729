"""Deciding over the API: what waits, several at once, emergencies, and who approves for a team."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.models import Approval, Deployment, Flavor, Membership, QuotaRequest, Team, User
from tests.deployments import factories as make
from tests.deployments.apis import Api, problem
from tests.deployments.test_approvals import ask, revise

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]


@pytest.fixture
def quota(team: Team, alice: User, h100: Flavor) -> QuotaRequest:
    return QuotaRequest.objects.create(team=team, flavor=h100, gpus=3, why="The launch", author=alice)


def item(thing: Deployment | QuotaRequest, **changes: Any) -> dict[str, Any]:
    if isinstance(thing, QuotaRequest):
        return {"kind": "quota", "id": thing.pk}
    assert thing.latest is not None
    return {"kind": "deployment", "id": thing.latest.pk, "digest": thing.latest.digest, **changes}


def test_what_waits_says_what_one_needs_to_decide(
    team: Team, h100: Flavor, ann: User, carol: User, quota: QuotaRequest
) -> None:
    Flavor.objects.update(price_per_hour=2)
    row = ask(ann, team, gpus=2)

    answer = Api(carol)("get", "approvals/").json()

    assert answer["next"] is None
    shown, asked = sorted(answer["results"], key=lambda one: str(one["kind"]))
    assert row.latest is not None
    assert (shown["kind"], shown["id"], shown["deployment"]) == ("deployment", row.latest.pk, row.pk)
    assert (shown["digest"], shown["author"], shown["name"]) == (row.latest.digest, "ann", "chat")
    assert (shown["gpus"], shown["month"], shown["quota_limit"], shown["quota_left"]) == (2, 2 * 2 * 730, 4, 2)
    assert shown["asks"] == [
        {"code": "team_policy", "message": "An admin approves every request of this team.", "who": "admin"}
    ]
    assert shown["may"] == {"approve": True, "reject": True, "why": ""}
    assert (asked["kind"], asked["id"], asked["gpus"], asked["why"]) == ("quota", quota.pk, 3, "The launch")
    assert asked["may"]["approve"]


def test_it_is_for_those_who_decide(team: Team, ann: User, alice: User, bob: User, quota: QuotaRequest) -> None:
    ask(ann, team)

    assert Api(bob)("get", "approvals/").json()["results"] == []
    assert Api(ann)("get", "approvals/").json()["results"] == []
    problem(Api(alice, "read", "write")("get", "approvals/"), 403)
    lead = {one["kind"]: one["may"] for one in Api(alice)("get", "approvals/").json()["results"]}
    assert lead["deployment"]["approve"] is False
    assert "An admin approves every request" in lead["deployment"]["why"]
    assert lead["quota"] == {"approve": False, "reject": False, "why": "An admin decides about quota."}


def test_pages_hold_both_kinds_in_one_order(team: Team, h100: Flavor, ann: User, alice: User, carol: User) -> None:
    want = []
    for number in range(3):
        want.append(("deployment", ask(ann, team, f"chat-{number}").latest_id))
        made = QuotaRequest.objects.create(team=team, flavor=h100, gpus=1, why=f"no {number}", author=alice)
        want.append(("quota", made.pk))
    api, got, path = Api(carol), [], "approvals/?limit=2"
    for _ in range(3):
        page = api("get", path).json()
        got += [(one["kind"], one["id"]) for one in page["results"]]
        path = (page["next"] or "").replace("http://testserver/api/v1/", "")

    assert got == want
    assert path == ""


def test_one_kind_and_one_team(team: Team, ann: User, carol: User, quota: QuotaRequest) -> None:
    ask(ann, team)
    api = Api(carol)

    for kind in ("deployment", "quota"):
        assert [one["kind"] for one in api("get", f"approvals/?kind={kind}").json()["results"]] == [kind]
    assert api("get", "approvals/?team=labs").json()["results"] == []
    problem(api("get", "approvals/?kind=other"), 422)
    problem(api("get", "approvals/?mine=1"), 422)


def test_each_of_several_is_decided_on_its_own(team: Team, ann: User, carol: User, quota: QuotaRequest) -> None:
    good, changed = ask(ann, team, "good"), ask(ann, team, "changed")
    stale = item(changed)
    revise(ann, changed, 2)
    make.join(carol, team)
    own = ask(carol, team, "own")
    Membership.objects.filter(user=carol).delete()  # Or its quota would be another admin's.
    items = [item(good), stale, item(own), item(quota), {"kind": "quota", "id": 10**9}]

    answer = Api(carol)("post", "approvals/decide/", {"items": items, "approve": True, "comment": "Go"})

    assert answer.status_code == 200, answer.content
    assert [(one["id"], one["outcome"]) for one in answer.json()] == [
        (good.latest_id, "decided"),
        (stale["id"], "stale"),
        (own.latest_id, "not_allowed"),
        (quota.pk, "decided"),
        (10**9, "not_found"),
    ]
    assert [approval.revision.deployment.name for approval in Approval.objects.all()] == ["good"]
    quota.refresh_from_db()
    assert (quota.state, quota.decided_by, quota.comment) == ("granted", carol, "Go")


def test_a_rejection_without_words_decides_nothing(team: Team, ann: User, carol: User) -> None:
    row = ask(ann, team)

    answer = Api(carol)("post", "approvals/decide/", {"items": [item(row)], "approve": False})

    assert answer.status_code == 422
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [("/comment", "required")]
    assert not Approval.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {"items": [], "approve": True},
        {"approve": True},
        {"items": [{"kind": "deployment"}], "approve": True},
        {"items": [{"kind": "pod", "id": 1}], "approve": True},
        {"items": [{"kind": "quota", "id": 1, "force": True}], "approve": True},
        {"items": [{"kind": "quota", "id": 1}]},
        {"items": [{"kind": "quota", "id": 1}], "approve": True, "everything": True},
        {"items": [{"kind": "quota", "id": number} for number in range(1, 52)], "approve": True},
        {"items": "all", "approve": True},
        {"items": [3], "approve": True},
    ],
)
def test_bodies_that_cannot_be_meant_are_refused(carol: User, body: Any) -> None:
    problem(Api(carol)("post", "approvals/decide/", body), 422)


def test_strangers_learn_nothing_from_deciding(team: Team, ann: User, bob: User) -> None:
    row = ask(ann, team)

    (result,) = Api(bob)("post", "approvals/decide/", {"items": [item(row)], "approve": True}).json()

    assert (result["outcome"], result["name"]) == ("not_found", "")


# Emergencies


@pytest.fixture
def erin(db: None) -> User:
    return make.make_user("erin", admin=True)


@pytest.fixture
def wanted(carol: User, team: Team) -> Deployment:
    make.join(carol, team)
    return ask(carol, team)


def test_two_admins_let_something_through(carol: User, erin: User, wanted: Deployment) -> None:
    assert wanted.latest is not None
    digest = wanted.latest.digest
    body = {"reason": "Search is down", "digest": digest}

    called = Api(carol)("post", f"deployments/{wanted.pk}/emergency/", body)

    assert called.status_code == 201, called.content
    assert called["ETag"] == f'"{digest}"'
    emergency = called.json()
    assert (emergency["called_by"], emergency["reason"], emergency["revision"]) == ("carol", "Search is down", 1)
    assert [one["id"] for one in Api(erin)("get", "emergencies/").json()] == [emergency["id"]]
    (waits,) = Api(erin)("get", "approvals/").json()["results"]
    assert waits["emergency"]["id"] == emergency["id"]
    problem(Api(erin)("post", f"emergencies/{emergency['id']}/sign/", {}), 428)
    problem(Api(erin)("post", f"emergencies/{emergency['id']}/sign/", {"digest": "0" * 64}), 412)
    problem(Api(carol)("post", f"emergencies/{emergency['id']}/sign/", {"digest": digest}), 403)

    signed = Api(erin)("post", f"emergencies/{emergency['id']}/sign/", {}, **{"If-Match": f'"{digest}"'})

    assert signed.status_code == 200, signed.content
    assert signed.json() == {
        "deployment": wanted.pk,
        "revision": 1,
        "digest": digest,
        "kind": "emergency",
        "actor": "carol",
        "second": "erin",
        "comment": "Search is down",
    }
    assert Api(erin)("get", "emergencies/").json() == []


def test_who_called_takes_it_back_and_nobody_else(carol: User, erin: User, alice: User, wanted: Deployment) -> None:
    assert wanted.latest is not None
    body = {"reason": "Search is down", "digest": wanted.latest.digest}
    called = Api(carol)("post", f"deployments/{wanted.pk}/emergency/", body).json()
    path = f"emergencies/{called['id']}/withdraw/"
    problem(Api(erin)("post", path), 403)
    problem(Api(alice)("post", path), 404)
    problem(Api(carol, "read", "write")("post", path), 403)
    assert [one["id"] for one in Api(erin)("get", "emergencies/").json()] == [called["id"]]

    answer = Api(carol)("post", path)

    assert answer.status_code == 200
    assert {**answer.json(), "expires_at": None} == {**called, "expires_at": None}
    assert answer.json()["expires_at"] < called["expires_at"]
    assert Api(erin)("get", "emergencies/").json() == []
    problem(Api(carol)("post", path), 412)
    problem(Api(erin)("post", f"emergencies/{called['id']}/sign/", {"digest": called["digest"]}), 412)


@pytest.mark.parametrize(
    ("body", "status"),
    [({"reason": "x"}, 428), ({"digest": "0" * 64, "reason": "x"}, 412), ({"reason": "  "}, 422), ({}, 422)],
)
def test_a_call_needs_digest_and_reason(carol: User, wanted: Deployment, body: Any, status: int) -> None:
    problem(Api(carol)("post", f"deployments/{wanted.pk}/emergency/", body), status)


def test_members_leads_and_strangers_call_nothing(
    team: Team, ann: User, alice: User, bob: User, wanted: Deployment
) -> None:
    assert wanted.latest is not None
    body = {"reason": "x", "digest": wanted.latest.digest}
    for person, status in ((ann, 403), (alice, 403), (bob, 404)):
        problem(Api(person)("post", f"deployments/{wanted.pk}/emergency/", body), status)
    problem(Api(alice, "read", "write")("post", f"deployments/{wanted.pk}/emergency/", body), 403)
    assert Api(alice)("get", "emergencies/").json() == []


# Policies


def test_an_admin_changes_who_approves(team: Team, alice: User, bob: User, carol: User) -> None:
    path = "teams/search/policy/"
    assert Api(alice)("get", path).json() == {
        "team": "search",
        "policy": "ask",
        "ask_above": None,
        "at_expiry": "keep",
    }
    problem(Api(bob)("get", path), 404)
    problem(Api(bob)("patch", path, {"policy": "auto"}), 404)
    problem(Api(alice)("patch", path, {"policy": "auto"}), 403)

    changed = Api(carol)("patch", path, {"policy": "auto", "ask_above": 8})

    assert changed.json() == {"team": "search", "policy": "auto", "ask_above": 8, "at_expiry": "keep"}
    assert Api(carol)("patch", path, {"ask_above": None}).json()["ask_above"] is None


@pytest.mark.parametrize(
    "body", [{"policy": "maybe"}, {"ask_above": -1}, {"ask_above": "many"}, {"at_expiry": "x"}, {"other": 1}, []]
)
def test_policies_that_cannot_be_meant_are_refused(team: Team, carol: User, body: Any) -> None:
    problem(Api(carol)("patch", "teams/search/policy/", body), 422)


def test_preflight_lists_the_reasons(team: Team, ann: User) -> None:
    Team.objects.update(policy=Team.Policy.AUTO, ask_above=1)
    spec = make.a_spec(replicas={"min": 2, "max": 2})

    answer = Api(ann)("post", "preflight/", {"team": "search", "name": "chat", "spec": spec}).json()

    assert answer["asks"] == [
        {"code": "ask_above", "message": "It asks for 2 GPUs: for more than 1 an admin decides.", "who": "admin"}
    ]
