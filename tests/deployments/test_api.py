"""The REST API: the same wishes as the form, the same answers, and a problem for everything that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from deployments.models import Deployment, Event, Reservation, Team
from monitoring.pages import RANGES
from tests.deployments import factories as make
from tests.deployments.apis import Api, pointers, problem

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]


LISTS = (
    "deployments/",
    "teams/",
    "flavors/",
    "quota-grants/",
    "reservations/",
    "catalog/",
    "events/",
    "profiles/",
    "tokens/",
    "whoami/",
)


def wish(**changes: Any) -> dict[str, Any]:
    return {"team": "search", "name": "chat", "spec": make.a_spec(), **changes}


def test_the_whole_life_of_a_wish(ann_api, carol_api, team):
    made = ann_api("post", "deployments/", wish())
    assert made.status_code == 201
    shown = made.json()
    assert (shown["team"], shown["name"], shown["state"]) == ("search", "chat", "AwaitingApproval")
    assert shown["spec"]["source"]["uri"] == make.QWEN
    assert shown["endpoint"].endswith(f"/{team.namespace}/chat/v1")
    path = f"deployments/{shown['id']}/"

    revision = carol_api("get", f"{path}revisions/1/")
    assert {obj["kind"] for obj in revision.json()["objects"]} >= {"InferenceService", "ServingRuntime"}
    approved = carol_api("post", f"{path}approve/", {"comment": "fine"}, **{"if-match": revision["etag"]})
    assert (approved.status_code, approved.json()["kind"]) == (200, "admin")
    assert approved.json()["deployment"]["approved_revision"] == 1
    assert Reservation.objects.get().delta == 1

    now = ann_api("get", path)
    assert now["etag"] == f'"r1.{revision.json()["digest"]}"'
    change = {"spec": {"replicas": {"max": 2}, "engine": {"args": {"max-model-len": None}}}}
    changed = ann_api("patch", path, change, **{"if-match": now["etag"]})
    assert (changed.status_code, changed.json()["revision"]) == (200, 2)
    assert changed.json()["spec"]["replicas"] == {"min": 1, "max": 2}
    assert "max-model-len" not in changed.json()["spec"]["engine"]["args"]
    assert [row["number"] for row in ann_api("get", f"{path}revisions/").json()["results"]] == [2, 1]

    assert ann_api("post", f"{path}stop/", {"reason": "night"}).json()["wanted"] == "stopped"
    assert ann_api("post", f"{path}start/").json()["wanted"] == "running"
    assert ann_api("delete", path).json()["wanted"] == "deleted"
    assert {event["kind"] for event in ann_api("get", f"events/?deployment={shown['id']}").json()["results"]} >= {
        "requested",
        "approved",
        "revised",
        "stopped",
        "started",
        "delete_asked",
    }


def test_a_put_replaces_the_spec_and_needs_to_know_what_it_replaces(ann_api):
    made = ann_api("post", "deployments/", wish()).json()
    path = f"deployments/{made['id']}/"
    body = {"spec": make.a_spec(replicas={"min": 2, "max": 2})}
    assert problem(ann_api("put", path, body), 428)["code"] == "precondition_required"
    assert problem(ann_api("put", path, body, **{"if-match": '"r7"'}), 412)["code"] == "stale"
    for tag in ("r" + "9" * 4400, "r²", "r٣"):
        assert problem(ann_api("put", path, body, **{"if-match": f'"{tag}"'}), 412)["code"] == "stale"
    assert problem(ann_api("put", path, body, **{"if-match": "*"}), 412)
    assert ann_api("put", path, {**body, "base_revision": 1}).json()["revision"] == 2


def test_an_approval_needs_the_digest_that_is_newest(ann_api, carol_api):
    made = ann_api("post", "deployments/", wish()).json()
    path = f"deployments/{made['id']}/approve/"
    assert problem(carol_api("post", path, {}), 428)
    assert problem(carol_api("post", path, {"digest": "0" * 64}), 412)
    assert problem(carol_api("post", path, {"digest": 7}), 412)
    assert not Reservation.objects.exists()


def test_nobody_approves_their_own(ann_api, team, alice, hub):
    lead = Api(alice)
    Team.objects.update(policy=Team.Policy.LEAD)
    made = lead("post", "deployments/", wish()).json()
    answer = lead("post", f"deployments/{made['id']}/approve/", {"digest": made["digest"]})
    assert problem(answer, 403)["code"] == "not_allowed"


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"team": "labs"}, "/team", "team_unknown"),
        ({"team": "never-was"}, "/team", "team_unknown"),
        ({"team": None}, "/team", "team_unknown"),
        ({"team": ["search"]}, "/team", "team_unknown"),
        ({"team": "se\x00arch"}, "/team", "team_unknown"),
        ({"name": None}, "/name", "required"),
        ({"name": 7}, "/name", "invalid"),
        ({"name": "Ünïcode 🚀"}, "/name", "name_form"),
        ({"name": "a\x00b"}, "/name", "name_form"),
        ({"name": "x" * 200_000}, "/name", "name_length"),
        ({"note": "x" * 600}, "/note", "invalid"),
        ({"note": {"a": 1}}, "/note", "invalid"),
        ({"spec": None}, "/spec", "invalid"),
        ({"spec": "all"}, "/spec", "invalid"),
        ({"spec": make.a_spec(flavor="b200")}, "/spec/flavor", "flavor_unknown"),
        ({"spec": make.a_spec(flavor=[1])}, "/spec/flavor", "invalid"),
        ({"spec": make.a_spec(replicas={"min": -3, "max": 1})}, "/spec/replicas/min", "invalid"),
        ({"spec": make.a_spec(replicas={"min": 1, "max": 10**18})}, "/spec/replicas/max", "invalid"),
        ({"spec": make.a_spec(replicas={"min": True, "max": 1})}, "/spec/replicas/min", "invalid"),
        ({"spec": make.a_spec(engine={"args": {"no-such": 1}})}, "/spec/engine/args/no-such", "flag_unknown"),
        ({"spec": make.a_spec(engine={"args": {"port": 1}})}, "/spec/engine/args/port", None),
        ({"spec": make.a_spec(podSpec={"hostNetwork": True})}, "/spec/podSpec", "unknown_field"),
        ({"spec": make.a_spec(source={"uri": "file:///etc/passwd"})}, "/spec/source/uri", "source_scheme"),
        ({"spec": make.a_spec(source={"uri": "hf://a/$(id)"})}, "/spec/source/uri", None),
        ({"approved": True}, "/approved", "unknown_field"),
        ({"namespace": "kube-system"}, "/namespace", "unknown_field"),
    ],
)
def test_odd_wishes_are_problems_at_their_field_and_store_nothing(ann_api, bob, changes, pointer, code):
    found = pointers(ann_api("post", "deployments/", wish(**changes)))
    assert pointer in found
    assert code is None or found[pointer] == code
    assert not Deployment.objects.exists()


def test_foreign_and_unknown_teams_answer_alike(ann_api, bob):
    one = ann_api("post", "deployments/", wish(team="labs")).json()
    other = ann_api("post", "deployments/", wish(team="never-was")).json()
    assert {**one, "request_id": ""} == {**other, "request_id": ""}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, 400),
        (b"[]", 422),
        (b"1" * 100_000, 400),
        (b"NaN", 400),
        (b'{"name": "\\ud800"}', 400),
        (b'"' + b"x" * 1_100_000 + b'"', 413),
    ],
    ids=["empty", "cut", "not utf-8", "deep list", "deep object", "list", "digits", "nan", "surrogate", "huge"],
)
def test_odd_bodies_are_problems(ann_api, body, status):
    answer = ann_api.client.post("/api/v1/deployments/", data=body, content_type="application/json")
    if body == b"1" * 100_000 and answer.status_code == 422:
        status = 422  # read as one very large number, which is no object
    problem(answer, status)


def test_other_media_types_and_methods_are_problems(ann_api):
    answer = ann_api.client.post("/api/v1/deployments/", data="a=1", content_type="application/x-www-form-urlencoded")
    assert problem(answer, 415)["code"] == "unsupported_media_type"
    assert problem(ann_api("put", "deployments/", {}), 405)


@pytest.mark.parametrize(
    "path",
    [
        "deployments/?limit=x",
        "deployments/?limit=0",
        "deployments/?limit=100000",
        "deployments/?after=-1",
        "deployments/?after=99999999999999999999999",
        "deployments/?team=%00",
        "deployments/?state=' or 1=1",
        "deployments/?state=x",
        "deployments/?state=",
        "deployments/?team=",
        "deployments/?cursor=zzz",
        "deployments/?next=zzz",
        "deployments/?stat=Running",
        "deployments/?format=xml",
        "deployments/?limit=%D9%A3",
        "deployments/?team=a&team=b",
        "deployments/1/?limit=2",
        "deployments/1/revisions/?team=search",
        "deployments/1/metrics/?range=99999999h",
        "deployments/1/metrics/?range=%22%7D",
        "deployments/1/metrics/?range=",
        "deployments/1/metrics/?range=1h&range=6h",
        "deployments/1/metrics/?panel=ttft&panel=no-such",
        "deployments/1/metrics/?step=1",
        "quota-grants/?deployment=1",
        "quota-grants/?after=x",
        "tokens/?scope=read",
        "schema/?format=xml",
        "schema/?version=2",
        "events/?deployment=a",
        "reservations/?flavor=%F0%9F%9A%80",
    ],
)
def test_odd_query_parameters_are_problems(ann_api, path):
    name = path.partition("?")[2].partition("=")[0]
    assert set(pointers(ann_api("get", path))) == {f"?{name}"}


def test_a_refused_parameter_says_what_is_taken(ann_api):
    def said(path: str) -> str:
        return problem(ann_api("get", path), 422)["detail"]

    assert said("deployments/?state=x") == f"“state” takes one of: {', '.join(Deployment.State.values)}."
    assert said("deployments/1/metrics/?range=99999999h") == f"“range” takes one of: {', '.join(RANGES)}."
    assert said("deployments/?cursor=zzz") == (
        "“cursor” is not a parameter. Known here: limit, after, team, state, name."
    )
    assert said("teams/?q=a") == "“q” is not a parameter. None are known here."


@pytest.mark.parametrize("path", LISTS)
def test_no_list_takes_a_parameter_that_it_does_not_know(ann_api, path):
    assert pointers(ann_api("get", f"{path}?filtre=x")) == {"?filtre": "unknown_parameter"}


def test_filters_filter(ann_api, ann, team):
    made = make.make_deployment(team, ann, name="one")
    make.make_deployment(team, ann, name="two")

    def found(query: str) -> list[str]:
        return [row["name"] for row in ann_api("get", f"deployments/?{query}").json()["results"]]

    assert found("name=one") == ["one"]
    assert found(f"state={made.state}&team=search") == ["two", "one"]
    assert found("state=Running") == found("team=labs") == []


def test_metrics_answer_over_a_range(ann_api, ann, team, settings):
    settings.PROMETHEUS_URL = "http://127.0.0.1:9"
    made = make.make_deployment(team, ann)
    answer = ann_api("get", f"deployments/{made.pk}/metrics/?range=1h&panel=ttft&panel=queue").json()
    assert answer["end"] - answer["start"] == pytest.approx(3600, abs=answer["step"])
    assert {panel["id"] for panel in answer["panels"]} == {"ttft", "queue"}


def test_a_stranger_finds_nothing_and_changes_nothing(ann_api, bob, carol_api):
    made = ann_api("post", "deployments/", wish()).json()
    stranger = Api(bob)
    before = list(Event.objects.values_list("pk", flat=True))  # its token's event among them
    assert stranger("get", "deployments/").json()["results"] == []
    path = f"deployments/{made['id']}/"
    nothing = f"deployments/{made['id'] + 999}/"
    for method, suffix, body in (
        ("get", "", None),
        ("delete", "", None),
        ("get", "revisions/", None),
        ("get", "revisions/1/", None),
        ("post", "stop/", {}),
        ("post", "start/", {}),
        ("post", "approve/", {"digest": made["digest"]}),
        ("post", "reject/", {"digest": made["digest"]}),
        ("put", "", {"spec": make.a_spec(), "base_revision": 1}),
        ("patch", "", {"spec": {}, "base_revision": 1}),
    ):
        here = problem(stranger(method, path + suffix, body), 404)
        there = problem(stranger(method, nothing + suffix, body), 404)
        assert (here["detail"], here["code"]) == (there["detail"], there["code"])
    assert list(Event.objects.values_list("pk", flat=True)) == before
    for name in ("events", "reservations", "quota-grants"):
        assert stranger("get", f"{name}/").json()["results"] == []
    assert [row["slug"] for row in stranger("get", "teams/").json()] == ["labs"]


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("read", {"get"}), ("write", {"get", "post", "stop"}), ("approve", {"get", "approve"}), ("invoke", set())],
)
def test_each_scope_allows_only_its_own(ann, carol, hub, team, scope, allowed):
    made = Api(ann)("post", "deployments/", wish()).json()
    make.join(carol, team)
    api = Api(carol, scope)
    path = f"deployments/{made['id']}/"
    answers = {
        "get": api("get", path),
        "post": api("post", "deployments/", wish(name="other")),
        "stop": api("post", f"{path}stop/"),
        "approve": api("post", f"{path}approve/", {"digest": made["digest"]}),
    }
    statuses = {name: answer.status_code for name, answer in answers.items()}
    assert {name for name, status in statuses.items() if status == 403} == set(answers) - allowed
    assert 404 not in statuses.values(), "what a scope is for is there for it"


def test_no_token_a_bad_token_and_a_session_without_csrf(ann, hub):
    nobody = problem(Client().get("/api/v1/deployments/"), 401)
    assert nobody["code"] == "not_authenticated"
    bad = Client(headers={"authorization": "Bearer slp_nope"}).get("/api/v1/deployments/")
    assert problem(bad, 401)["code"] == "invalid_token"
    assert bad["www-authenticate"].startswith("Bearer")
    session = Client(enforce_csrf_checks=True)
    session.force_login(ann)
    assert session.get("/api/v1/deployments/").status_code == 200
    refused = session.post("/api/v1/deployments/", data=wish(), content_type="application/json")
    assert problem(refused, 403)
    assert not Deployment.objects.exists()


def test_lists_page_by_key(ann_api, ann, team):
    made = [make.make_deployment(team, ann, name=f"chat-{n}").pk for n in range(5)]
    seen, path = [], "/api/v1/deployments/?limit=2"
    while path:
        page = ann_api("get", path).json()
        seen += [row["id"] for row in page["results"]]
        path = (page["next"] or "").removeprefix("http://testserver")
        assert len(page["results"]) <= 2
    assert seen == sorted(made, reverse=True)


def test_a_list_costs_the_same_queries_whatever_its_length(ann_api, ann, h100, django_assert_max_num_queries):
    def fill(start: int) -> None:
        for n in range(start, start + 4):
            other = make.make_team(f"team-{n}")
            make.join(ann, other)
            make.make_grant(other, h100, 1)
            make.make_deployment(other, ann, name=f"chat-{n}")

    def cost(path: str) -> int:
        with django_assert_max_num_queries(6) as counted:
            assert ann_api("get", path).status_code == 200
        return len(counted)

    ann_api("get", "whoami/")
    fill(0)
    few = {path: cost(path) for path in LISTS}
    fill(4)
    assert {path: cost(path) for path in LISTS} == few


def test_preflight_answers_without_storing(ann_api):
    answer = ann_api("post", "preflight/", wish()).json()
    assert (answer["ok"], answer["gpus"], answer["surge"], answer["quota"]["limit"]) == (True, 1, 0, 4)
    assert answer["fit"]["state"] == "fits"
    roles = {"strategy": "disaggregated", "prefill": {}, "decode": {"replicas": {"min": 1, "max": 2}}}
    spec = make.a_spec(**roles)
    del spec["replicas"]
    rolled = ann_api("post", "preflight/", wish(spec=spec)).json()
    assert (rolled["gpus"], rolled["surge"]) == (3, 2)
    bad = ann_api("post", "preflight/", wish(name="X", spec={"flavor": 3}))
    assert bad.status_code == 200
    assert not bad.json()["ok"]
    assert not Deployment.objects.exists()


@pytest.mark.parametrize("body", ["null", "[]", "5", '"spec"'])
def test_preflight_of_what_is_no_object_is_refused(ann_api, body):
    assert problem(ann_api("post", "preflight/", body), 422)["code"] == "not_an_object"


def test_preflight_says_what_a_request_would(ann_api, ann, team):
    def found(body: dict[str, Any], query: str = "") -> set[tuple[str, str]]:
        answer = ann_api("post", f"preflight/{query}", body).json()
        assert answer["ok"] is False
        return {(finding["pointer"], finding["severity"]) for finding in answer["findings"]}

    assert ("/note", "error") in found(wish(note="x" * 501))
    assert ("/note", "error") in found(wish(note={"a": 1}, spec={}))
    assert ("/spec", "error") in found(wish(spec="all"))
    foreign = make.make_deployment(make.make_team("labs"), ann, name="theirs")
    for pk in (foreign.pk, 999_999):
        answer = ann_api("post", f"preflight/?deployment={pk}", wish())
        assert pointers(answer) == {"?deployment": "deployment_unknown"}
    own = make.make_deployment(team, ann)
    assert ann_api("post", f"preflight/?deployment={own.pk}", wish()).json()["ok"] is True


def test_a_rejection_needs_a_reason(ann_api, carol_api):
    made = ann_api("post", "deployments/", wish()).json()
    path, digest = f"deployments/{made['id']}/reject/", made["digest"]
    for comment in ({}, {"comment": ""}, {"comment": " \n"}):
        assert pointers(carol_api("post", path, {"digest": digest, **comment})) == {"/comment": "required"}
    assert Deployment.objects.get().state == "AwaitingApproval"
    rejected = carol_api("post", path, {"digest": digest, "comment": "too large"})
    assert (rejected.status_code, rejected.json()["approved"]) == (200, False)


def test_admins_grant_quota_and_others_do_not(ann_api, carol_api, h100):
    body = {"team": "search", "flavor": "h100-80gb", "gpus": 2, "comment": "for the launch"}
    assert problem(ann_api("post", "quota-grants/", body), 403)
    made = carol_api("post", "quota-grants/", body)
    assert (made.status_code, made.json()["gpus"]) == (201, 2)
    quota = ann_api("get", "teams/").json()[0]["quota"]
    assert quota == [{"flavor": "h100-80gb", "limit": 6, "reserved": 0, "free": 6, "until": None}]
    cut = carol_api("patch", f"quota-grants/{made.json()['id']}/", {"gpus": 0})
    assert cut.json()["gpus"] == 0
    assert problem(carol_api("patch", "quota-grants/999999/", {"gpus": 0}), 404)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"gpus": -1}, "/gpus"),
        ({"gpus": 0}, "/gpus"),
        ({"gpus": "\u0663"}, "/gpus"),
        ({"until": "\u0662099-01-01T00:00:00Z"}, "/until"),
        ({"gpus": "many"}, "/gpus"),
        ({"gpus": 1e300}, "/gpus"),
        ({"gpus": True}, "/gpus"),
        ({"team": "nope"}, "/team"),
        ({"flavor": "\x00"}, "/flavor"),
        ({"until": "yesterday"}, "/until"),
        ({"until": "2001-01-01T00:00:00Z"}, "/until"),
        ({"reserved": 1}, "/reserved"),
    ],
)
def test_odd_grants_are_problems_at_their_field(carol_api, h100, changes, pointer):
    body = {"team": "search", "flavor": "h100-80gb", "gpus": 2, **changes}
    assert pointer in pointers(carol_api("post", "quota-grants/", body))


def test_tokens_are_made_shown_once_and_revoked(ann_api):
    made = ann_api("post", "tokens/", {"name": "ci", "scopes": ["read"], "teams": ["search"]}).json()
    assert made["token"].startswith("slp_")
    listed = ann_api("get", "tokens/").json()["results"]
    assert all("token" not in row and "digest" not in row for row in listed)
    assert ann_api("delete", f"tokens/{made['id']}/").status_code == 204
    used = Client(headers={"authorization": f"Bearer {made['token']}"}).get("/api/v1/whoami/")
    assert problem(used, 401)
    assert "/scopes/0" in pointers(ann_api("post", "tokens/", {"name": "x", "scopes": ["root"]}))
    assert "/days" in pointers(ann_api("post", "tokens/", {"name": "x", "scopes": ["read"], "days": "\u0663"}))


def test_whoami_says_who_and_where(ann_api):
    shown = ann_api("get", "whoami/").json()
    assert (shown["username"], shown["admin"]) == ("ann", False)
    assert shown["teams"] == [{"slug": "search", "name": "Search", "role": "member"}]


@pytest.mark.parametrize("word", ["approve", "reject"])
def test_a_decision_takes_the_tag_that_get_answers_with(ann_api, carol_api, made, word):
    path = f"deployments/{made['id']}/"
    tag = carol_api("get", path)["etag"]
    assert tag == f'"r1.{made["digest"]}"'

    old = problem(carol_api("post", f"{path}{word}/", {"comment": "x"}, **{"if-match": '"r1"'}), 412)
    assert (old["code"], "a decision signs one" in old["detail"], "ETag" in old["detail"]) == ("stale", True, True)
    problem(carol_api("post", f"{path}{word}/", {"comment": "x"}, **{"if-match": f'"r1.{"0" * 64}"'}), 412)
    done = carol_api("post", f"{path}{word}/", {"comment": "x"}, **{"if-match": tag})

    assert (done.status_code, done.json()["digest"]) == (200, made["digest"])


def test_a_tag_is_stale_for_decisions_once_somebody_edits(ann_api, carol_api, made):
    path = f"deployments/{made['id']}/"
    tag = carol_api("get", path)["etag"]
    # The short form of before is read too.
    edited = ann_api("patch", path, {"spec": {"replicas": {"max": 2}}}, **{"if-match": '"r1"'})
    assert (edited.status_code, edited["etag"]) == (200, f'"r2.{edited.json()["digest"]}"')

    late = problem(carol_api("post", f"{path}approve/", {}, **{"if-match": tag}), 412)
    again = problem(ann_api("patch", path, {"spec": {"replicas": {"max": 3}}}, **{"if-match": tag}), 412)

    assert "changed since" in late["detail"]
    assert again["code"] == "stale"
    bare = problem(ann_api("patch", path, {"spec": {}}, **{"if-match": f'"{edited.json()["digest"]}"'}), 412)
    assert "base_revision" in bare["detail"]
    assert carol_api("post", f"{path}approve/", {}, **{"if-match": edited["etag"]}).status_code == 200


@pytest.fixture
def made(ann_api, team):
    """A deployment that waits for approval."""
    return ann_api("post", "deployments/", {"team": "search", "name": "chat", "spec": make.a_spec()}).json()
