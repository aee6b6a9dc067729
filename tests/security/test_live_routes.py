"""The addresses of the streams, every method, every principal: nobody reads, prompts or reports whom the table does not
name, and nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from django.conf import settings as site

from deployments.services import model_checks
from deployments.sources import Reply
from portal.live.app import LiveApp
from portal.live.logs import LogReader
from tests.deployments.sealing_keys import PUBLIC
from tests.portal.asgi import call, cookies_of

from .routes import METHODS, live_routes
from .rules import EVERYBODY, TEAM
from .world import NOBODYS, Caller, World, every_row

pytestmark = [pytest.mark.django_db(transaction=True)]

LOGS = "/live/logs/{pk}/(follow/)?"
API_LOGS = "/api/v1/deployments/{pk}/logs/"
# By address and method: who passes with a session. Below /api/ tokens pass where their person does.
TABLE: dict[str, dict[str, str]] = {
    "/live/status/": {"GET": EVERYBODY},
    "/live/prompt/{pk}/": {"POST": TEAM},
    LOGS: {"GET": TEAM},
    API_LOGS: {"GET": TEAM},
    # The gateway's question takes any method; what counts is the bearer that it brings.
    "/live/authorize/": dict.fromkeys(METHODS, ""),
    # Likewise, for many at once: it says of each whether it may, and anybody may ask with what they hold.
    "/live/authorize-open/": {"POST": ""},
    # For the gateway's own token alone.
    "/live/usage/": {"POST": ""},
}
CALLING = {"token-invoke", "token-admin"}
WISH = {"messages": [{"role": "user", "content": "What is a slipway?"}]}
CSRF = "a" * 32


class Written:
    """Logs that say one line."""

    async def tail(self, *place: str, **_: Any) -> str:
        return "one\n"

    async def follow(self, *place: str, **_: Any) -> AsyncIterator[str]:
        yield "one"


@pytest.fixture
def world(transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    settings.ALLOWED_HOSTS, settings.GATEWAY_URL = ["testserver"], "http://127.0.0.1:9"
    settings.SEAL_PUBLIC_KEY = PUBLIC
    monkeypatch.setattr("portal.lib.hints._send", lambda task, pk: None)
    monkeypatch.setattr(model_checks, "_get", lambda path: Reply(404))
    return World()


def test_the_table_names_every_address_of_the_streams() -> None:
    assert live_routes() == TABLE.keys()


def test_streams_are_for_those_whom_the_table_names(world: World) -> None:
    before = _rows()

    wrong = asyncio.run(_walk(world))

    assert not wrong, "\n".join(wrong)
    assert _rows() == before


async def _walk(world: World) -> list[str]:
    app, wrong = LiveApp(), []
    app.reader = LogReader(Written())
    for route in TABLE:
        for address in (route.replace("(follow/)?", ""), route.replace("(follow/)?", "follow/")):
            for method in METHODS:
                for caller in world.callers:
                    status = await _status(app, method, address.replace("{pk}", str(world.chat.pk)), caller)
                    expected = _expected(route, method, caller)
                    if status != expected:
                        wrong.append(f"{method} {address} by {caller.name}: {status}, not {expected}")
                    other = await _status(app, method, address.replace("{pk}", str(NOBODYS)), caller)
                    if expected == 404 and other != status:
                        wrong.append(f"{method} {address} by {caller.name}: {status}, {other} where nothing is")
    await app.hub.stop()
    return wrong


async def _status(app: LiveApp, method: str, path: str, caller: Caller) -> int:
    """What one caller is answered; a stream is hung up once it has begun."""
    client = caller.client
    client.cookies[site.CSRF_COOKIE_NAME] = CSRF
    headers = {**caller.headers, **cookies_of(client), "x-csrftoken": CSRF, "content-type": "application/json"}
    asks = path == "/live/authorize/"
    question: dict[str, Any] = {"namespace": "search-x7k2p", "name": "chat"} if asks else WISH
    if asks and method != "POST":
        headers["x-original-uri"] = "/search-x7k2p/chat/v1/models"
    if path == "/live/authorize-open/":
        question = {"open": []}
    stream = call(app, path, method=method, headers=headers, body=orjson.dumps(question))
    status, _ = await stream.start()
    await stream.hang_up()
    return status


def _expected(route: str, method: str, caller: Caller) -> int:
    rule = TABLE[route].get(method)
    if rule is None:
        return 405
    if route == "/live/authorize/":
        if caller.name in CALLING:
            return 200
        return 401 if caller.out or not caller.headers else 403
    if route == "/live/authorize-open/":
        return 200
    if caller.out or route == "/live/usage/" or (caller.headers and route != API_LOGS):
        return 401
    person = "stranger" if caller.elsewhere or "read" not in caller.scopes else caller.person
    return 200 if person in rule else 404


def _rows() -> dict[tuple[str, str], str]:
    return {key: row for key, row in every_row().items() if key[0] != "deployments_apitoken"}
