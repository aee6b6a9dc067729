"""Buckets and web servers as KServe's storage initializer reads them: real requests, with its words when they fail.

Of a model's files the listing, `config.json` and the beginning are read; the bytes of weights are only counted. What
does not lie in such a place is told by the size that the server gives.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from html import unescape
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from sandbox.engine.boot import ModelFiles
from sandbox.engine.gguf import config_of

AMAZON = "https://s3.{region}.amazonaws.com"
GOOGLE = "https://storage.googleapis.com"
SECONDS = 15.0
MOST_ARCHIVE = 64 * 2**20  # bytes of an archive that are fetched, to look into it
GGUF_HEAD = 64 * 1024
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_OBJECT = re.compile(rb"<Contents>(.*?)</Contents>", re.DOTALL)
_KEY, _SIZE = re.compile(rb"<Key>([^<]+)</Key>"), re.compile(rb"<Size>(\d+)</Size>")
_CODE, _MESSAGE = re.compile(rb"<Code>([^<]+)</Code>"), re.compile(rb"<Message>([^<]*)</Message>")


class StoreError(Exception):
    """What KServe's loader raises; the text is the exception's class and message."""


class Stores:
    """Reads places that are no hub. `say` takes a line of the loader's log, `google` is where buckets of gs:// are."""

    def __init__(self, http: httpx.AsyncClient, say: Callable[[str], None], google: str = GOOGLE) -> None:
        self.http = http
        self.say = say
        self.google = google

    async def read(self, source: str, environment: Mapping[str, str]) -> ModelFiles:
        """What lies at a source; StoreError."""
        try:
            if source.startswith("s3://"):
                return await self._s3(source, environment)
            if source.startswith("gs://"):
                return await self._gs(source)
            return await self._download(source)
        except httpx.HTTPError as error:
            raise StoreError(_unreachable(source, environment, error)) from error

    async def _s3(self, source: str, environment: Mapping[str, str]) -> ModelFiles:
        parts = urlsplit(source)
        bucket, prefix = parts.netloc, parts.path.lstrip("/")
        anybody = environment.get("awsAnonymousCredential", "").lower() == "true"
        if not anybody and not environment.get("AWS_ACCESS_KEY_ID"):
            raise StoreError(
                "RuntimeError: S3 authentication failed. Set AWS_ACCESS_KEY_ID/AWS_SECRET_ACCESS_KEY or use "
                "awsAnonymousCredential=true."
            )
        keys = {} if anybody else environment
        head = await self._signed(f"{_endpoint(environment)}/{bucket}", keys, environment, method="HEAD")
        if head.status_code == 404:
            raise StoreError(f"RuntimeError: S3 resource '{bucket}' not found.")
        if head.status_code >= 300:  # an answer without a body, of which boto3 knows the number alone
            raise StoreError(f"RuntimeError: S3 error [{head.status_code}]: {head.reason_phrase}")
        query = f"list-type=2&prefix={quote(prefix, safe='')}"
        answer = await self._signed(f"{_endpoint(environment)}/{bucket}?{query}", keys, environment)
        if answer.status_code != 200:
            raise StoreError(_s3_words(answer, bucket))
        sizes: dict[str, int] = {}
        for key, size in _objects(answer.content):
            if key.endswith("/") or size == 0:
                continue
            self.say(f"Found S3 object: {key} ({size} bytes)")
            if key == prefix:
                sizes = {key.rpartition("/")[2]: size}
                break
            sizes[key.removeprefix(prefix).lstrip("/")] = size
        if not sizes:
            raise StoreError(f"RuntimeError: Failed to fetch model. No model found in {prefix}.")
        single = prefix.rpartition("/")[2] in sizes
        base = prefix.rpartition("/")[0] if single else prefix.rstrip("/")

        async def get(name: str, first: int | None) -> httpx.Response:
            url = f"{_endpoint(environment)}/{bucket}/{quote(f'{base}/{name}' if base else name)}"
            return await self._signed(url, keys, environment, first)

        return await self._made(sizes, get)

    async def _gs(self, source: str) -> ModelFiles:
        bucket, _, path = source.removeprefix("gs://").partition("/")
        base = f"{self.google}/storage/v1/b/{quote(bucket, safe='')}/o"
        prefix = path if path.endswith("/") else f"{path}/"
        answer = await self.http.get(f"{base}?prefix={quote(prefix, safe='')}", timeout=SECONDS)
        if answer.status_code == 404:
            raise StoreError(f"RuntimeError: GCS resource '{bucket}' not found.")
        if answer.status_code >= 400:
            raise StoreError(f"RuntimeError: Access denied to GCS resource '{bucket}'. Verify permissions.")
        items = answer.json().get("items") or []
        sizes = {item["name"].removeprefix(prefix): int(item["size"]) for item in items}
        folder = prefix.rstrip("/")
        if not sizes:
            alone = await self.http.get(f"{base}/{quote(path, safe='')}", timeout=SECONDS)
            if alone.status_code != 200:
                raise StoreError(f"RuntimeError: GCS resource '{bucket}' not found.")
            sizes, folder = {path.rpartition("/")[2]: int(alone.json()["size"])}, path.rpartition("/")[0]
        for name in sizes:
            self.say(f"Downloading: {name}")

        async def get(name: str, first: int | None) -> httpx.Response:
            url = f"{base}/{quote(f'{folder}/{name}' if folder else name, safe='')}?alt=media"
            return await self.http.get(url, headers=_part(first), timeout=SECONDS)

        return await self._made({name: size for name, size in sizes.items() if name}, get)

    async def _download(self, source: str) -> ModelFiles:
        name = urlsplit(source).path.rpartition("/")[2]
        packed = name.endswith(ARCHIVES)
        async with (
            # The agent's own connections may go without certificates; those to anybody's server do not.
            httpx.AsyncClient(trust_env=False, verify=source.startswith("https")) as http,
            http.stream("GET", source, timeout=SECONDS, follow_redirects=True) as answer,
        ):
            if answer.status_code != 200:
                raise StoreError(_http_words(source, answer.status_code))
            kind = answer.headers.get("content-type", "")
            if not packed and not kind.startswith("application/octet-stream"):
                raise StoreError(
                    f"RuntimeError: URI: {source} did not respond with 'Content-Type': 'application/octet-stream'"
                )
            size, most = int(answer.headers.get("content-length") or 0), MOST_ARCHIVE if packed else GGUF_HEAD
            content = b""
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) >= most:
                    break
        if packed:
            self.say(f"Unpacking: /mnt/models/{name}")
            return _unpacked(name, content)
        return ModelFiles(config_of(content) or {}, {name: size or len(content)})

    async def _made(self, sizes: Mapping[str, int], get: Callable[[str, int | None], Any]) -> ModelFiles:
        """A model of files that were listed; a single archive is looked into."""
        if len(sizes) == 1 and (only := next(iter(sizes))).endswith(ARCHIVES):
            self.say(f"Unpacking: /mnt/models/{only}")
            return _unpacked(only, (await get(only, MOST_ARCHIVE)).content)
        config: dict[str, Any] = {}
        if "config.json" in sizes:
            answer = await get("config.json", None)
            if answer.status_code != 200:
                raise StoreError(f"RuntimeError: Failed to download 1 files: config.json: {answer.status_code}")
            config = _json(answer.content)
        elif found := [name for name in sizes if name.endswith(".gguf")]:
            config = config_of((await get(found[0], GGUF_HEAD)).content) or {}
        for name in sizes:
            self.say(f"Downloaded object {name}")
        return ModelFiles(config, dict(sizes))

    async def _signed(
        self,
        url: str,
        keys: Mapping[str, str],
        environment: Mapping[str, str],
        first: int | None = None,
        method: str = "GET",
    ) -> httpx.Response:
        region = environment.get("AWS_DEFAULT_REGION") or "us-east-1"
        # Not on the loop: the first time it imports, and engines answer meanwhile.
        signed = await asyncio.to_thread(_signature, method, url, keys, region)
        headers = {**signed, **_part(first)}
        return await self.http.request(method, url, headers=headers, timeout=SECONDS)


def _endpoint(environment: Mapping[str, str]) -> str:
    region = environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    return (environment.get("AWS_ENDPOINT_URL") or AMAZON.format(region=region)).rstrip("/")


def _signature(method: str, url: str, keys: Mapping[str, str], region: str) -> dict[str, str]:
    """The headers of a request as AWS Signature Version 4 says; none for anybody."""
    key_id, secret = keys.get("AWS_ACCESS_KEY_ID"), keys.get("AWS_SECRET_ACCESS_KEY", "")
    if not key_id:
        return {}
    # Only where there are keys: few sandboxes have a bucket, and to import this takes a moment.
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import ReadOnlyCredentials

    request = AWSRequest(method, url)
    S3SigV4Auth(ReadOnlyCredentials(key_id, secret, None), "s3", region).add_auth(request)
    return dict(request.headers.items())


def _part(first: int | None) -> dict[str, str]:
    return {"Range": f"bytes=0-{first - 1}"} if first else {}


def _objects(body: bytes) -> list[tuple[str, int]]:
    found = []
    for match in _OBJECT.finditer(body):
        key, size = _KEY.search(match[1]), _SIZE.search(match[1])
        if key and size:
            found.append((unescape(key[1].decode()), int(size[1])))
    return found


def _s3_words(answer: httpx.Response, bucket: str) -> str:
    """What `raise_storage_error` of KServe makes of boto3's complaint about a listing."""
    code, message = _CODE.search(answer.content), _MESSAGE.search(answer.content)
    name = code[1].decode() if code else str(answer.status_code)
    if name == "AccessDenied":
        return f"RuntimeError: Access denied to S3 resource '{bucket}'. Verify permissions."
    if name in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return "RuntimeError: Invalid AWS credentials. Verify AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    return f"RuntimeError: S3 error [{name}]: {message[1].decode() if message else ''}"


def _http_words(source: str, status: int) -> str:
    """What `check_http_response` of KServe says."""
    words = {
        401: "HTTP authentication failed for '{}'. Verify credentials.",
        403: "HTTP access denied for '{}'. Verify permissions.",
        404: "HTTP resource not found at '{}'.",
    }
    said = words.get(status, f"HTTP request to '{{}}' failed with status code {status}.")
    return f"RuntimeError: {said.format(source)}"


def _unreachable(source: str, environment: Mapping[str, str], error: Exception) -> str:
    if source.startswith("s3://"):
        url = f"{_endpoint(environment)}/{urlsplit(source).netloc}"
        return f'botocore.exceptions.EndpointConnectionError: Could not connect to the endpoint URL: "{url}"'
    host = urlsplit(source).hostname
    protocol = "GCS" if source.startswith("gs://") else "HTTP"
    return f"RuntimeError: Failed to connect to {protocol} endpoint '{host}'. ({type(error).__name__})"


def _unpacked(name: str, content: bytes) -> ModelFiles:
    """The files at the top of an archive, as it would be unpacked beside itself."""
    sizes: dict[str, int] = {}
    config: dict[str, Any] = {}
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                sizes = {item.filename.removeprefix("./"): item.file_size for item in archive.infolist()}
                if "config.json" in sizes:
                    config = _json(archive.read("config.json"))
        else:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive_:
                for item in archive_:
                    inner = item.name.removeprefix("./")
                    sizes[inner] = item.size
                    if inner == "config.json" and (file := archive_.extractfile(item)) is not None:
                        config = _json(file.read())
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise StoreError("RuntimeError: Failed to unpack archive file. The file format is not valid.") from error
    return ModelFiles(config, {inner: size for inner, size in sizes.items() if not inner.endswith("/")})


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
