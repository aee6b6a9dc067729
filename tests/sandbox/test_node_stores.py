"""What the storage initializer of the sandbox reads of buckets and web servers, and its words when it cannot."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest

from sandbox.engine import shape
from sandbox.engine.boot import ModelFiles
from sandbox.hub import catalog
from sandbox.node import stores
from sandbox.node.claims import Claims
from sandbox.node.stores import StoreError, Stores

CONFIG = catalog.load()["HuggingFaceTB/SmolLM2-135M-Instruct"].config
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": "http://store.example:9000"}
LISTING = (
    "<ListBucketResult><Contents><Key>m/config.json</Key><Size>9</Size></Contents>"
    "<Contents><Key>m/model.safetensors</Key><Size>77</Size></Contents>"
    "<Contents><Key>m/empty</Key><Size>0</Size></Contents></ListBucketResult>"
)


def read(
    source: str, answer: Callable[[httpx.Request], httpx.Response], environment: Mapping[str, str] | None = None
) -> ModelFiles:
    async def main() -> ModelFiles:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            return await Stores(http, lambda line: None).read(source, environment or {})

    return asyncio.run(main())


def bucket(request: httpx.Request) -> httpx.Response:
    if request.method == "HEAD":
        return httpx.Response(200)
    if "list-type" in str(request.url):
        return httpx.Response(200, text=LISTING)
    return httpx.Response(200, json=CONFIG)


def test_a_folder_of_a_bucket():
    found = read("s3://weights/m/", bucket, KEYS)
    assert found.files == {"config.json": 9, "model.safetensors": 77}
    assert shape.read(found.config, found.files).weight_bytes == 77


def test_requests_are_signed_unless_it_asks_as_anybody():
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return bucket(request)

    read("s3://weights/m/", answer, KEYS)
    assert all(text and text.startswith("AWS4-HMAC-SHA256 Credential=a/") for text in seen)
    seen.clear()
    read("s3://weights//m/", answer, {**KEYS, "awsAnonymousCredential": "true"})
    assert set(seen) == {None}


@pytest.mark.parametrize(
    ("status", "environment", "says"),
    [
        (200, {}, "RuntimeError: S3 authentication failed. Set AWS_ACCESS_KEY_ID"),
        (404, KEYS, "RuntimeError: S3 resource 'weights' not found."),
        (403, KEYS, "RuntimeError: S3 error [403]: Forbidden"),
    ],
)
def test_a_bucket_that_does_not_open_says_so_as_kserve_does(status: int, environment: dict[str, str], says: str):
    with pytest.raises(StoreError) as failure:
        read("s3://weights/m/", lambda _: httpx.Response(status), environment)
    assert str(failure.value).startswith(says)


def test_a_server_that_is_away_says_so_as_boto_does():
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(StoreError, match="EndpointConnectionError: Could not connect to the endpoint URL"):
        read("s3://weights/m/", away, KEYS)


def test_an_empty_folder_is_no_model():
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<ListBucketResult></ListBucketResult>")

    with pytest.raises(StoreError, match=r"No model found in m/\."):
        read("s3://weights/m/", answer, KEYS)


def test_a_folder_and_a_file_of_google():
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("alt") == "media":
            return httpx.Response(200, json=CONFIG)
        if request.url.params.get("prefix") == "m/":
            items = [{"name": "m/config.json", "size": "9"}, {"name": "m/model.safetensors", "size": "77"}]
            return httpx.Response(200, json={"items": items})
        return httpx.Response(200, json={"items": []} if "prefix" in request.url.params else {"size": "5"})

    assert read("gs://weights/m", answer).files == {"config.json": 9, "model.safetensors": 77}
    assert read("gs://weights/m/q.gguf", answer).files == {"q.gguf": 5}


def test_an_archive_is_looked_into():
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("config.json", json.dumps(CONFIG).encode()), ("model.safetensors", b"x" * 50)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    found = stores._unpacked("m.tar.gz", packed.getvalue())
    assert found.config["num_hidden_layers"] == CONFIG["num_hidden_layers"]
    assert found.files["model.safetensors"] == 50
    with pytest.raises(StoreError, match="Failed to unpack archive file"):
        stores._unpacked("m.tar", b"no archive at all")


def test_a_claim_keeps_what_was_written_for_every_node(tmp_path: Path):
    model = ModelFiles(CONFIG, {"model.safetensors": 7, "q.gguf": 8})
    Claims(tmp_path).write("team-a", "models", "/smol/", model)
    other = Claims(tmp_path)
    assert other.read("team-a", "models", "/smol") == model
    assert other.read("team-a", "models", "/smol/q.gguf") == model
    assert other.read("team-a", "models", "/") is None
    assert other.read("team-b", "models", "/smol") is None
