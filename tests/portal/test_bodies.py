"""Bodies whose length nobody says before: read as they are by every kind of server, and not beyond the limit."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from deployments.api.rendering import MOST_BYTES
from deployments.models import User
from deployments.services import tokens
from portal import asgi
from tests.deployments import factories as make

MIB = 1024 * 1024
BODY = {"name": "ci", "scopes": ["read"]}


def in_chunks(client: Client, path: str, body: bytes, kind: str = "application/json", **extra: Any) -> Any:
    """What gunicorn makes of a request with Transfer-Encoding: chunked."""
    given = {"CONTENT_LENGTH": "", "wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True, **extra}
    return client.post(path, data=b"-", content_type=kind, headers={"transfer-encoding": "chunked"}, **given)


@pytest.fixture
def alice(db: None) -> User:
    return make.make_user("alice", team=make.make_team("search"))


@pytest.fixture
def browser(alice: User) -> Client:
    client = Client()
    client.force_login(alice)
    return client


def test_json_in_chunks_is_read(browser: Client) -> None:
    answer = in_chunks(browser, "/api/v1/tokens/", json.dumps(BODY).encode())

    assert (answer.status_code, answer.json()["name"]) == (201, "ci")


def test_a_form_in_chunks_is_read(browser: Client) -> None:
    form = b"name=nb&days=3&scopes=read"

    answer = in_chunks(browser, "/account/", form, "application/x-www-form-urlencoded")

    assert answer.status_code == 201


@pytest.mark.parametrize("path", ["/api/v1/tokens/", "/api/v1/deployments/", "/api/v1/preflight/"])
def test_more_than_is_read_is_413_however_it_is_sent(browser: Client, path: str) -> None:
    for body in (b"x" * 3 * MIB, b'"' + b"x" * MIB + b'"'):
        whole = browser.post(path, data=body, content_type="application/json")
        for answer in (whole, in_chunks(browser, path, body)):
            problem = answer.json()
            assert (answer.status_code, problem["code"], problem["instance"]) == (413, "too_large", path)
            assert answer["content-type"] == "application/problem+json"


def test_exactly_the_limit_is_read(browser: Client) -> None:
    body = json.dumps(BODY).encode().ljust(MOST_BYTES)

    assert in_chunks(browser, "/api/v1/tokens/", body).status_code == 201
    assert in_chunks(browser, "/api/v1/tokens/", body + b" ").status_code == 413


def test_chunks_that_are_no_json_are_said_so(browser: Client) -> None:
    assert in_chunks(browser, "/api/v1/deployments/", b"a=1").status_code == 400


def test_a_server_that_does_not_say_where_a_body_ends_is_not_believed(browser: Client) -> None:
    answer = in_chunks(browser, "/api/v1/tokens/", json.dumps(BODY).encode(), **{"wsgi.input_terminated": False})

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_an_upload_is_not_written_to_disk_beyond_the_limit() -> None:
    async def run() -> tuple[int, str]:
        sent = 0

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent > 50 * MIB:
                return {"type": "http.disconnect"}
            sent += MIB
            return {"type": "http.request", "body": b"x" * MIB, "more_body": True}

        upto, read = asgi.bounded(receive, settings.DATA_UPLOAD_MAX_MEMORY_SIZE), 0
        while (message := await upto()).get("more_body"):
            read += len(message["body"])
        return read + len(message["body"]), (await upto())["type"]

    assert asyncio.run(run()) == (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1, "http.disconnect")


# Real servers


@pytest.fixture(params=["uvicorn", "gunicorn"])
def served(request: pytest.FixtureRequest, transactional_db: None, servers: dict[str, str]) -> Iterator[int]:
    """The port of a server on the test's own database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = settings.DATABASES["default"]
    base = servers["DATABASE_URL"].rsplit("/", 1)[0]
    own = {"DATABASE_URL": f"{base}/{given['NAME']}", "SLIPWAY_SECRET_KEY": settings.SECRET_KEY}
    environment = {**os.environ, **servers, **own}
    how = {
        "uvicorn": ["portal.asgi:application", "--port", str(port), "--log-level=warning"],
        "gunicorn": ["portal.wsgi:application", "--bind", f"127.0.0.1:{port}", "--log-level=warning"],
    }
    process = subprocess.Popen([sys.executable, "-m", request.param, *how[request.param]], env=environment)
    try:
        give_up = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < give_up, "the server did not start"
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_a_real_server_reads_chunks_and_stops_at_the_limit(served: int) -> None:
    alice = make.make_user("alice", team=make.make_team("search"))
    _, text = tokens.create(principal=make.principal(alice), name="ci", scopes=["read", "write"])
    headers = {"Authorization": f"Bearer {text}", "Content-Type": "application/json"}

    def post(path: str, parts: list[bytes]) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", served, timeout=30)
        try:
            connection.request("POST", path, body=iter(parts), headers=headers, encode_chunked=True)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    status, made = post("/api/v1/tokens/", [b'{"name": "second", ', b'"scopes": ["read"]}'])
    assert (status, made["name"]) == (201, "second")
    wish = json.dumps({"team": "search", "name": "chat", "spec": make.a_spec()}).encode()
    status, checked = post("/api/v1/preflight/", [wish[:40], wish[40:]])
    assert status == 200
    assert not {"required"} & {finding["code"] for finding in checked["findings"]}
    status, problem = post("/api/v1/deployments/", [b"x" * 256 * 1024] * 12)
    assert (status, problem["code"]) == (413, "too_large")
    assert problem["request_id"]
    status, page = post_form(served, alice, {"team": "search", "name": "chat", "note": "x" * 5 * MIB})
    assert status == 422
    assert "At most 500 characters." in page


def post_form(port: int, person: User, fields: dict[str, str]) -> tuple[int, str]:
    """The request form, as a browser without scripts sends it."""
    browser = Client()
    browser.force_login(person)
    token = "c" * 32
    cookies = f"sessionid={browser.cookies['sessionid'].value}; csrftoken={token}"
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}' for name, text in fields.items()]
    parts.append(f'--b\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n{token}\r\n--b--\r\n')
    headers = {"Cookie": cookies, "Content-Type": "multipart/form-data; boundary=b"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/deployments/new/", "\r\n".join(parts).encode(), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
