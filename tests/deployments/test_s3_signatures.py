"""Signatures over requests for buckets: as in examples of AWS, by portal and sandbox; and where they cost nothing."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.sources import s3
from deployments.sources.checks import Reply, SourceCode
from sandbox.node import stores

ROOT = Path(__file__).resolve().parents[2]
KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
MOMENT = datetime(2013, 5, 24, tzinfo=UTC)
SIGNED = "host;x-amz-content-sha256;x-amz-date"
Sign = Callable[..., dict[str, str]]


def of_portal(url: str, region: str = "us-east-1", secret: str = SECRET) -> dict[str, str]:
    parts = urlsplit(url)
    access = s3.Access(f"{parts.scheme}://{parts.netloc}", region, KEY_ID, secret)
    return s3.signed_headers(url, access)


def of_sandbox(url: str, region: str = "us-east-1", secret: str = SECRET) -> dict[str, str]:
    return stores._signature("GET", url, {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": secret}, region)


BOTH = pytest.mark.parametrize("sign", [of_portal, of_sandbox], ids=["portal", "sandbox"])


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: MOMENT)


@BOTH
@pytest.mark.parametrize(
    ("url", "signature"),
    [
        # “Signature Calculations for the Authorization Header” of the S3 documentation, GET Bucket Lifecycle and List.
        (
            "https://examplebucket.s3.amazonaws.com/?lifecycle",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
        ("https://s3.amazonaws.com/", "57e99900acd37e709c47d4a76162f2295a95eea8aa3c16f501a4794219655d62"),
    ],
)
def test_a_signature_is_that_of_aws(sign: Sign, url: str, signature: str):
    headers = {name.lower(): value for name, value in sign(url).items()}
    assert headers["x-amz-date"] == "20130524T000000Z"
    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"").hexdigest()
    assert headers["authorization"] == (
        f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20130524/us-east-1/s3/aws4_request, SignedHeaders={SIGNED}, "
        f"Signature={signature}"
    )


def computed(url: str, region: str, secret: str) -> str:
    """The same by the steps of the documentation, for addresses whose query stands in order."""
    parts, empty, moment = urlsplit(url), hashlib.sha256(b"").hexdigest(), "20130524T000000Z"
    heads = f"host:{parts.netloc}\nx-amz-content-sha256:{empty}\nx-amz-date:{moment}\n"
    request = f"GET\n{parts.path}\n{parts.query}\n{heads}\n{SIGNED}\n{empty}"
    scope = f"20130524/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


visible = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)


@BOTH
@given(name=st.text(min_size=1, max_size=40), prefix=st.text(max_size=40), secret=visible, port=st.integers(1, 65535))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_names_and_keys_hold_it_is_signed_as_it_is_sent(
    sign: Sign, name: str, prefix: str, secret: str, port: int
):
    host = "s3.example.com" + ("" if port == 443 else f":{port}")
    name, prefix = (text.encode(errors="replace").decode() for text in (name, prefix))
    for url in (
        f"https://{host}/bucket/{quote(name)}",
        f"https://{host}/bucket?list-type=2&max-keys=1000&prefix={quote(prefix, safe='')}",
    ):
        signature = sign(url, "eu-central-1", secret)["Authorization"].rpartition("Signature=")[2]
        assert signature == computed(url, "eu-central-1", secret)


@BOTH
def test_the_port_of_the_scheme_is_signed_as_it_is_sent(sign: Sign):
    for with_port, without in (("https://s.example.com:443/b", "https://s.example.com/b"),):
        assert sign(with_port) == sign(without)


def test_nobody_signs_without_keys():
    assert s3.signed_headers("https://s3.example.com/", s3.NOBODY) == {}
    assert stores._signature("GET", "https://s3.example.com/", {}, "us-east-1") == {}


def test_what_pages_ask_imports_no_signer():
    """The form looks public buckets up while somebody types: to import the signer would take longer than that."""
    script = """
import os, sys
import django
django.setup()
import portal.urls, portal.api, deployments.views.ask
from deployments.sources import s3
from deployments.sources.checks import Reply
seen = []
def ask(url, *, headers=None, method="GET"):
    seen.append(dict(headers or {}))
    return Reply(404)
print(s3.check("bucket", "folder", ask, s3.NOBODY).code, seen, "botocore" in sys.modules)
import sandbox.node.stores
print("botocore" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/usr/bin:/bin", "DJANGO_SETTINGS_MODULE": "portal.settings"},
    )
    assert told.stdout.splitlines() == ["not_found [{}] False", "False"], told.stderr


def test_the_signer_reads_nothing_that_the_image_leaves_out():
    """The Dockerfile takes descriptions of Amazon's services away, which are most of the library."""
    script = """
import sys
def refuse(event, arguments):
    if event in {"open", "os.listdir", "os.scandir"} and "botocore/data" in str(arguments[0]):
        raise FileNotFoundError(arguments[0])
sys.addaudithook(refuse)
from deployments.sources import s3
print("Signature=" in s3.signed_headers("https://s3.amazonaws.com/", s3.Access("", "", "a", "b"))["Authorization"])
"""
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert told.stdout.strip() == "True", told.stderr


def test_a_bucket_of_another_region_is_asked_again_there():
    asked: list[str] = []

    def ask(url: str, *, headers: dict[str, str] | None = None, method: str = "GET") -> Reply:
        asked.append((headers or {})["Authorization"])
        return Reply(301, headers={"x-amz-bucket-region": "eu-west-1"}) if len(asked) == 1 else Reply(404)

    found = s3.check("bucket", "m", ask, s3.Access("", "us-east-1", KEY_ID, SECRET))
    assert found.code is SourceCode.NOT_FOUND
    assert ["/us-east-1/" in asked[0], "/eu-west-1/" in asked[1]] == [True, True]
