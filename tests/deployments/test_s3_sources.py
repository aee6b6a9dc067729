"""Buckets of a real S3 server: what lies there, told apart by who asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.services import credential_trials, credentials, source_checks
from deployments.services.errors import InvalidError
from deployments.services.sealing import Opened
from deployments.services.source_checks import Keys
from deployments.sources import SourceCheck, SourceCode, parse, s3
from tests import servers
from tests.deployments import factories as make
from tests.deployments.sealing_keys import use_keys
from tests.deployments.test_source_formats import CONFIG, LLAMA

BUCKET = "weights"
CHAT = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"x" * 2048, "tokenizer.json": b"{}"}


@pytest.fixture(scope="module")
def server() -> Iterator[servers.S3]:
    with servers.s3() as running:
        running.put(BUCKET, {f"models/chat/{name}": content for name, content in CHAT.items()})
        running.put(BUCKET, {"models/chat-2/config.json": b"{}", "models/chat/notes/": b"", "models/q.gguf": LLAMA})
        running.put(BUCKET, {"flavour/MLmodel": b"x", "flavour/model/config.json": b"{}", "odd/a b&c/x": b"1"})
        yield running


@pytest.fixture(autouse=True)
def stores(server: servers.S3, settings: Any) -> None:
    settings.OBJECT_STORES = [server.url]
    use_keys(settings)


@pytest.fixture(scope="module")
def keys(server: servers.S3) -> dict[str, str]:
    """Keys of somebody who may read the bucket."""
    rights = {"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}
    return server.user("reader", rights)


@pytest.fixture(scope="module")
def others(server: servers.S3) -> dict[str, str]:
    """Keys of somebody who may read nothing of it."""
    return server.user("stranger", {"Effect": "Allow", "Action": ["sqs:*"], "Resource": "*"})


def access(server: servers.S3, keys: dict[str, str], **changes: str) -> s3.Access:
    known = {"key_id": keys["access_key_id"], "secret": keys["secret_access_key"], **changes}
    return s3.Access(endpoint=server.url, region="us-east-1", **known)


def looked_up(path: str, door: s3.Access) -> SourceCheck:
    found = source_checks.check(parse(f"s3://{path}"), keys=Keys(s3=door))
    assert found is not None
    return found


def test_a_folder_is_a_model(server: servers.S3, keys: dict[str, str]):
    found = looked_up(f"{BUCKET}/models/chat", access(server, keys))
    assert (found.code, found.loads) == (SourceCode.FOUND, f"s3://{BUCKET}/models/chat/")
    assert found.model is not None
    assert (found.model.layers, found.model.weights_bytes, found.model.format) == (30, 2048, "safetensors")


def test_a_file_is_a_model(server: servers.S3, keys: dict[str, str]):
    found = looked_up(f"{BUCKET}/models/q.gguf", access(server, keys))
    assert (found.code, found.loads) == (SourceCode.FOUND, f"s3://{BUCKET}/models/q.gguf")
    assert found.model is not None
    assert (found.model.layers, found.model.file) == (30, "q.gguf")


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("weights/models/none", SourceCode.NOT_FOUND, "Nothing lies under"),
        ("nobodys-bucket/m", SourceCode.NOT_FOUND, "no bucket"),
        ("weights/models/chat-2", SourceCode.UNUSABLE, "no weights"),
        ("weights/flavour", SourceCode.UNUSABLE, "no weights"),
    ],
)
def test_what_is_not_there_says_so(server: servers.S3, keys: dict[str, str], path: str, code: SourceCode, says: str):
    found = looked_up(path, access(server, keys))
    assert (found.code, says in found.message) == (code, True)


def test_a_folder_that_holds_the_model_deeper_is_named(server: servers.S3, keys: dict[str, str]):
    assert looked_up(f"{BUCKET}/flavour", access(server, keys)).remedy.endswith(f"s3://{BUCKET}/flavour/model")


def test_who_may_not_is_told_from_who_is_not_known(server: servers.S3, keys: dict[str, str], others: dict[str, str]):
    path = f"{BUCKET}/models/chat"
    assert looked_up(path, access(server, others)).code is SourceCode.GATED
    assert looked_up(path, access(server, keys, secret="wrong")).code is SourceCode.BAD_TOKEN
    assert looked_up(path, access(server, keys, key_id="AKIAUNKNOWN000000000")).code is SourceCode.BAD_TOKEN
    assert (
        looked_up(path, s3.Access(endpoint="http://127.0.0.1:9", key_id="k", secret="s")).code is SourceCode.UNREACHABLE
    )


def test_a_server_nobody_vouched_for_is_not_called(server: servers.S3, keys: dict[str, str], settings: Any):
    settings.OBJECT_STORES = []
    found = looked_up(f"{BUCKET}/models/chat", access(server, keys))
    assert found.code is SourceCode.UNREACHABLE
    assert "https" in found.message


def test_a_credential_is_tested_with_a_folder(server: servers.S3, keys: dict[str, str]):
    where = {"endpoint": server.url, "region": "us-east-1"}
    uri = f"s3://{BUCKET}/models/chat"
    found = credential_trials.try_out("s3", Opened(keys, where), uri)
    assert (found.code, found.model and found.model.layers) == (SourceCode.FOUND, 30)
    assert "they open weights/models/chat" in found.message
    assert (
        credential_trials.try_out("s3", Opened({**keys, "secret_access_key": "wrong"}, where), uri).code
        is SourceCode.BAD_TOKEN
    )


@pytest.mark.django_db
def test_keys_are_tested_with_buckets_alone(team, alice):
    lead = make.principal(alice)
    fields = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
    with pytest.raises(InvalidError, match="s3://"):
        credentials.create(principal=lead, team=team, name="s", kind="s3", fields=fields, test_uri="hf://a/b")
    made = credentials.create(principal=lead, team=team, name="s", kind="s3", fields=fields, test_uri="s3://bucket/m")
    assert made.versions.get().sealed.test_uri == "s3://bucket/m"
