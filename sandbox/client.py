"""A small asynchronous Kubernetes client: JSON in, JSON out, no generated models."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import yaml

log = logging.getLogger(__name__)

Obj = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
WATCH_SECONDS = 300
WATCH_SILENCE = 75.0  # the server sends a bookmark at least every minute
RETRY_FIRST, RETRY_MOST = 0.1, 5.0


class ApiError(Exception):
    """The server refused: `status` is the HTTP number, `reason` the Kubernetes word, `body` its Status object."""

    def __init__(self, status: int, reason: str, body: Obj) -> None:
        super().__init__(f"{status} {reason}: {body.get('message', '')}")
        self.status = status
        self.reason = reason
        self.body = body


def resource_path(api_version: str, plural: str, namespace: str | None = None, name: str | None = None) -> str:
    """Return the URL path of a collection or, with `name`, of one object."""
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{plural}" + (f"/{name}" if name else "")


class Client:
    """One connection pool to one API server. Every call raises ApiError on an answer of 400 or more."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    @classmethod
    def from_kubeconfig(cls, path: str | Path) -> Client:
        """Read the current context: server, CA, and bearer token or client certificate."""
        url, headers, verify = _read_kubeconfig(Path(path))
        return cls.to(url, headers=headers, verify=verify)

    @classmethod
    def to(cls, url: str, *, headers: dict[str, str] | None = None, verify: ssl.SSLContext | bool = True) -> Client:
        """Connect to `url` with fixed headers."""
        return cls(
            httpx.AsyncClient(
                base_url=url,
                headers={"User-Agent": "slipway-sandbox"} | (headers or {}),
                verify=verify,
                timeout=httpx.Timeout(30.0, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
                trust_env=False,
            )
        )

    async def get(self, path: str, **params: Any) -> Obj:
        """Read one object."""
        return await self._call("GET", path, params=params)

    async def list(self, path: str, **params: Any) -> Obj:
        """Read a collection, with `metadata.resourceVersion` to watch from; each item says what it is."""
        listing = await self._call("GET", path, params=params)
        said = {"apiVersion": listing["apiVersion"], "kind": str(listing["kind"]).removesuffix("List")}
        listing["items"] = [said | item for item in listing["items"]]  # the server leaves it out for its own kinds
        return listing

    async def create(self, path: str, body: Obj, **params: Any) -> Obj:
        """POST `body` to a collection."""
        return await self._call("POST", path, body, params=params)

    async def update(self, path: str, body: Obj, **params: Any) -> Obj:
        """PUT `body`; 409 when its resourceVersion is not the newest."""
        return await self._call("PUT", path, body, params=params)

    async def patch(self, path: str, body: Obj, **params: Any) -> Obj:
        """Merge `body` into the object (RFC 7386)."""
        return await self._call("PATCH", path, body, params=params, content_type=MERGE_PATCH)

    async def json_patch(self, path: str, operations: Sequence[Obj], **params: Any) -> Obj:
        """Apply RFC 6902 operations; 422 when a `test` fails."""
        return await self._call("PATCH", path, operations, params=params, content_type=JSON_PATCH)

    async def apply(self, path: str, body: Obj, *, manager: str, force: bool = True) -> Obj:
        """Server-side apply `body` as `manager`; without `force` a foreign field answers 409."""
        params = {"fieldManager": manager, "force": force}
        return await self._call("PATCH", path, body, params=params, content_type=APPLY_PATCH)

    async def patch_status(self, path: str, body: Obj) -> Obj:
        """Merge `body` (`{"status": ...}`) into the status of the object."""
        return await self._call("PATCH", f"{path}/status", body, content_type=MERGE_PATCH)

    async def delete(self, path: str, body: Obj | None = None, **params: Any) -> Obj:
        """Delete one object or, on a collection path, all of it; `body` is DeleteOptions."""
        return await self._call("DELETE", path, body, params=params)

    async def watch(self, path: str, resource_version: str, **params: Any) -> AsyncIterator[Obj]:
        """Yield `{"type", "object"}` until the server ends the stream; ApiError 410 when `resource_version` is too old.

        Bookmarks are yielded too: they carry a newer resourceVersion. A stream silent for 75 s raises
        httpx.ReadTimeout.
        """
        own = {"watch": True, "allowWatchBookmarks": True, "timeoutSeconds": WATCH_SECONDS}
        query = _query(own | {"resourceVersion": resource_version} | params)
        timeout = httpx.Timeout(30.0, read=WATCH_SILENCE, pool=None)
        async with self.http.stream("GET", path, params=query, timeout=timeout) as answer:
            if answer.status_code >= 400:
                await answer.aread()
                raise _error(answer)
            async for line in answer.aiter_lines():
                if not line:
                    continue
                event: Obj = orjson.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(int(status.get("code", 500)), str(status.get("reason", "")), status)
                yield event

    async def close(self) -> None:
        """Close every connection."""
        await self.http.aclose()

    async def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: dict[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Obj:
        answer = await self.http.request(
            method,
            path,
            params=_query(params or {}),
            content=None if body is None else orjson.dumps(body),
            headers={"Content-Type": content_type, "Accept": "application/json"},
        )
        if answer.status_code >= 400:
            raise _error(answer)
        result: Obj = orjson.loads(answer.content)
        return result


class Reflector:
    """Keeps `store` equal to one collection: list, then watch, and again after any break.

    `on_change(type, object)` is called for each ADDED, MODIFIED and DELETED, those found by a relist
    included. `synced` is set after the first list.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        on_change: Callable[[str, Obj], None] | None = None,
        **params: Any,
    ) -> None:
        self.client = client
        self.path = path
        self.params = params
        self.on_change = on_change
        self.store: dict[tuple[str, str], Obj] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        pause = RETRY_FIRST
        while True:
            started = time.monotonic()
            try:
                await self._follow(await self._relist())
            except ApiError as error:
                if error.status != 410:
                    log.warning("watching %s: %s", self.path, error)
            except (httpx.HTTPError, orjson.JSONDecodeError) as error:
                log.info("watching %s: %s", self.path, error or type(error).__name__)
            if time.monotonic() - started > RETRY_MOST:
                pause = RETRY_FIRST
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_MOST)

    async def _relist(self) -> str:
        listing = await self.client.list(self.path, **self.params)
        fresh = {_key(item): item for item in listing["items"]}
        for key in self.store.keys() - fresh.keys():
            self._emit("DELETED", self.store[key])
        for key, item in fresh.items():
            known = self.store.get(key)
            if known is None or known["metadata"]["uid"] != item["metadata"]["uid"]:
                if known is not None:
                    self._emit("DELETED", known)
                self._emit("ADDED", item)
            elif known["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._emit("MODIFIED", item)
        self.synced.set()
        return str(listing["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> None:
        """Watch from `version`, and from where that stream ended, until one fails."""
        while True:
            async for event in self.client.watch(self.path, version, **self.params):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._emit(event["type"], event["object"])

    def _emit(self, kind: str, item: Obj) -> None:
        if kind == "DELETED":
            self.store.pop(_key(item), None)
        else:
            self.store[_key(item)] = item
        if self.on_change is not None:
            self.on_change(kind, item)


def _key(item: Obj) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _query(params: dict[str, Any]) -> dict[str, str]:
    """Spell booleans as Kubernetes does and leave out what is None."""
    return {
        key: ("true" if value else "false") if isinstance(value, bool) else str(value)
        for key, value in params.items()
        if value is not None
    }


def _error(answer: httpx.Response) -> ApiError:
    try:
        body = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        body = {"message": answer.text[:500]}
    if not isinstance(body, dict):
        body = {"message": str(body)[:500]}
    return ApiError(answer.status_code, str(body.get("reason", answer.reason_phrase)), body)


def _read_kubeconfig(path: Path) -> tuple[str, dict[str, str], ssl.SSLContext | bool]:
    config = yaml.safe_load(path.read_text())
    named = {kind: {entry["name"]: entry for entry in config[kind]} for kind in ("contexts", "clusters", "users")}
    context = named["contexts"][config["current-context"]]["context"]
    cluster = named["clusters"][context["cluster"]]["cluster"]
    user = named["users"][context["user"]].get("user") or {}
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    if not cluster["server"].startswith("https"):
        return cluster["server"], headers, False
    return cluster["server"], headers, _tls(cluster, user, path.parent)


def _tls(cluster: Obj, user: Obj, base: Path) -> ssl.SSLContext:
    def pem(entry: Obj, key: str) -> bytes | None:
        if f"{key}-data" in entry:
            return base64.b64decode(entry[f"{key}-data"])
        return (base / entry[key]).read_bytes() if key in entry else None

    authority = pem(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = pem(user, "client-certificate"), pem(user, "client-key")
    if certificate and key:
        with tempfile.NamedTemporaryFile(suffix=".pem") as both:
            both.write(certificate + b"\n" + key)
            both.flush()
            context.load_cert_chain(both.name)
    return context
