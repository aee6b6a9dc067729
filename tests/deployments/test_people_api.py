"""Teams, members, invitations and rules over the API: the same services, the same refusals as on the pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from deployments.models import GroupRule, Invitation, Membership, Team, User
from deployments.services import invitations, tokens
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db

Call = Callable[..., Any]


def api(user: User, *scopes: str, teams: list[Team] | None = None) -> Call:
    """A program with a token of this person."""
    wanted = scopes or ("read", "write", "approve", "invoke")
    _, text = tokens.create(principal=make.principal(user), name=make.a_name(), scopes=wanted, teams=teams)
    client = Client(headers={"authorization": f"Bearer {text}"})

    def call(method: str, path: str, body: Any = None) -> Any:
        sent = {"data": body, "content_type": "application/json"} if body is not None else {}
        return getattr(client, method)(f"/api/v1/{path}", **sent)

    return call


def test_an_admin_makes_renames_and_archives_a_team(carol: User, alice: User) -> None:
    call = api(carol)

    made = call("post", "teams/", {"slug": "vision", "name": "Vision"})
    assert made.status_code == 201
    assert made.json()["namespace"].startswith("vision-")
    assert call("post", "teams/", {"slug": "vision", "name": "Again"}).status_code == 409
    assert call("patch", "teams/vision/", {"name": "Video"}).json()["name"] == "Video"
    assert call("patch", "teams/vision/", {"namespace": "kube-system"}).status_code == 422
    assert call("patch", "teams/vision/", {"archived": True}).json()["archived"] is True
    assert call("patch", "teams/vision/", {"archived": False}).status_code == 409
    assert "vision" not in [row["slug"] for row in call("get", "teams/").json()]
    assert api(alice)("post", "teams/", {"slug": "mine", "name": "Mine"}).status_code == 403
    assert not Team.objects.filter(slug="mine").exists()


def test_a_refused_archive_renames_nothing(team: Team, ann: User, carol: User) -> None:
    make.make_deployment(team, ann)

    assert api(carol)("patch", "teams/search/", {"name": "Gone", "archived": True}).status_code == 409

    team.refresh_from_db()
    assert team.name == "Search"


def test_a_lead_rules_members(team: Team, alice: User, ann: User, bob: User) -> None:
    call = api(alice)

    made = call("post", "teams/search/members/", {"username": "bob", "role": "lead"})
    assert made.status_code == 201
    assert made.json()["role"] == "lead"
    path = f"teams/search/members/{made.json()['id']}/"
    assert call("patch", path, {"role": "member"}).json()["role"] == "member"
    assert call("patch", path, {"role": "owner"}).status_code == 422
    assert call("delete", path).status_code == 204
    assert call("delete", path).status_code == 404
    assert call("post", "teams/search/members/", {"username": "nobody"}).json()["errors"][0]["pointer"] == "/username"
    first = call("get", "teams/search/members/?limit=1").json()
    assert [row["username"] for row in first["results"]] == ["ann"]
    assert "after=" in first["next"]


def test_members_read_and_strangers_find_nothing(team: Team, alice: User, ann: User, bob: User) -> None:
    lead = Membership.objects.get(user=alice).pk
    member, stranger = api(ann), api(bob)

    names = [row["username"] for row in member("get", "teams/search/members/").json()["results"]]
    assert sorted(names) == ["alice", "ann"]
    assert member("patch", f"teams/search/members/{lead}/", {"role": "member"}).status_code == 403
    # The same for a name that is known and one that is not.
    for username in ("bob", "nobody"):
        assert member("post", "teams/search/members/", {"username": username}).status_code == 403
    for method, path, body in (
        ("get", "teams/search/", None),
        ("get", "teams/search/members/", None),
        ("post", "teams/search/members/", {"username": "bob"}),
        ("patch", f"teams/search/members/{lead}/", {"role": "member"}),
        ("delete", f"teams/search/members/{lead}/", None),
        # Somebody else's member through one's own team.
        ("delete", f"teams/labs/members/{lead}/", None),
        ("patch", "teams/search/", {"name": "x"}),
    ):
        assert stranger(method, path, body).status_code == 404, (method, path)
    assert Membership.objects.get(user=alice).role == "lead"


def test_leaving_is_deleting_ones_own(team: Team, ann: User) -> None:
    own = Membership.objects.get(user=ann).pk
    call = api(ann)

    assert call("delete", f"teams/search/members/{own}/").status_code == 204
    # With the next request.
    assert call("get", "teams/search/").status_code == 404
    assert call("get", "teams/").json() == []


def test_an_invitation_shows_its_link_once(team: Team, alice: User, ann: User, bob: User) -> None:
    call = api(alice)
    made = call("post", "invitations/", {"team": "search", "role": "lead", "days": 2})

    assert made.status_code == 201
    word = made.json()["link"].rstrip("/").rpartition("/")[2]
    assert invitations.found(word) is not None
    assert made.json()["mailed"] is False
    listed = call("get", "invitations/?team=search").json()["results"]
    assert [row["id"] for row in listed] == [made.json()["id"]]
    assert word not in str(listed)
    for other in (api(ann), api(bob)):
        assert other("get", "invitations/").json()["results"] == []
        assert other("delete", f"invitations/{made.json()['id']}/").status_code == 404
    assert api(ann)("post", "invitations/", {"team": "search"}).status_code == 403
    refused = api(bob)("post", "invitations/", {"team": "search"})
    unknown = api(bob)("post", "invitations/", {"team": "nowhere"})
    assert refused.status_code == unknown.status_code == 422
    assert call("delete", f"invitations/{made.json()['id']}/").status_code == 204
    assert not Invitation.objects.open().exists()


def test_rules_are_an_admins(team: Team, alice: User, carol: User) -> None:
    call = api(carol)
    made = call("post", "group-rules/", {"group": "search-people", "team": "search", "role": "lead"})
    assert made.status_code == 201
    assert call("post", "group-rules/", {"group": "gpu-admins", "team": None}).json()["team"] is None
    assert call("post", "group-rules/", {"group": "x", "team": "nowhere"}).status_code == 422
    assert len(call("get", "group-rules/").json()["results"]) == 2

    lead = api(alice)
    assert lead("get", "group-rules/").json()["results"] == []
    assert lead("post", "group-rules/", {"group": "mine", "team": "search", "role": "lead"}).status_code == 403
    assert lead("delete", f"group-rules/{made.json()['id']}/").status_code == 404
    bound = api(carol, teams=[])
    assert bound("post", "group-rules/", {"group": "mine", "team": None}).status_code == 403
    assert api(carol, "read", "write")("post", "group-rules/", {"group": "m", "team": None}).status_code == 403
    assert call("delete", f"group-rules/{made.json()['id']}/").status_code == 204
    assert [str(rule) for rule in GroupRule.objects.all()] == ["gpu-admins → platform admins"]
