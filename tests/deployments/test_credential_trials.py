"""What servers say of a value, typed: found, gated, not found, bad token, unreachable."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from deployments.services import credential_trials as trials
from deployments.services.sealing import Opened
from deployments.sources import SourceCode
from portal.lib import outbound
from tests.deployments.sealing_keys import GATED, TOKEN, HubOfTokens

Call = tuple[str, str, dict[str, Any]]
S3 = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Call]]:
    """Answers in place of the network, one for each call; returns the calls."""

    def put(*answers: Any) -> list[Call]:
        calls: list[Call] = []
        left = list(answers)

        def request(method: str, url: str, **given: Any) -> outbound.Answer:
            calls.append((method, url, given))
            status, headers, body = left.pop(0)
            if status == 0:
                raise outbound.OutboundError("unreachable", "It cannot be reached.")
            return outbound.Answer(status, headers, body, url)

        monkeypatch.setattr(outbound, "request", request)
        return calls

    return put


def test_a_hub_is_asked_who_it_is_and_what_it_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = HubOfTokens(monkeypatch)
    opened = Opened({"token": TOKEN}, {})
    assert trials.try_out("hf", opened).message == "The hub accepts this token, as team-search."
    found = trials.try_out("hf", opened, GATED)
    assert (found.code, found.model and found.model.layers) == (SourceCode.FOUND, 32)
    assert "opens meta-llama/Llama-3.1-8B-Instruct" in found.message
    hub.licensed.clear()
    assert trials.try_out("hf", opened, GATED).code is SourceCode.GATED
    assert trials.try_out("hf", opened, "hf://nobody/nothing").code is SourceCode.NOT_FOUND
    hub.accepted.clear()
    assert trials.try_out("hf", opened, GATED).code is SourceCode.BAD_TOKEN
    hub.down = True
    assert trials.try_out("hf", opened).code is SourceCode.UNREACHABLE
    assert {token for _, token in hub.asked} == {TOKEN}


def test_what_a_hub_calls_itself_is_shown_only_where_it_is_a_plain_name(monkeypatch: pytest.MonkeyPatch) -> None:
    told = trials.Reply(200, {"name": "<b>x</b>"})
    monkeypatch.setattr(trials, "_hub_get", lambda path, token: told)
    assert trials.try_out("hf", Opened({"token": TOKEN}, {})).message == "The hub accepts this token."


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        (200, "", SourceCode.FOUND),
        (403, "AccessDenied", SourceCode.FOUND),
        (403, "InvalidAccessKeyId", SourceCode.BAD_TOKEN),
        (403, "SignatureDoesNotMatch", SourceCode.BAD_TOKEN),
        (400, "AuthorizationHeaderMalformed", SourceCode.BAD_TOKEN),
        (503, "SlowDown", SourceCode.UNREACHABLE),
        (0, "", SourceCode.UNREACHABLE),
    ],
)
def test_an_s3_server_is_asked_for_its_buckets(status: int, code: str, wanted: SourceCode, answering: Any) -> None:
    calls = answering((status, {}, f"<Error><Code>{code}</Code></Error>".encode()))
    opened = Opened(S3, {"endpoint": "https://s3.example.com", "region": "eu-central-1"})
    assert trials.try_out("s3", opened).code is wanted
    [(method, url, given)] = calls
    assert (method, url) == ("GET", "https://s3.example.com/")
    assert "/eu-central-1/s3/aws4_request" in given["headers"]["Authorization"]


@pytest.mark.parametrize(
    ("status", "wanted"),
    [(200, SourceCode.FOUND), (400, SourceCode.BAD_TOKEN), (500, SourceCode.UNREACHABLE), (0, SourceCode.UNREACHABLE)],
)
def test_google_is_shown_a_signed_claim(status: int, wanted: SourceCode, answering: Any) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    key = {"type": "service_account", "client_email": "r@x.iam.gserviceaccount.com", "private_key": pem}
    calls = answering((status, {}, b"{}"))
    assert trials.try_out("gs", Opened({"service_account": json.dumps(key)}, {})).code is wanted
    [(method, url, given)] = calls
    assert (method, url) == ("POST", "https://oauth2.googleapis.com/token")
    head, claims, signature = given["form"]["assertion"].split(".")
    private.public_key().verify(_decoded(signature), f"{head}.{claims}".encode(), PKCS1v15(), hashes.SHA256())
    assert orjson.loads(_decoded(claims))["iss"] == "r@x.iam.gserviceaccount.com"


def test_a_key_that_cannot_be_read_is_refused_without_asking(answering: Any) -> None:
    calls = answering()
    key = {"client_email": "a", "private_key": "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n"}
    assert trials.try_out("gs", Opened({"service_account": json.dumps(key)}, {})).code is SourceCode.BAD_TOKEN
    assert calls == []


def test_a_registry_that_hands_out_tokens_is_asked_where_it_says(answering: Any) -> None:
    challenge = {"www-authenticate": 'Bearer realm="https://auth.example.com/token",service="r.example.com"'}
    login = Opened({"username": "bot", "password": "p"}, {"server": "r.example.com"})
    calls = answering((401, challenge, b""), (200, {}, b"{}"))
    assert trials.try_out("registry", login).code is SourceCode.FOUND
    assert calls[0][1] == "https://r.example.com/v2/"
    asked = urlsplit(calls[1][1])
    assert (asked.netloc, asked.path) == ("auth.example.com", "/token")
    assert parse_qs(asked.query) == {"service": ["r.example.com"], "account": ["bot"]}
    answering((401, challenge, b""), (401, {}, b""))
    assert trials.try_out("registry", login).code is SourceCode.BAD_TOKEN
    answering((200, {}, b""))
    assert trials.try_out("registry", login).code is SourceCode.FOUND
    answering((401, {}, b""))
    assert trials.try_out("registry", login).code is SourceCode.BAD_TOKEN
    answering((404, {}, b""))
    assert trials.try_out("registry", login).code is SourceCode.UNREACHABLE


def test_a_registry_cannot_send_the_login_into_the_cluster() -> None:
    """The door that is really used: a realm is an address that a stranger gave."""
    for realm in ("http://169.254.169.254/token", "https://10.0.0.1/token", "file:///etc/passwd", ""):
        with pytest.raises(outbound.OutboundError) as caught:
            outbound.request("GET", f"{realm}?service=x", headers={"Authorization": "Basic eA=="}, seconds=2)
        assert caught.value.code == "forbidden"


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def google_key() -> Opened:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    key = {"type": "service_account", "client_email": "r@x.iam.gserviceaccount.com", "private_key": pem}
    return Opened({"service_account": json.dumps(key)}, {})


def test_a_key_of_google_is_tested_with_a_folder(answering: Any) -> None:
    listing = {"items": [{"name": "m/config.json", "size": "9"}, {"name": "m/model.safetensors", "size": "77"}]}
    config = {"num_hidden_layers": 30, "architectures": ["LlamaForCausalLM"]}
    told = [(200, {}, orjson.dumps(body)) for body in ({"access_token": "t0ken"}, listing, config)]
    calls = answering(*told)
    found = trials.try_out("gs", google_key(), "gs://weights/m")
    assert (found.code, found.model and found.model.layers) == (SourceCode.FOUND, 30)
    assert [given["headers"].get("Authorization") for _, _, given in calls[1:]] == ["Bearer t0ken"] * 2
    answering(told[0], (403, {}, b"{}"))
    assert trials.try_out("gs", google_key(), "gs://weights/m").code is SourceCode.GATED
    answering((200, {}, b"[]"))
    assert trials.try_out("gs", google_key(), "gs://weights/m").code is SourceCode.UNREACHABLE


def test_a_registry_login_is_tested_with_an_image_of_its_own_server_alone(answering: Any, settings: Any) -> None:
    settings.OCI_REGISTRIES = ["r.example.com", "other.example.com"]
    login = Opened({"username": "bot", "password": "p"}, {"server": "r.example.com"})
    calls = answering((200, {}, b"{}"), (200, {}, b'{"schemaVersion":2}'))
    found = trials.try_out("registry", login, "oci://r.example.com/models/granite:1.0")
    assert found.code is SourceCode.FOUND
    assert found.loads.startswith("oci://r.example.com/models/granite@sha256:")
    assert calls[1][1] == "https://r.example.com/v2/models/granite/manifests/1.0"
    calls = answering((200, {}, b"{}"))
    assert "another registry" in trials.try_out("registry", login, "oci://other.example.com/m:1").message
    calls_of_a_port = answering((200, {}, b"{}"))
    assert "another registry" in trials.try_out("registry", login, "oci://r.example.com:5000/m:1").message
    assert len(calls) == len(calls_of_a_port) == 1


def test_a_login_is_tested_where_an_operator_says_that_the_registry_answers(answering: Any, settings: Any) -> None:
    settings.OCI_REGISTRIES = ["http://10.0.0.5:5000", "docker.io"]
    calls = answering((200, {}, b"{}"), (200, {}, b"{}"))
    for server in ("10.0.0.5:5000", "docker.io"):
        found = trials.try_out("registry", Opened({"username": "bot", "password": "p"}, {"server": server}))
        assert found.code is SourceCode.FOUND
    assert [(url, given["operator_origins"]) for _, url, given in calls] == [
        ("http://10.0.0.5:5000/v2/", ["http://10.0.0.5:5000"]),
        ("https://registry-1.docker.io/v2/", ()),
    ]
