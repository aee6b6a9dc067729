"""The REST API of flavors, requests for quota, and waiting for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.models import Flavor, QuotaGrant, QuotaRequest, Team, User
from deployments.services import ledger
from tests.deployments import factories as make
from tests.deployments.apis import Api

pytestmark = pytest.mark.django_db

ASK = {"team": "search", "flavor": "h100-80gb", "gpus": 2, "why": "The spring fair"}


def test_a_request_goes_from_a_lead_to_an_admin(team: Team, h100: Flavor, alice: User, carol: User) -> None:
    lead, admin = Api(alice), Api(carol)
    made = lead("post", "quota-requests/", ASK)
    assert made.status_code == 201
    row = made.json()
    assert (row["state"], row["gpus"], row["author"], row["granted"]) == ("pending", 2, "alice", None)

    decided = admin("post", f"quota-requests/{row['id']}/decide/", {"grant": True, "comment": "Fair", "gpus": 1})

    assert decided.status_code == 200
    assert (decided.json()["state"], decided.json()["decided_by"]) == ("partly", "carol")
    assert decided.json()["granted"] == QuotaRequest.objects.get().granted_id
    assert lead("get", f"quota-requests/{row['id']}/").json() == decided.json()
    listed = lead("get", "quota-requests/?state=partly&team=search").json()["results"]
    assert listed == [decided.json()]
    assert lead("get", "quota-requests/?state=pending").json()["results"] == []


def test_what_may_not_be_done_says_so(team: Team, h100: Flavor, alice: User, ann: User, bob: User, carol: User) -> None:
    lead, member, stranger, admin = Api(alice), Api(ann), Api(bob), Api(carol)
    pk = lead("post", "quota-requests/", ASK).json()["id"]
    decide = {"grant": True, "comment": "x"}
    assert member("post", "quota-requests/", ASK).status_code == 403
    assert stranger("post", "quota-requests/", ASK).status_code == 422
    assert stranger("get", f"quota-requests/{pk}/").status_code == 404
    assert stranger("post", f"quota-requests/{pk}/withdraw/").status_code == 404
    assert stranger("post", f"quota-requests/{pk}/decide/", decide).status_code == 404
    assert lead("post", f"quota-requests/{pk}/decide/", decide).status_code == 403
    assert Api(carol, "read", "write")("post", f"quota-requests/{pk}/decide/", decide).status_code == 403
    assert stranger("get", "quota-requests/").json()["results"] == []
    assert lead("post", f"quota-requests/{pk}/withdraw/").json()["state"] == "withdrawn"
    assert admin("post", f"quota-requests/{pk}/decide/", decide).status_code == 409


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"gpus": 0}, "/gpus"),
        ({"gpus": "two"}, "/gpus"),
        ({"gpus": 1e308}, "/gpus"),
        ({"why": ""}, "/why"),
        ({"flavor": "quantum"}, "/flavor"),
        ({"team": "labs"}, "/team"),
        ({"valid_until": "2001-01-01T00:00:00Z"}, "/valid_until"),
        ({"valid_from": "tomorrow"}, "/valid_from"),
        ({"priority": 1}, "/priority"),
    ],
)
def test_odd_bodies_are_refused_at_their_field(
    team: Team, h100: Flavor, alice: User, changes: dict[str, Any], pointer: str
) -> None:
    answer = Api(alice)("post", "quota-requests/", ASK | changes)
    assert answer.status_code in {400, 422}
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert not QuotaRequest.objects.exists()


def test_all_wrong_fields_are_named_at_once(team: Team, h100: Flavor, alice: User) -> None:
    dates = {"valid_from": "2001-01-01T00:00:00Z", "valid_until": "2001-01-01T00:00:00Z"}
    answer = Api(alice)("post", "quota-requests/", ASK | dates)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/valid_from", "/valid_until"]


def test_admins_write_flavors(alice: User, carol: User) -> None:
    body = {
        "slug": "l4",
        "name": "L4",
        "product": "NVIDIA-L4",
        "memory_mib": 23034,
        "compute_capability": 8.9,
        "price_per_hour": 0.85,
        "node_selector": {"pool": "ai"},
        "tolerations": [{"key": "pool", "operator": "Exists"}],
    }
    admin, lead = Api(carol), Api(alice)
    made = admin("post", "flavors/", body)
    assert made.status_code == 201
    shown = made.json()
    assert {name: shown[name] for name in body} == body
    assert (shown["total"], shown["granted"], shown["reserved"]) == (None, 0, 0)
    assert lead("get", "flavors/l4/").json() == shown
    assert lead("post", "flavors/", body | {"slug": "l5"}).status_code == 403
    assert lead("patch", "flavors/l4/", {"price_per_hour": 0}).status_code == 403
    assert admin("patch", "flavors/l4/", {"price_per_hour": 1.25, "active": False}).json()["price_per_hour"] == 1.25
    assert lead("get", "flavors/l4/").status_code == 404
    assert admin("get", "flavors/l4/").json()["active"] is False
    assert admin("post", "flavors/", body).status_code == 409
    assert admin("patch", "flavors/l9/", {"active": True}).status_code == 404
    assert admin("patch", "flavors/l4/", {"tolerations": [{"operator": "Exists"}]}).status_code == 422
    assert admin("get", "flavors/proposals/").json() == []
    assert lead("get", "flavors/proposals/").status_code == 403


def test_a_deployment_says_how_it_waits(team: Team, h100: Flavor, ann: User) -> None:
    holder = make.make_deployment(team, ann, name="holder", gpus=4, approved=True)
    ledger.reserve(deployment=holder, revision=holder.latest, gpus=4)  # type: ignore[arg-type]
    begins = timezone.now() + timedelta(days=2)
    make.make_grant(team, h100, 1, valid_from=begins)
    row = make.make_deployment(team, ann, gpus=2)
    assert row.latest is not None
    make.approve(row.latest, current=False)
    api = Api(ann)

    waits = api("get", f"deployments/{row.pk}/").json()["waiting"]

    assert (waits["place"], waits["of"], waits["needs"], waits["free"], waits["limit"]) == (1, 1, 2, 0, 4)
    assert [(item["kind"], item["gpus"], item["name"]) for item in waits["frees"]] == [
        ("grant", 1, ""),
        ("hold", 4, "holder"),
    ]
    assert api("get", f"deployments/{holder.pk}/").json()["waiting"] is None


def test_a_grant_loses_its_end_with_null_and_keeps_it_when_nothing_is_said(
    team: Team, h100: Flavor, carol: User
) -> None:
    grant = make.make_grant(team, h100, 2, valid_until=timezone.now() + timedelta(days=20))
    admin, path = Api(carol), f"quota-grants/{grant.pk}/"

    assert admin("patch", path, {"gpus": 3}).json()["valid_until"] is not None
    shown = admin("patch", path, {"until": None}).json()
    assert (shown["gpus"], shown["valid_until"]) == (3, None)
    refused = admin("patch", path, {"gpus": 3, "until": None})
    assert (refused.status_code, refused.json()["code"]) == (409, "unchanged")


def test_a_request_is_granted_without_an_end_by_null(team: Team, h100: Flavor, alice: User, carol: User) -> None:
    later = timezone.now() + timedelta(days=20)
    rows = [
        QuotaRequest.objects.create(team=team, flavor=h100, gpus=1, why="x", author=alice, valid_until=later)
        for _ in range(2)
    ]
    body = {"grant": True, "comment": "Yes"}
    wishes: list[dict[str, Any]] = [body, body | {"valid_until": None, "beyond": True}]

    answers = [
        Api(carol)("post", f"quota-requests/{row.pk}/decide/", wish).json()
        for row, wish in zip(rows, wishes, strict=True)
    ]

    assert [answer["state"] for answer in answers] == ["granted", "otherwise"]
    ends = [QuotaGrant.objects.get(pk=answer["granted"]).valid_until for answer in answers]
    assert ends == [later, None]


def test_more_than_was_asked_for_is_refused_at_the_field_that_says_it_is_meant(
    team: Team, h100: Flavor, alice: User, carol: User
) -> None:
    row = QuotaRequest.objects.create(team=team, flavor=h100, gpus=2, why="x", author=alice)
    path, body = f"quota-requests/{row.pk}/decide/", {"grant": True, "comment": "Yes", "gpus": 20}

    refused = Api(carol)("post", path, body)

    assert refused.status_code == 422
    assert [(error["pointer"], error["code"]) for error in refused.json()["errors"]] == [("/beyond", "not_confirmed")]
    assert "20 GPUs where 2 were asked for" in refused.json()["detail"]
    assert Api(carol)("post", path, body | {"beyond": True}).json()["state"] == "otherwise"


def test_a_grant_changes_only_while_it_is_as_it_was_seen(team: Team, h100: Flavor, carol: User) -> None:
    grant = make.make_grant(team, h100, 2)
    admin, path = Api(carol), f"quota-grants/{grant.pk}/"
    seen = admin("get", path)["ETag"]

    first = admin("patch", path, {"gpus": 6}, **{"If-Match": seen})
    stale = admin("patch", path, {"gpus": 3}, **{"If-Match": seen})

    assert (first.status_code, first.json()["gpus"]) == (200, 6)
    assert first["ETag"] == admin("get", path)["ETag"] != seen
    assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    assert "it is of 6 now, without an end" in stale.json()["detail"]
    assert admin("patch", path, {"gpus": 3}, **{"If-Match": first["ETag"]}).json()["gpus"] == 3
    assert admin("patch", path, {"gpus": 4}).json()["gpus"] == 4, "without the header the last change counts"
    assert admin("patch", path, {"gpus": 5}, **{"If-Match": "5"}).status_code == 412


def test_the_end_of_a_grant_lies_in_the_future(team: Team, h100: Flavor, carol: User) -> None:
    begins = timezone.now() + timedelta(days=9)
    grant = make.make_grant(team, h100, 2, valid_from=begins)
    admin, path = Api(carol), f"quota-grants/{grant.pk}/"
    cases = [
        ({"valid_until": "2001-01-01T00:00:00Z"}, "/valid_until", "To let the grant end now, set its GPUs to 0."),
        ({"until": "2001-01-01T00:00:00Z"}, "/until", "Must lie in the future."),
        ({"valid_until": (begins - timedelta(days=1)).isoformat()}, "/valid_until", "Must lie after the beginning,"),
    ]
    for body, pointer, words in cases:
        (error,) = admin("patch", path, body).json()["errors"]
        assert error["pointer"] == pointer
        assert words in error["detail"]
    grant.refresh_from_db()
    assert grant.valid_until is None


def test_dates_have_one_name_everywhere_and_another_is_read_too(
    team: Team, h100: Flavor, alice: User, carol: User
) -> None:
    until = "2099-06-30T00:00:00Z"
    admin, lead = Api(carol), Api(alice)
    body = {"team": "search", "flavor": "h100-80gb", "gpus": 1}
    for name in ("valid_until", "until"):
        assert admin("post", "quota-grants/", body | {name: until, "comment": name}).json()["valid_until"] == until
        assert lead("post", "quota-requests/", body | {name: until, "why": name}).json()["valid_until"] == until
    both = admin("post", "quota-grants/", body | {"valid_until": until, "until": until})
    assert [(error["pointer"], error["code"]) for error in both.json()["errors"]] == [("/until", "twice")]
    wrong = lead("post", "quota-requests/", body | {"since": "soon", "why": "x"})
    assert [error["pointer"] for error in wrong.json()["errors"]] == ["/since"]
    ended = lead("post", "quota-requests/", body | {"until": "2001-01-01T00:00:00Z", "why": "x"})
    assert [error["pointer"] for error in ended.json()["errors"]] == ["/until"]
