"""What answers give away: nothing of another team in any of them, by no spelling of an address, by no header, by no
difference between what is not yours and what is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db import connection
from django.http import HttpResponseBase
from django.test.utils import CaptureQueriesContext

from deployments.models import Deployment, Event, Principal, SignInTries, Team
from deployments.services import credentials, grants, invitations, quota_requests, requests, tokens
from deployments.services import endpoint_keys as keys
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make

from .routes import django_routes
from .rules import SAFE
from .table import TABLE
from .world import Caller, World, undone

pytestmark = pytest.mark.django_db

ROUTES = django_routes()
READ = sorted(
    route
    for route, row in TABLE.items()
    if route in ROUTES and "GET" in row.rules and row.kind in {"page", "api"} and "/accounts/2fa" not in route
)
REFUSED = {301, 302, 400, 401, 403, 404, 405, 406, 410, 422}
# By whom a link is followed may read whose it is.
SHOWS_ITS_TEAM = ("/join/",)
SPOOFED = {
    **dict.fromkeys(
        ("Remote-User", "X-Remote-User", "X-Forwarded-User", "X-Auth-Request-User", "X-WEBAUTH-USER"), "admin"
    ),
    **dict.fromkeys(("X-User", "X-Forwarded-Preferred-Username", "X-Forwarded-Email", "X-Authenticated-User"), "admin"),
    **dict.fromkeys(("X-Real-IP", "X-Forwarded-For", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP"), "10.9.8.7"),
    "Forwarded": "for=10.9.8.7;host=evil.example;proto=https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Original-URL": "/cluster/",
    "X-Rewrite-URL": "/cluster/",
}


def content_of(answer: HttpResponseBase) -> str:
    parts: Any = answer.streaming_content if getattr(answer, "streaming", False) else [answer.content]  # type: ignore[attr-defined]
    return b"".join(parts).decode(errors="replace") + str(dict(answer.items()))


def send(caller: Caller, method: str, path: str, body: Any = None, *, api: bool, **headers: str) -> HttpResponseBase:
    more = Caller(caller.name, caller.person, caller.client, {**caller.headers, **headers}, caller.scopes)
    return more.send(method, path, body, api=api)


@pytest.fixture
def canaries(world: World) -> Iterator[dict[str, str]]:
    """Words that stand in one row of the team search each, by what they are of."""
    with undone():
        names = ("person", "note", "wish", "key", "credential", "why", "comment", "mail", "line", "token")
        found = {name: f"canary{number}x{name}" for number, name in enumerate(names)}
        person = make.make_user(found["person"], team=world.team, lead=True)
        who = Principal(user=person)
        spec = DeploymentSpec.from_json(world.spec)
        made = requests.submit(principal=who, team=world.team, name=found["wish"], spec=spec, note=found["note"])
        keys.create(principal=who, team=world.team, name=found["key"], personal=False, every_deployment=True)
        fields = {"token": "hf_of_nobody"}
        credentials.create(principal=who, team=world.team, name=found["credential"], kind="hf", fields=fields)
        quota_requests.ask(principal=who, team=world.team, flavor=world.flavor, gpus=1, why=found["why"])
        admin = Principal(user=world.people["admin"])
        grants.grant(principal=admin, team=world.team, flavor=world.flavor, gpus=1, comment=found["comment"])
        invitations.invite(principal=who, team=world.team, role="member", email=f"{found['mail']}@example.com")
        Event.objects.create(team=world.team, deployment=made, kind="noted", message=found["line"])
        tokens.create(principal=who, name=found["token"])
        found["team"] = "canary99xteam"
        Team.objects.filter(pk=world.team.pk).update(name=found["team"])
        found["namespace"], found["digest"] = world.team.namespace, world.wish.digest
        yield found


def _callers(world: World, *names: str) -> list[Caller]:
    return [caller for caller in world.callers if caller.name in names]


OUTSIDE = ("stranger", "token-elsewhere", "token-admin-elsewhere")
INSIDE = ("lead",)


def test_no_word_of_a_team_is_in_any_answer_to_somebody_else(world: World, canaries: dict[str, str]) -> None:
    told, leaks = set(), []
    for route in READ:
        row = TABLE[route]
        path = world.url(ROUTES[route][0], row.of)
        for caller in _callers(world, *OUTSIDE, *INSIDE):
            if row.kind != "api" and caller.name != "stranger":
                continue
            with undone():
                answer = content_of(caller.send("GET", path, api=row.kind == "api"))
            seen = {name for name, word in canaries.items() if word in answer}
            if caller.name in INSIDE:
                told |= seen
            elif seen and not route.startswith(SHOWS_ITS_TEAM):
                leaks.append(f"{route} tells {caller.name} of {sorted(seen)}")
    assert not leaks, "\n".join(leaks)
    # Each is shown to somebody whom it is for, or nothing was looked for.
    assert told >= canaries.keys() - {"token"}


def test_what_is_sent_tells_nothing_of_a_team_to_somebody_else(world: World, canaries: dict[str, str]) -> None:
    leaks = []
    for route, row in TABLE.items():
        for method, rule in row.rules.items():
            if method in SAFE or row.kind not in {"page", "api"} or rule.body is None or route not in ROUTES:
                continue
            path, api = world.url(ROUTES[route][0], row.of), row.kind == "api"
            with undone():
                caller = _callers(world, "stranger")[0]
                # What they sent themselves may come back.
                body = rule.body(world)
                answer = content_of(caller.send(method, path, body, api=api))
                seen = [name for name, word in canaries.items() if word in answer and word not in str(body)]
            if seen and not route.startswith(SHOWS_ITS_TEAM):
                leaks.append(f"{method} {route} tells of {seen}")
    assert not leaks, "\n".join(leaks)


def variants(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Other spellings of an address, and headers that may turn a request into another."""
    bare = path.rstrip("/")
    for other in (path[0] + path[1:].replace("/", "//"), bare, f"{bare}.json", f"{path}?format=json"):
        yield other, {}
    yield re.sub(r"/(\w)", lambda found: f"/%{ord(found[1]):02x}", path), {}
    yield path, {"HX-Request": "true"}
    yield path, {"X-HTTP-Method-Override": "OPTIONS", "X-Original-URL": "/", "Accept": "text/csv"}


def test_no_other_spelling_opens_what_an_address_refuses(world: World, canaries: dict[str, str]) -> None:
    wrong, tried = [], 0
    for route in READ:
        row = TABLE[route]
        path, api = world.url(ROUTES[route][0], row.of), row.kind == "api"
        for caller in _callers(world, "stranger"):
            plain = caller.send("GET", path, api=api)
            if plain.status_code not in REFUSED:
                continue
            for other, headers in variants(path):
                with undone() as written:
                    answer = send(caller, "GET", other, api=api, **headers)
                tried += 1
                where = answer.get("HX-Redirect", answer.get("Location", ""))
                fine = answer.status_code in REFUSED or where.startswith(("/accounts/login/", "/django-admin/login/"))
                text = content_of(answer)
                if not fine or written or any(word in text for word in canaries.values()):
                    wrong.append(f"{other} {headers} by {caller.name}: {answer.status_code} {where}, writes {written}")
    assert not wrong, "\n".join(wrong)
    assert tried > 200


def test_reading_writes_nothing_whatever_a_header_says(world: World) -> None:
    wrong = []
    lead = _callers(world, "lead")[0]
    for route, row in TABLE.items():
        if route not in ROUTES or row.kind not in {"page", "api"} or row.rules.keys() <= {"GET"}:
            continue
        path, api = world.url(ROUTES[route][0], row.of), row.kind == "api"
        for method in row.rules.keys() - set(SAFE):
            with undone() as written:
                headers = {"X-HTTP-Method-Override": method, "X-Method-Override": method, "X-HTTP-Method": method}
                send(lead, "GET", f"{path}?_method={method}", api=api, **headers)
            if written:
                wrong.append(f"GET {path} as {method} writes {written}")
    assert not wrong, "\n".join(wrong)


def test_what_is_not_yours_and_what_is_not_there_cannot_be_told_apart(world: World) -> None:
    """Status and words are compared for every caller in test_every_route; here headers, length and work."""
    wrong, compared = [], 0
    stranger = _callers(world, "stranger")[0]
    for route in READ:
        row = TABLE[route]
        api = row.kind == "api"
        address = ROUTES[route][0]
        if not ("{pk}" in address or "{slug}" in address):
            continue
        shown = []
        for foreign in (False, True):
            path = world.url(address, row.of, foreign=foreign)
            with (
                undone(),
                CaptureQueriesContext(
                    connection,
                ) as queries,
            ):
                answer = stranger.send("GET", path, api=api)
            headers = {name: value for name, value in answer.items() if name not in {"X-Request-Id", "Content-Length"}}
            # The address itself is in some answers.
            size = len(content_of(answer).replace(path, "")) - len(str(answer.get("X-Request-Id", "")))
            shown.append((answer.status_code, headers, size - len(str(answer.get("Content-Length", ""))), len(queries)))
        if shown[0][0] == 404:
            compared += 1
            if shown[0] != shown[1]:
                wrong.append(f"{route}: {shown[0]} and {shown[1]}")
    assert not wrong, "\n".join(wrong)
    assert compared > 20


def test_headers_of_a_proxy_that_is_not_set_make_nobody_somebody(world: World) -> None:
    for path, status in (("/api/v1/whoami/", 401), ("/cluster/", 302), ("/api/v1/approvals/", 401)):
        answer = send(_callers(world, "anonymous")[0], "GET", path, api=True, **SPOOFED)
        assert answer.status_code == status
        assert "evil.example" not in content_of(answer)
    stranger = _callers(world, "stranger")[0]
    plain, spoofed = (send(stranger, "GET", "/api/v1/whoami/", api=True, **more) for more in ({}, SPOOFED))
    assert (plain.status_code, plain.content) == (spoofed.status_code, spoofed.content)  # type: ignore[attr-defined]
    assert send(stranger, "GET", "/cluster/", api=False, **SPOOFED).status_code == 404


def test_headers_of_a_proxy_that_is_not_set_change_no_address(world: World) -> None:
    kept, counted = [], []
    for more in ({}, SPOOFED):
        with undone():
            member = _callers(world, "member")[0]
            made = send(member, "POST", f"/deployments/{world.chat.pk}/stop/", {"reason": "Enough."}, api=False, **more)
            assert made.status_code < 400
            kept.append(Event.objects.latest("pk").address)
            anonymous = _callers(world, "anonymous")[0]
            send(anonymous, "POST", "/accounts/login/", {"login": "member", "password": "wrong"}, api=False, **more)
            counted.append(sorted(SignInTries.objects.values_list("key", flat=True)))
    assert kept == ["127.0.0.1", "127.0.0.1"]
    assert counted[0]
    assert counted[0] == counted[1]


def test_a_child_is_found_through_its_own_parent_alone(world: World) -> None:
    """Whatever one may do with both: the membership of one team below the address of the other is not there."""
    wrong, asked = [], 0
    admin = _callers(world, "admin")[0]
    for route, row in TABLE.items():
        if "{slug}" not in route or "{pk}" not in route or route not in ROUTES:
            continue
        path = world.url(ROUTES[route][0], row.of).replace("/search/", "/labs/")
        for method, rule in row.rules.items():
            with undone() as written:
                body = rule.body(world) if rule.body else {}
                status = admin.send(method, path, body, api=row.kind == "api").status_code
            asked += 1
            if status != 404 or written:
                wrong.append(f"{method} {path}: {status}, writes {written}")
    assert not wrong, "\n".join(wrong)
    assert asked >= 6
    # A revision is of its deployment: the number of another one's second revision leads nowhere.
    assert Deployment.objects.get(pk=world.chat.pk).revisions.count() == 1
    assert admin.send("GET", f"/api/v1/deployments/{world.chat.pk}/revisions/2/", api=True).status_code == 404


def test_nobody_names_a_place_on_the_cluster() -> None:
    """Namespaces, accounts of services and clusters follow from the team: no body and no parameter holds one."""
    document = yaml.safe_load((Path(__file__).parents[2] / "docs" / "schema.yml").read_text(encoding="utf-8"))
    forbidden = re.compile(
        r"(?i)^(namespace|cluster(_?name)?|service_?account(_?name)?|host(name)?|node(_?name)?|url)$"
    )
    found = set()

    def look(node: Any, trail: str, seen: frozenset[str]) -> None:
        if isinstance(node, list):
            for item in node:
                look(item, trail, seen)
        elif isinstance(node, dict):
            target = str(node.get("$ref", ""))
            if target and target not in seen:
                look(document["components"]["schemas"][target.rsplit("/", 1)[-1]], trail, seen | {target})
            for name, inner in (node.get("properties") or {}).items():
                if forbidden.match(name):
                    found.add(f"{trail}.{name}")
                look(inner, f"{trail}.{name}", seen)
            for name, inner in node.items():
                if name != "properties":
                    look(inner, trail, seen)

    bodies = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query" and forbidden.match(parameter["name"]):
                    found.add(f"{method} {path}?{parameter['name']}")
            if "requestBody" in operation:
                bodies += 1
                look(operation["requestBody"], f"{method} {path}", frozenset())
    assert bodies > 20
    # Google calls a key so that reads a bucket: a value that is sealed, and no account of the cluster.
    assert {name for name in found if "credentials/" not in name or not name.endswith(".service_account")} == set()
