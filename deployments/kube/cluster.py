"""The one door to the cluster: raw JSON over the official client's connections, with a deadline on every call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import orjson
import urllib3
from kubernetes import client as official

from deployments.kube.account import configuration_of
from deployments.kube.errors import ClusterError, ErrorClass, answer_error, starting_error, transport_error
from deployments.kube.kinds import Kind, Ref, kind_of
from deployments.kube.ownership import ownership_patch
from deployments.labels import FIELD_MANAGER

Object = dict[str, Any]

CONNECT_SECONDS = 2.0
CALL_SECONDS = 10.0
LIST_SECONDS = 30.0
WATCH_SECONDS = 300
# The server sends a bookmark every minute; its own cache forgets after about 75 s.
WATCH_SILENCE = 70.0
PAGE = 500
MAX_ANSWER = 64 * 1024 * 1024
MAX_LOG = 256 * 1024
IDENTITY_SECONDS = 3.0
LOOK_SECONDS = 2.0
KUBE_SYSTEM = Ref("v1", "Namespace", "", "kube-system")
VERSION = "/version"
READY = "/readyz"  # 500 until every copy that an answer depends on is there, those of roles and bindings too
JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # the body is JSON, which is YAML without its traps
MUTATING = frozenset({"POST", "PATCH", "PUT", "DELETE"})


class _ListMeta(msgspec.Struct):
    token: str | None = msgspec.field(name="continue", default=None)


class _ListHead(msgspec.Struct):
    """Only where a list goes on: its items are skipped, not built."""

    metadata: _ListMeta


_HEAD = msgspec.json.Decoder(_ListHead)


class Cluster:
    """One cluster as one account. Every call raises ClusterError when it did not do what was asked."""

    def __init__(self, api: official.ApiClient, source: str | Path | None = None) -> None:
        # The longest any call may take unless it says otherwise, in seconds.
        self.call_seconds = CALL_SECONDS
        self._source = source
        self._lock = threading.Lock()
        self._identity: tuple[float, str] | None = None
        self._use(api)

    @classmethod
    def from_kubeconfig(cls, path: str | Path) -> Cluster:
        """Connect as the current context of a kubeconfig says or, where the path is "", as the pod's own account.

        Raises NoAccountError when neither can be read.
        """
        return cls(_api_of(path), path)

    def _use(self, api: official.ApiClient) -> None:
        self._api = api
        self._host = str(api.configuration.host).rstrip("/")
        self._pool: urllib3.PoolManager = api.rest_client.pool_manager
        # Another kubeconfig may lead to another cluster.
        self._identity = None

    # Writes

    def create(self, obj: Mapping[str, Any], *, timeout: float | None = None) -> Object:
        """POST a new object; class *taken* when something already has its name."""
        ref = Ref.of(obj)
        path = kind_of(ref.api_version, ref.kind).path(ref.namespace)
        params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return self._json("POST", path, params=params, body=obj, timeout=timeout)

    def apply(self, obj: Mapping[str, Any], uid: str, *, version: str = "", timeout: float | None = None) -> Object:
        """Server-side apply to exactly the object with `uid`; class *conflict* when it is newer than `version`.

        The uid keeps this from adopting a stranger and from re-creating what is gone.
        """
        metadata = {**obj["metadata"], "uid": uid}
        if version:
            metadata["resourceVersion"] = version
        params = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        body = {**obj, "metadata": metadata}
        return self._json("PATCH", Ref.of(obj).path, params=params, body=body, kind=APPLY_PATCH, timeout=timeout)

    def rewrite_ownership(self, ref: Ref, live: Mapping[str, Any], *, timeout: float | None = None) -> Object:
        """Turn our managed fields of `live` from Update to Apply, so that fields we drop later really go.

        Class *conflict* when the object has changed since it was read.
        """
        patch = ownership_patch(live)
        if not patch:
            return dict(live)
        params = {"fieldManager": FIELD_MANAGER}
        try:
            return self._json("PATCH", ref.path, params=params, body=patch, kind=JSON_PATCH, timeout=timeout)
        except ClusterError as error:
            if error.status in (409, 422):
                # The only thing that can fail in this patch is its test on the resourceVersion.
                raise ClusterError(ErrorClass.CONFLICT, "conflict", error.message, status=error.status) from error
            raise

    def delete(self, ref: Ref, uid: str, *, propagation: str = "Foreground", timeout: float | None = None) -> None:
        """Delete exactly the object with `uid`; class *gone* when that one is not there."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": propagation,
        }
        self._json("DELETE", ref.path, body=body, timeout=timeout)

    def discard(self, ref: Ref, *, timeout: float | None = None) -> None:
        """Delete whatever has a name that only we can have given, unseen; class *gone* when nothing has it."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        self._json("DELETE", ref.path, body=body, timeout=timeout)

    # Reads

    def read(self, ref: Ref, *, timeout: float | None = None) -> Object | None:
        """Return one object as it is now, or None when it is not there."""
        try:
            return self._json("GET", ref.path, timeout=timeout)
        except ClusterError as error:
            if error.kind is ErrorClass.GONE:
                return None
            raise

    def pages(
        self, kind: Kind, *, namespace: str = "", selector: str = "", timeout: float = LIST_SECONDS
    ) -> Iterator[bytes]:
        """Yield a complete list as raw pages of 500; class *expired* when it has to begin again."""
        params = {"limit": str(PAGE), "labelSelector": selector}
        token = ""
        while True:
            query = {**params, "continue": token}
            raw = self._raw("GET", kind.path(namespace), params=query, timeout=timeout)
            yield raw
            token = _continue_token(raw)
            if not token:
                return

    def list_all(
        self,
        kind: Kind,
        *,
        namespace: str = "",
        selector: str = "",
        timeout: float = LIST_SECONDS,
        between: Callable[[], None] | None = None,
    ) -> list[Object]:
        """Return a complete list; an incomplete one raises. `timeout` is for a page, `between` is called after each."""
        items: list[Object] = []
        for raw in self.pages(kind, namespace=namespace, selector=selector, timeout=timeout):
            if between is not None:
                between()
            page = _decode(raw, mutating=False)
            found = page.get("items")
            if not isinstance(found, list):
                raise transport_error("bad_answer", "The API server sent a list without items.", mutating=False)
            items += found
        return items

    def watch(
        self, kind: Kind, version: str, *, namespace: str = "", selector: str = "", seconds: int = WATCH_SECONDS
    ) -> WatchStream:
        """Open a watch from `version`; its lines end after `seconds`, and a silence of 70 s raises."""
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            "labelSelector": selector,
        }
        deadline = time.monotonic() + WATCH_SILENCE
        path = kind.path(namespace)
        return WatchStream(self._open("GET", path, params=params, deadline=deadline, silence=WATCH_SILENCE))

    def log(
        self,
        namespace: str,
        pod: str,
        *,
        container: str,
        previous: bool = False,
        tail: int = 200,
        timeout: float | None = None,
    ) -> str:
        """Return the last lines of a container's log, at most 256 KiB."""
        params = {"container": container, "tailLines": str(tail), "limitBytes": str(MAX_LOG)}
        if previous:
            params["previous"] = "true"
        path = kind_of("v1", "Pod").path(namespace, pod) + "/log"
        return self._raw("GET", path, params=params, timeout=timeout).decode(errors="replace")

    def version(self, *, timeout: float | None = None) -> str:
        """Return the server's version, as `v1.36.3`."""
        return str(self._json("GET", VERSION, timeout=timeout).get("gitVersion", ""))

    def identity(self) -> str:
        """Return the uid of kube-system, which no two clusters share, at most a few seconds old; "" without one."""
        known = self._identity
        if known is None or time.monotonic() - known[0] > IDENTITY_SECONDS:
            asked = time.monotonic()
            system = self.read(KUBE_SYSTEM)
            self._identity = known = (asked, str(system["metadata"]["uid"]) if system else "")
        return known[1]

    def groups(self, *, timeout: float | None = None) -> dict[str, list[str]]:
        """Return the API groups the server serves, with their versions."""
        found = self._json("GET", "/apis", timeout=timeout).get("groups") or []
        return {
            str(group.get("name")): [str(version.get("version")) for version in group.get("versions") or []]
            for group in found
        }

    def close(self) -> None:
        """Close every pooled connection."""
        self._pool.clear()

    # The wire

    def _json(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        kind: str = JSON,
    ) -> Object:
        raw = self._raw(method, path, params=params, body=body, kind=kind, timeout=timeout)
        return _decode(raw, mutating=method in MUTATING)

    def _raw(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        kind: str = JSON,
    ) -> bytes:
        timeout = self.call_seconds if timeout is None else timeout
        deadline = time.monotonic() + timeout
        answer = self._open(method, path, params=params, body=body, kind=kind, deadline=deadline)
        return _read(answer, deadline, mutating=method in MUTATING)

    def _open(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        silence: float | None = None,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        kind: str = JSON,
    ) -> urllib3.BaseHTTPResponse:
        """Send, once more with a fresh token after 401; an answer of 400 or more raises.

        All of it ends at `deadline`, or the call could outlive the lease under which it is made; only a stream that was
        opened stays, until it is silent for `silence` seconds.
        """
        answer = self._send(method, path, params=params, body=body, kind=kind, deadline=deadline, silence=silence)
        if answer.status == 401 and self._reload():
            answer.close()
            answer = self._send(method, path, params=params, body=body, kind=kind, deadline=deadline, silence=silence)
        if answer.status >= 400:
            error = self._failure(answer, deadline, mutating=method in MUTATING)
            raise starting_error() if error.code == "permission" and self._starts(path, deadline) else error
        return answer

    def _starts(self, path: str, deadline: float) -> bool:
        """Tell whether the server does not know all roles yet: what all may ask is refused, or it is not ready."""
        if path == VERSION:
            return True
        try:
            answer = self._send("GET", READY, deadline=min(deadline, time.monotonic() + LOOK_SECONDS), silence=None)
        except ClusterError:
            return False
        answer.close()
        return answer.status in (403, 500)

    def _send(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        silence: float | None,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        kind: str = JSON,
    ) -> urllib3.BaseHTTPResponse:
        left = deadline - time.monotonic()
        if left <= 0:
            # Nothing was sent.
            raise transport_error("timeout", "The API server did not answer in time.", mutating=False)
        query = {key: value for key, value in (params or {}).items() if value}
        mutating = method in MUTATING
        try:
            return self._pool.request(
                method,
                self._host + path + (f"?{urlencode(query)}" if query else ""),
                headers=self._headers(kind),
                body=None if body is None else orjson.dumps(body),
                timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, left), read=silence or left),
                preload_content=False,
                retries=False,
                redirect=False,
            )
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            # Nothing was sent: whatever was asked has not happened.
            raise transport_error(
                "unreachable", f"The API server cannot be reached: {error}", mutating=False
            ) from error
        except urllib3.exceptions.TimeoutError as error:
            raise transport_error("timeout", "The API server did not answer in time.", mutating=mutating) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            message = f"The connection to the API server broke: {error}"
            raise transport_error("unreachable", message, mutating=mutating) from error

    def _headers(self, kind: str) -> dict[str, str]:
        headers = {"Accept": JSON, "Content-Type": kind, "User-Agent": "slipway"}
        setting = self._api.configuration.auth_settings().get("BearerToken")
        if setting and setting.get("value"):
            headers["Authorization"] = str(setting["value"])
        return headers

    def _failure(self, answer: urllib3.BaseHTTPResponse, deadline: float, *, mutating: bool) -> ClusterError:
        body: Any = None
        try:
            body = orjson.loads(_read(answer, deadline, mutating=mutating))
        except (ClusterError, orjson.JSONDecodeError):
            body = None  # an HTML page of a proxy, or nothing: the number has to do
        wait = answer.headers.get("Retry-After", "")
        retry_after = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else None
        status_object = body if isinstance(body, dict) else {}
        return answer_error(answer.status, status_object, mutating=mutating, retry_after=retry_after)

    def _reload(self) -> bool:
        """Read kubeconfig or account again: mounted tokens are rotated. False when there is none to read."""
        if self._source is None:
            return False
        with self._lock:
            self._use(_api_of(self._source))
        return True


class WatchStream:
    """The lines of one watch. `abort` ends them from another thread."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        """Yield one event per line until the server ends the stream; ClusterError when it breaks or falls silent."""
        rest = b""
        try:
            for chunk in self._answer.stream(64 * 1024):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line for line in lines if line)
        except urllib3.exceptions.TimeoutError as error:
            raise transport_error("silent", "The watch fell silent.", mutating=False) from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise transport_error("unreachable", f"The watch broke: {error}", mutating=False) from error
        finally:
            self._answer.close()

    def abort(self) -> None:
        """Stop the stream; whoever reads it sees its end."""
        try:
            self._answer.shutdown()
        except (ValueError, OSError, RuntimeError):
            self._answer.close()


def _api_of(source: str | Path) -> official.ApiClient:
    configuration = configuration_of(source)
    configuration.connection_pool_maxsize = 32
    return official.ApiClient(configuration)


def _read(answer: urllib3.BaseHTTPResponse, deadline: float, *, mutating: bool) -> bytes:
    """Read a whole answer before the deadline, however slowly its bytes drip."""
    parts: list[bytes] = []
    size = 0
    try:
        # What has come, however little: waiting for a full block would let a dripping answer go on for ever.
        while chunk := answer.read1(256 * 1024):
            parts.append(chunk)
            size += len(chunk)
            if time.monotonic() > deadline or size > MAX_ANSWER:
                raise transport_error("timeout", "The API server's answer took too long.", mutating=mutating)
    except urllib3.exceptions.TimeoutError as error:
        raise transport_error("timeout", "The API server did not answer in time.", mutating=mutating) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise transport_error("unreachable", f"The answer broke off: {error}", mutating=mutating) from error
    finally:
        if not answer.closed and time.monotonic() > deadline:
            answer.close()
    return b"".join(parts)


def _decode(raw: bytes, *, mutating: bool) -> Object:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise transport_error("bad_answer", "The API server's answer is not JSON.", mutating=mutating) from error
    if not isinstance(value, dict):
        raise transport_error("bad_answer", "The API server's answer is not an object.", mutating=mutating)
    return value


def _continue_token(raw: bytes) -> str:
    try:
        return _HEAD.decode(raw).metadata.token or ""
    except msgspec.MsgspecError as error:
        raise transport_error("bad_answer", "The API server's list cannot be read.", mutating=False) from error
