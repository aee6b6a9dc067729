"""The status stream: who hears of what, and for how long."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deployments.models import Deployment, Membership, Team, User
from deployments.services import memberships, telling
from portal.live import app as live_app
from portal.live.app import LiveApp
from portal.live.callers import Caller
from portal.live.http import Refused
from portal.live.hub import now_ms
from portal.live.permission import ended, hearers, lost
from portal.live.places import Places
from tests.deployments import factories as make
from tests.portal.asgi import call, cookies_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("test_host")]


@pytest.fixture
def chat(people: dict[str, User]) -> Deployment:
    make.make_flavor()
    return make.make_deployment(Team.objects.get(slug="search"), people["alice"])


@pytest.fixture
def app() -> LiveApp:
    return LiveApp()


def headers_of(user: User) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    return cookies_of(client)


def test_without_a_session_there_is_no_stream(db: None, app: LiveApp) -> None:
    answer = asyncio.run(_whole(app, "/live/status/"))

    assert answer.status == 401
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_change_reaches_who_may_see_it_and_nobody_else(
    app: LiveApp, chat: Deployment, people: dict[str, User]
) -> None:
    async def run() -> dict[str, list[Any]]:
        streams = {name: call(app, "/live/status/", headers=headers[name]) for name in people}
        for stream in streams.values():
            assert (await stream.start())[0] == 200
            await stream.until("hello")
        await asyncio.wait_for(app.hub.listening.wait(), 5)
        await asyncio.to_thread(_notify, chat.pk)
        heard = {name: [await streams[name].until("changed")] for name in ("alice", "carol")}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(streams["bob"].until("changed"), 0.5)
        heard["bob"] = []
        for stream in streams.values():
            await stream.hang_up()
        await app.hub.stop()
        return heard

    headers = {name: headers_of(user) for name, user in people.items()}
    assert asyncio.run(run()) == {"alice": [[f"deployment:{chat.pk}"]], "carol": [[f"deployment:{chat.pk}"]], "bob": []}
    assert app.pages.taken() == 0


def test_what_changed_between_a_page_and_its_stream_is_not_lost(
    app: LiveApp, chat: Deployment, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.live.hub.MARGIN_SECONDS", 0.05)

    async def run() -> list[Any]:
        first = call(app, "/live/status/", headers=headers["alice"])
        await first.start()
        hello = await first.until("hello")
        await asyncio.wait_for(app.hub.listening.wait(), 5)
        await asyncio.sleep(0.1)  # the margin: the listener is older than the page
        made = now_ms()
        await asyncio.to_thread(_notify, chat.pk)
        await first.until("changed")
        late = {name: call(app, f"/live/status/?made={made}", headers=headers[name]) for name in ("alice", "bob")}
        for stream in late.values():
            await stream.start()
        found = [hello["lost"], (await late["alice"].until("hello"))["lost"], await late["alice"].until("changed")]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(late["bob"].until("changed"), 0.5)
        for stream in (first, *late.values()):
            await stream.hang_up()
        await app.hub.stop()
        return found

    headers = {name: headers_of(user) for name, user in people.items()}
    assert asyncio.run(run()) == [True, False, [f"deployment:{chat.pk}"]]


def test_who_hears_is_who_may_see(chat: Deployment, people: dict[str, User]) -> None:
    people["dora"] = make.make_user("dora", team=Team.objects.get(slug="search"))
    people["dora"].is_active = False
    people["dora"].save()
    other = make.make_deployment(Team.objects.get(slug="labs"), people["bob"], name="other")
    ids = [chat.pk, other.pk]

    with CaptureQueriesContext(connection) as queries:
        heard = hearers(ids, [user.pk for user in people.values()])

    assert len(queries) == 2
    for user in people.values():
        visible = Deployment.objects.visible_to(make.principal(user)).filter(pk__in=ids)
        assert heard.get(user.pk, set()) == set(visible.values_list("pk", flat=True))


def test_after_a_lost_connection_every_page_fetches_again(app: LiveApp, people: dict[str, User]) -> None:
    async def run() -> None:
        stream = call(app, "/live/status/", headers=headers)
        await stream.start()
        await stream.until("hello")
        await asyncio.wait_for(app.hub.listening.wait(), 5)
        await asyncio.to_thread(_cut_listener)
        await stream.until("hello", within=10)
        await stream.hang_up()
        await app.hub.stop()

    headers = headers_of(people["alice"])
    asyncio.run(run())


@pytest.mark.parametrize("ending", ["logout", "password", "deactivated"])
def test_the_stream_ends_with_the_session(app: LiveApp, people: dict[str, User], ending: str) -> None:
    async def run() -> None:
        stream = call(app, "/live/status/", headers=headers)
        await stream.start()
        await stream.until("hello")
        await asyncio.to_thread(end)
        await app.hub.recheck()
        await stream.until("bye")
        assert (await stream.event())[0] == ""
        await app.hub.stop()

    def end() -> None:
        try:
            if ending == "logout":
                client.logout()
            elif ending == "password":
                alice.set_password("another-long-password")
                alice.save()
            else:
                User.objects.filter(pk=alice.pk).update(is_active=False)
        finally:
            connection.close()

    alice, client = people["alice"], Client()
    client.force_login(alice)
    headers = cookies_of(client)
    asyncio.run(run())


@pytest.mark.parametrize("how", ["leaves", "is taken out by a service", "lapsed admin"])
def test_a_page_fetches_all_again_once_its_person_may_see_less_and_hears_no_more(
    app: LiveApp, chat: Deployment, people: dict[str, User], how: str
) -> None:
    who = people["carol" if how == "lapsed admin" else "alice"]

    def change() -> None:
        try:
            if how == "leaves":
                Membership.objects.filter(user=who).delete()
            elif how == "lapsed admin":
                User.objects.filter(pk=who.pk).update(admin_by_group=True, single_sign_on_at=None)
            else:
                memberships.remove(principal=make.principal(people["carol"]), team=chat.team, user=who)
        finally:
            connection.close()

    async def run() -> float:
        stream = call(app, "/live/status/", headers=headers)
        await stream.start()
        await stream.until("hello")
        await asyncio.wait_for(app.hub.listening.wait(), 5)
        # The listener says hello too, once it listens: that is over when what comes after it has come.
        next(iter(app.hub.streams)).offer(["mark"])
        await stream.until("changed")
        await app.hub.recheck()
        began = time.monotonic()
        await asyncio.to_thread(change)
        hello = await stream.until("hello", within=6)
        took = time.monotonic() - began
        assert hello["lost"] is True
        await asyncio.to_thread(_notify, chat.pk)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.until("changed"), 0.5)
        await stream.hang_up()
        await app.hub.stop()
        return took

    headers = headers_of(who)
    assert asyncio.run(run()) < 5


def test_all_sessions_are_checked_with_as_many_queries_as_one(people: dict[str, User]) -> None:
    callers = []
    for user in people.values():
        client = Client()
        client.force_login(user)
        callers.append(Caller(make.principal(user), client.session.session_key or ""))

    with CaptureQueriesContext(connection) as queries:
        assert ended(callers) == set()
    assert len(queries) <= 3


def test_who_has_lost_a_deployment_is_asked_for_all_together(chat: Deployment, people: dict[str, User]) -> None:
    callers = {name: Caller(make.principal(user)) for name, user in people.items()}

    with CaptureQueriesContext(connection) as queries:
        found = lost((caller, chat.pk) for caller in callers.values())

    assert len(queries) == 2
    assert found == {(callers["bob"], chat.pk)}


def test_a_person_has_so_many_live_pages_and_gets_places_back() -> None:
    places = Places(per_user=2, per_process=3)
    with places.one(1), places.one(1):
        with pytest.raises(Refused) as refused, places.one(1):
            pass
        assert refused.value.status == 429
        with places.one(2), pytest.raises(Refused) as full, places.one(3):
            pass
        assert full.value.status == 503
    with places.one(1):
        assert places.taken() == 1
    assert places.taken() == 0


def test_open_streams_hold_one_connection_together(app: LiveApp, people: dict[str, User]) -> None:
    async def run() -> int:
        streams = [call(app, "/live/status/", headers=headers) for _ in range(12)]
        for stream in streams:
            await stream.start()
            await stream.until("hello")
        await asyncio.wait_for(app.hub.listening.wait(), 5)
        during = await asyncio.to_thread(_connections)
        for stream in streams:
            await stream.hang_up()
        await app.hub.stop()
        return during

    headers = headers_of(people["alice"])
    before = _connections()
    assert asyncio.run(run()) - before <= 2  # the listener, and the one that counts


def test_a_database_that_is_away_is_said_so(app: LiveApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(live_app, "in_database", away)

    answer = asyncio.run(_whole(app, "/live/status/"))

    assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "5")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/live/", "GET", 404),
        ("/live/secret/", "GET", 404),
        ("/live/status/", "POST", 405),
        ("/live/prompt/1/", "GET", 405),
    ],
)
def test_other_addresses_lead_nowhere(app: LiveApp, path: str, method: str, status: int) -> None:
    assert asyncio.run(_whole(app, path, method=method)).status == status


def test_a_foreign_host_is_refused(app: LiveApp, people: dict[str, User]) -> None:
    headers = headers_of(people["alice"]) | {"host": "evil.example"}

    assert asyncio.run(_whole(app, "/live/status/", headers=headers)).status == 400


async def _whole(app: LiveApp, path: str, **options: Any) -> Any:
    return await call(app, path, **options).whole()


def _notify(pk: int) -> None:
    try:
        telling.notify([f"deployment:{pk}", "deployment:x", "nonsense"])
    finally:
        connection.close()


def _cut_listener() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'slipway-live' AND datname = current_database()"
            )
    finally:
        connection.close()


def _connections() -> int:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            return int(cursor.fetchone()[0])
    finally:
        connection.close()
