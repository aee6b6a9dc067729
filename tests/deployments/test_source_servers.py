"""Google's buckets, plain downloads and registries of images: each answer of a server has a typed result."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from deployments.services import source_checks
from deployments.sources import Reply, SourceCode, distribution, gs, https, parse
from deployments.sources.oci import parse_image
from tests.deployments.test_source_formats import CONFIG, LLAMA

Call = tuple[str, str, Mapping[str, str]]


class Server:
    """A server in place of the network: `answer(method, url, headers)` says what it does."""

    def __init__(self, answer: Callable[[str, str, Mapping[str, str]], Reply]) -> None:
        self.answer = answer
        self.calls: list[Call] = []

    def __call__(self, url: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        self.calls.append((method, url, headers or {}))
        return self.answer(method, url, headers or {})


# Google


def google(objects: Mapping[str, bytes], *, token: str = "") -> Server:
    """A bucket “weights” with these objects, open to anybody or to who shows a token."""

    def answer(method: str, url: str, headers: Mapping[str, str]) -> Reply:
        parts = urlsplit(url)
        if token and headers.get("Authorization") != f"Bearer {token}":
            return Reply(403 if headers.get("Authorization") else 401)
        _, _, _, _, bucket, _, *key = parts.path.split("/")
        if bucket != "weights":
            return Reply(404)
        query = parse_qs(parts.query)
        if key:
            content = objects[unquote(key[0])]
            return Reply(200, _json(content), body=content)
        found = [{"name": name, "size": str(len(body))} for name, body in objects.items()]
        return Reply(200, {"items": [item for item in found if item["name"].startswith(query["prefix"][0])]})

    return Server(answer)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


CHAT = {"m/chat/config.json": json.dumps(CONFIG).encode(), "m/chat/model.safetensors": b"x" * 99, "m/chat-2/x": b"1"}


def test_a_folder_of_google_is_a_model():
    found = gs.check("weights", "m/chat", google(CHAT))
    assert (found.code, found.loads) == (SourceCode.FOUND, "gs://weights/m/chat")
    assert found.model is not None
    assert (found.model.layers, found.model.weights_bytes) == (30, 99)
    assert gs.check("weights", "m/chat", google(CHAT, token="ok"), token="ok").code is SourceCode.FOUND
    single = gs.check("weights", "q.gguf", google({"q.gguf": LLAMA}))
    assert (single.loads, single.model and single.model.file) == ("gs://weights/q.gguf", "q.gguf")


@pytest.mark.parametrize(
    ("server", "path", "token", "code"),
    [
        (google(CHAT), "m/none", "", SourceCode.NOT_FOUND),
        (google(CHAT, token="ok"), "m/chat", "", SourceCode.GATED),
        (google(CHAT, token="ok"), "m/chat", "of-another", SourceCode.GATED),
        (Server(lambda *_: Reply(404)), "m/chat", "", SourceCode.NOT_FOUND),
        (Server(lambda *_: Reply(500)), "m/chat", "", SourceCode.UNREACHABLE),
        (Server(lambda *_: Reply(0, error="timed out")), "m/chat", "", SourceCode.UNREACHABLE),
        (Server(lambda *_: Reply(200, {"items": "x"})), "m/chat", "", SourceCode.NOT_FOUND),
        (Server(lambda *_: Reply(200, {"items": [], "nextPageToken": "x"})), "m", "", SourceCode.UNUSABLE),
        (
            Server(lambda *_: Reply(200, {"items": [{"name": "m/a", "size": "9" * 40}, 7]})),
            "m",
            "",
            SourceCode.NOT_FOUND,
        ),
    ],
)
def test_each_answer_of_google_is_told_apart(server: Server, path: str, token: str, code: SourceCode):
    found = gs.check("weights", path, server, token=token)
    assert (found.code, bool(found.message), bool(found.remedy)) == (code, True, True)


def test_what_the_pods_own_account_may_read_nobody_can_say(settings: Any, monkeypatch: pytest.MonkeyPatch):
    closed = google(CHAT, token="ok")
    monkeypatch.setattr(source_checks, "door", lambda *_: closed)
    source = parse("gs://weights/m/chat")
    refused = source_checks.check(source)
    assert refused is not None
    assert refused.code is SourceCode.GATED
    settings.GS_SERVICE_ACCOUNT = "slipway-{team}@project.iam.gserviceaccount.com"
    assert source_checks.check(source) is None


# Downloads


def file(status: int, kind: str = "application/octet-stream", **more: Any) -> Server:
    headers = {"content-type": kind, "content-length": "4096"}
    return Server(lambda method, *_: Reply(status, None, headers, body=LLAMA if method == "GET" else b"", **more))


@pytest.mark.parametrize(
    ("name", "server", "code"),
    [
        ("m.gguf", file(200), SourceCode.FOUND),
        ("m.gguf", file(200, "text/html; charset=utf-8"), SourceCode.UNUSABLE),
        ("m.tar.gz", file(200, "application/gzip"), SourceCode.FOUND),
        ("m.tar", file(200, "application/x-tar"), SourceCode.FOUND),
        ("m.zip", file(200, "application/zip"), SourceCode.FOUND),
        ("m.zip", file(200), SourceCode.UNUSABLE),
        ("m.gguf", file(404), SourceCode.NOT_FOUND),
        ("m.gguf", file(403), SourceCode.GATED),
        ("m.gguf", file(503), SourceCode.UNREACHABLE),
        ("m.gguf", file(0, forbidden=True, error="10.0.0.1 is not a public address."), SourceCode.UNUSABLE),
    ],
)
def test_each_answer_of_a_web_server_is_told_apart(name: str, server: Server, code: SourceCode):
    found = https.check(f"https://files.example.com/{name}", server)
    assert found.code is code
    assert server.calls[0][0] == "HEAD"


def test_of_a_download_only_the_beginning_is_fetched():
    server = file(200)
    found = https.check("https://files.example.com/m.gguf", server)
    assert found.model is not None
    assert (found.model.layers, found.model.weights_bytes, found.model.file) == (30, 4096, "m.gguf")
    assert server.calls[1][2]["Range"] == "bytes=0-65535"


@pytest.mark.parametrize(
    "uri", ["https://127.0.0.1/m.gguf", "http://files.example.com/m.gguf", "https://10.0.0.8/m.tar"]
)
def test_addresses_inside_are_not_called_for_anybody(uri: str, settings: Any):
    settings.DOWNLOAD_SERVERS = []
    found = source_checks.check(parse(uri))
    assert found is not None
    assert found.code is SourceCode.UNUSABLE
    assert "DOWNLOAD_SERVERS" in found.remedy


# Images

MANIFEST = b'{"schemaVersion":2,"layers":[]}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
IMAGE = parse_image("oci://registry.example.com/models/granite:1.0")
CHALLENGE = 'Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="x"'


def registry(*, login: tuple[str, str] | None = None, pulls: bool = True, digest: str = DIGEST) -> Server:
    """A registry that hands out tokens, to anybody or to who shows a login."""
    wanted = "Basic " + base64.b64encode(":".join(login).encode()).decode() if login else ""

    def answer(method: str, url: str, headers: Mapping[str, str]) -> Reply:
        shown = headers.get("Authorization", "")
        if urlsplit(url).netloc == "auth.example.com":
            refused = wanted and shown != wanted
            return Reply(401) if refused else Reply(200, {"token": "t0ken"})
        if shown != "Bearer t0ken":
            return Reply(401, None, {"www-authenticate": CHALLENGE})
        if not pulls:
            return Reply(403)
        if not url.endswith(("/manifests/1.0", f"/manifests/{DIGEST}")):
            return Reply(404)
        return Reply(200, json.loads(MANIFEST), {"docker-content-digest": digest}, body=MANIFEST)

    return Server(answer)


def test_a_tag_is_pinned_to_the_digest_that_it_names():
    server = registry()
    found = distribution.check(IMAGE, server)
    assert (found.code, found.loads) == (
        SourceCode.FOUND,
        f"oci://registry.example.com/models/granite@{DIGEST}",
    )
    asked = parse_qs(urlsplit(server.calls[1][1]).query)
    assert asked == {"service": ["registry.example.com"], "scope": ["repository:models/granite:pull"]}


@pytest.mark.parametrize(
    ("server", "login", "code"),
    [
        (registry(login=("bot", "right")), ("bot", "right"), SourceCode.FOUND),
        (registry(login=("bot", "right")), ("bot", "wrong"), SourceCode.BAD_TOKEN),
        (registry(login=("bot", "right")), None, SourceCode.GATED),
        (registry(login=("bot", "right"), pulls=False), ("bot", "right"), SourceCode.GATED),
        (registry(digest="sha256:" + "0" * 64), None, SourceCode.UNUSABLE),
        (Server(lambda *_: Reply(404)), None, SourceCode.NOT_FOUND),
        (Server(lambda *_: Reply(0, error="timed out")), None, SourceCode.UNREACHABLE),
        (Server(lambda *_: Reply(200, "<html>")), None, SourceCode.UNREACHABLE),
        (
            Server(lambda *_: Reply(401, None, {"www-authenticate": 'Bearer realm="file:///etc"'})),
            None,
            SourceCode.UNREACHABLE,
        ),
    ],
)
def test_each_answer_of_a_registry_is_told_apart(server: Server, login: tuple[str, str] | None, code: SourceCode):
    assert distribution.check(IMAGE, server, login=login).code is code


def test_only_registries_that_an_operator_named_are_asked(settings: Any, monkeypatch: pytest.MonkeyPatch):
    server = registry()
    monkeypatch.setattr(source_checks, "door", lambda *_: server)
    assert source_checks.check(parse("oci://registry.example.com/models/granite:1.0")) is None
    assert server.calls == []
    settings.OCI_REGISTRIES = ["registry.example.com", "http://10.0.0.5:5000"]
    found = source_checks.check(parse("oci://registry.example.com/models/granite:1.0"))
    assert found is not None
    assert found.loads.endswith(DIGEST)
    assert source_checks.registries() == {"registry.example.com": "", "10.0.0.5:5000": "http://10.0.0.5:5000"}
