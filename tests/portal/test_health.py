"""What a balancer asks, and what people see when something is away or broken."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import AsyncClient, Client

from deployments import migrations
from deployments.models import User
from portal import health
from portal.asgi import application
from tests.deployments import factories as make

LAST_MIGRATION = sorted(path.stem for path in (Path(migrations.__file__).parent).glob("0*.py"))[-1]


@pytest.fixture
def carol(db: None) -> User:
    return make.make_user("carol", admin=True)


def test_alive_asks_nothing_of_the_database() -> None:
    # Without the database mark a query would fail this test.
    assert Client().get("/healthz").content == b"ok\n"


def test_ready_when_the_database_answers(db: None) -> None:
    answer = Client().get("/readyz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "database": "ok"})


def test_not_ready_when_it_does_not(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise OperationalError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "cursor", away)
        answer = Client().get("/readyz")

    assert answer.status_code == 503


def test_not_ready_before_the_database_is_migrated(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_migrated", threading.Event())
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied("deployments", LAST_MIGRATION)

    before = Client().get("/readyz")
    recorder.record_applied("deployments", LAST_MIGRATION)
    after = Client().get("/readyz")

    assert (before.status_code, before.json()["database"]) == (503, "not migrated")
    assert after.status_code == 200


def test_migrations_are_looked_at_only_until_they_are_applied(db: None, django_assert_num_queries: Any) -> None:
    Client().get("/readyz")

    with django_assert_num_queries(1):
        assert Client().get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_host_name(db: None, settings: Any, path: str) -> None:
    settings.ALLOWED_HOSTS = ["slipway.example.com"]

    assert Client().get(path, headers={"host": "10.1.2.3:8000"}).status_code == 200
    assert Client().get("/accounts/login/", headers={"host": "10.1.2.3:8000"}).status_code == 400


def test_probes_need_no_host_name_in_an_event_loop_either(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["slipway.example.com"]

    answer = asyncio.run(AsyncClient().get("/healthz", headers={"host": "10.1.2.3:8000"}))

    assert (answer.status_code, answer.content) == (200, b"ok\n")


@pytest.mark.parametrize(
    ("path", "kind"), [("/capacity/", "text/html"), ("/api/v1/flavors/", "application/problem+json")]
)
def test_a_database_that_is_away_is_a_503_that_asks_nobody(
    carol: User, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    client = Client(raise_request_exception=False)
    client.force_login(carol)
    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore.load", away)

    answer = client.get(path)

    assert answer.status_code == 503
    assert answer["Retry-After"] == "5"
    assert answer["Content-Type"].startswith(kind)
    assert "Content-Security-Policy" in answer


def test_a_mistake_of_ours_shows_nothing_of_its_inside(carol: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the inside")

    client = Client(raise_request_exception=False)
    client.force_login(carol)
    monkeypatch.setattr("deployments.views.places.flavors_now", broken)

    answer = client.get("/capacity/")

    assert answer.status_code == 500
    assert "Something broke" in answer.content.decode()
    assert "the inside" not in answer.content.decode()


def test_what_is_not_there_is_a_page_too(carol: User) -> None:
    client = Client()
    client.force_login(carol)

    answer = client.get("/no/such/page/")

    assert answer.status_code == 404
    assert "Nothing here" in answer.content.decode()


@pytest.mark.parametrize(
    ("path", "kind"), [("/no/such/page/", "text/html"), ("/api/v1/nothing/", "application/problem+json")]
)
def test_nothing_there_is_a_page_or_a_problem(carol: User, path: str, kind: str) -> None:
    client = Client()
    client.force_login(carol)

    answer = client.get(path)

    assert (answer.status_code, answer["Content-Type"].split(";")[0]) == (404, kind)


@pytest.mark.parametrize("path", ["/api/", "/api/v2/", "/api/v1/nothing/", "/api/v1/deployments/x/"])
def test_nothing_there_is_a_whole_problem(db: None, path: str) -> None:
    answer = Client().get(path)

    assert answer.json() == {
        "type": "urn:slipway:problem:not_found",
        "title": "Not Found",
        "status": 404,
        "code": "not_found",
        "detail": "There is nothing at this address.",
        "instance": path,
        "request_id": answer["x-request-id"],
    }


def test_more_than_is_read_is_said(db: None) -> None:
    client = Client()
    client.force_login(make.make_user("alice", team=make.make_team("search")))
    plain = "application/x-www-form-urlencoded"

    many = client.post("/deployments/new/", {f"field-{number}": "1" for number in range(600)})
    large = client.post("/keys/new/", f"name={'x' * 2_000_000}", content_type=plain)
    broken = client.post("/deployments/new/", b"x", content_type="multipart/form-data")

    assert [answer.status_code for answer in (many, large, broken)] == [413, 413, 400]
    assert "Nothing was changed" in many.content.decode()
    assert "Nothing was changed" in broken.content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/quotas/?team=%00",
        "/quotas/?team=%00&format=csv",
        "/deployments/new/?model=a%00b",
        "/?q=%00",
        "/accounts/a%00b/",
    ],
)
def test_an_address_with_a_null_character_is_refused_everywhere(carol: User, path: str) -> None:
    browser = Client(raise_request_exception=False)
    browser.force_login(carol)

    assert browser.get(path).status_code == 400


def test_numbers_of_other_scripts_name_no_column(carol: User) -> None:
    browser = Client(raise_request_exception=False)
    browser.force_login(carol)

    assert browser.get("/metrics/columns/", {"ids": "²,٣"}).status_code == 200


def test_a_websocket_is_turned_away() -> None:
    async def run() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(dict(message))

        for path in ("/", "/live/status/"):
            await application({"type": "websocket", "path": path, "headers": []}, receive, send)
        return sent

    assert [message["type"] for message in asyncio.run(run())] == ["websocket.close"] * 2
