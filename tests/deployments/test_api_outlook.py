"""What the pages of quota, capacity, renderings and the audit show, over the API: the same figures, the same people."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.test import Client
from django.utils import timezone

from deployments.manifests import standard
from deployments.models import ApiToken, Deployment, Event, Flavor, Reservation, Team, User
from deployments.services import audit_export, events, quota_requests
from portal.lib.sheets import CUT_SHORT
from tests.deployments import factories as make
from tests.deployments.test_approvals import ask, decide
from tests.deployments.test_people_api import api
from tests.deployments.viewing import add_node

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]


@pytest.fixture
def served(hub: list[str], team: Team, ann: User, carol: User) -> Deployment:
    """One GPU of the team's, approved, with a pod on a node of four."""
    row = ask(ann, team)
    decide(carol, row)
    row.refresh_from_db()
    add_node(holders=[{"namespace": team.namespace, "pod": "chat-1", "gpus": 1, "deployment": row.pk}])
    return row


def test_quota_says_what_is_held_used_and_free(served: Deployment, team: Team, ann: User, bob: User) -> None:
    (row,) = api(ann)("get", "quotas/?team=search").json()

    assert (row["team"], row["flavor"], row["reserved"], row["in_use"]) == ("search", "h100-80gb", 1, 1)
    assert row["free"] == row["limit"] - 1
    assert api(bob)("get", "quotas/?team=search").json() == []
    assert api(ann)("get", "quotas/?teams=search").status_code == 422


def test_holders_say_since_when_and_whether_it_comes_back(
    served: Deployment, team: Team, ann: User, bob: User, carol: User
) -> None:
    call = api(carol)
    (row,) = call("get", "quotas/holders/?team=search&flavor=h100-80gb").json()["results"]

    assert (row["deployment"], row["name"], row["gpus"], row["coming_back"]) == (served.pk, served.name, 1, False)
    since = Reservation.objects.get(deployment=served).created_at
    assert row["since"] == since.isoformat().replace("+00:00", "Z")
    call("post", f"deployments/{served.pk}/stop/", {"reason": "Enough."})
    assert [one["coming_back"] for one in call("get", "quotas/holders/").json()["results"]] == [True]
    assert call("get", "quotas/holders/?flavor=l4-24gb").json()["results"] == []
    assert api(bob)("get", "quotas/holders/").json()["results"] == []


def test_ends_say_what_is_held_beyond_what_is_left(served: Deployment, team: Team, ann: User, bob: User) -> None:
    end = timezone.now() + timedelta(days=9)
    team.grants.update(valid_until=end)

    found = api(ann)("get", "quotas/ends/?team=search").json()

    assert [(one["team"], one["left"], one["over"], one["at_expiry"]) for one in found] == [("search", 0, 1, "keep")]
    assert found[0]["valid_until"] == end.isoformat().replace("+00:00", "Z")
    assert api(bob)("get", "quotas/ends/").json() == []


def test_what_an_admin_weighs_names_who_has_it_and_what_comes_back(
    served: Deployment, team: Team, alice: User, carol: User, h100: Flavor
) -> None:
    asked = quota_requests.ask(principal=make.principal(alice), team=team, flavor=h100, gpus=9, why="Spring.")
    path = f"quota-requests/{asked.pk}/context/"
    granted = sum(team.grants.values_list("gpus", flat=True))

    seen = api(carol)("get", path).json()
    lead = api(alice)("get", path).json()

    assert (seen["capacity"]["granted"], seen["asked"], seen["granted_after"]) == (granted, 9, granted + 9)
    assert seen["shares"] == [{"team": "search", "granted": granted, "reserved": 1, "valid_until": None}]
    assert seen["releases"] == []
    assert (lead["capacity"], lead["shares"], lead["releases"]) == (seen["capacity"], [], [])
    bound = api(carol, "read", "approve", teams=[team])("get", path).json()
    assert bound["shares"] == []
    api(carol)("post", f"deployments/{served.pk}/stop/", {"reason": "Enough."})
    (coming,) = api(carol)("get", path).json()["releases"]
    assert (coming["deployment"], coming["team"], coming["gpus"]) == (served.pk, "search", 1)
    quota_requests.withdraw(principal=make.principal(alice), request_id=asked.pk)
    assert api(carol)("get", path).status_code == 409


def test_capacity_counts_each_node_and_names_no_other_team(served: Deployment, ann: User, bob: User) -> None:
    found = api(ann)("get", "capacity/").json()
    (node,) = found["nodes"]
    h100 = next(one for one in found["flavors"] if one["flavor"] == "h100-80gb")

    assert (h100["nodes"], h100["in_use"], h100["reserved"]) == (1, 1, 1)
    assert h100["free"] == h100["largest_free_block"] == node["free"] == node["allocatable"] - 1
    assert [(one["gpus"], one["deployment"], one["name"], one["team"]) for one in node["holders"]] == [
        (1, served.pk, served.name, "search")
    ]
    (stranger,) = api(bob)("get", "capacity/").json()["nodes"]
    assert [tuple(one.values()) for one in stranger["holders"]] == [(1, "serving", None, "", "", "")]


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch, served: Deployment) -> None:
    """A newer Slipway writes one label more on every object."""
    build = standard.build

    def renders(wish: Any) -> list[dict[str, Any]]:
        return [
            {**obj, "metadata": {**obj["metadata"], "labels": {**obj["metadata"]["labels"], "new": "yes"}}}
            for obj in build(wish)
        ]

    monkeypatch.setattr(standard, "build", renders)


@pytest.mark.usefixtures("newer")
def test_an_admin_renders_anew_in_waves(served: Deployment, ann: User, carol: User) -> None:
    call = api(carol)

    page = call("get", "renderings/").json()

    (change,) = page["results"]
    assert (page["looked"], page["next"], change["id"], change["revision"]) == (1, None, served.pk, 1)
    assert {(one["path"], one["old"], one["new"]) for one in change["differences"]} == {
        ("metadata.labels.new", None, "yes")
    }
    chosen = {"id": served.pk, "digest": change["digest"]}
    stale, none = {"id": served.pk, "digest": "0" * 64}, {"id": 4711, "digest": "0" * 64}
    done = call("post", "renderings/wave/", {"items": [stale, none, chosen], "size": 2}).json()
    assert [(one["id"], one["revision"]) for one in done] == [(served.pk, None), (4711, None)]
    assert "Another revision runs" in done[0]["message"]
    (made,) = call("post", "renderings/wave/", {"items": [chosen]}).json()
    served.refresh_from_db()
    assert served.latest is not None
    assert (made["revision"], made["digest"], made["name"]) == (2, served.latest.digest, served.name)
    assert served.latest.verdict == "pending"
    assert call("post", "renderings/wave/", {"items": [chosen], "size": 26}).status_code == 422
    assert call("post", "renderings/wave/", {"items": [{**chosen, "force": True}]}).status_code == 422
    member = api(ann)
    assert member("get", "renderings/").status_code == 403
    assert member("post", "renderings/wave/", {"items": [chosen]}).status_code == 403


def text_of(answer: Any) -> str:
    return b"".join(answer.streaming_content).decode()


def test_the_audit_is_exported_as_its_page_does(team: Team, alice: User, ann: User, carol: User) -> None:
    events.record(kind="team_renamed", message="=cmd", team=team, actor=ann, data={"after": {"name": "x"}})
    events.record(kind="flavor_made", message="of nobody's team")

    answer = api(carol)("get", "events/export/?kind=team_renamed")
    assert (answer["Content-Type"], answer["Cache-Control"]) == ("text/csv; charset=utf-8", "no-store")
    head, row = csv.reader(io.StringIO(text_of(answer)))
    assert tuple(head) == audit_export.HEADER_OF_ADMINS
    assert (row[2], row[4], row[7]) == ("search", "ann", "'=cmd")

    lines = text_of(api(alice)("get", "events/export/?format=jsonl")).splitlines()
    found = [orjson.loads(line) for line in lines]
    assert {one["team"] for one in found} == {"search"}
    assert len(found) == Event.objects.filter(team=team).count()
    assert found[0]["data"]["after"] == {"name": "x"}

    assert api(ann)("get", "events/export/").status_code == 403
    assert api(carol)("get", "events/export/?format=pdf").json()["errors"][0]["pointer"] == "?format"
    assert api(carol)("get", "events/export/?limit=3").status_code == 422


def test_an_export_is_not_refused_for_what_is_accepted(team: Team, carol: User) -> None:
    client = Client(headers={"accept": "text/csv"})
    client.force_login(carol)

    assert client.get("/api/v1/events/export/").status_code == 200
    wrong = client.get("/api/v1/events/export/?since=never")
    assert (wrong.status_code, wrong["Content-Type"]) == (422, "application/problem+json")


def test_an_export_ends_with_the_token_that_reads_it(team: Team, carol: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_export, "CHUNK", 2)
    for number in range(5):
        events.record(kind="team_renamed", message=f"name {number}", team=team)
    call: Callable[..., Any] = api(carol)
    pieces = iter(call("get", "events/export/?kind=team_renamed").streaming_content)

    first = [next(pieces), next(pieces)]
    ApiToken.objects.update(revoked_at=timezone.now())
    rest = b"".join(pieces).decode()

    assert b"name 4" in first[1]
    assert b"name 3" in first[1]
    assert "name 2" not in rest
    assert CUT_SHORT in rest
