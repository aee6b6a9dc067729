"""Logs of containers, for a process that lives in an event loop: the end of one, or its lines as they are written."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson

from deployments.kube.account import NoAccountError, configuration_of
from deployments.kube.errors import ClusterError, answer_error, transport_error
from deployments.kube.kinds import kind_of

CALL = httpx.Timeout(10.0, connect=2.0)
# A quiet engine writes nothing for hours; only a dead connection ends a follow.
FOLLOW = httpx.Timeout(None, connect=2.0)
MOST_BYTES = 4 * 1024 * 1024
LONGEST_LINE = 64 * 1024
POD = kind_of("v1", "Pod")


class LogSource:
    """Reads logs as one account that may `get` pods/log and nothing else. Raises ClusterError."""

    def __init__(self, kubeconfig: str | Path) -> None:
        # "": the account of the pod this runs in.
        self._kubeconfig = kubeconfig
        self._client: httpx.AsyncClient | None = None
        self._lock = asyncio.Lock()

    async def tail(self, namespace: str, pod: str, container: str, *, previous: bool, lines: int) -> str:
        """The last lines of a container's log, at most 4 MiB of them; of the run before with `previous`."""
        params = {"container": container, "tailLines": str(lines), "limitBytes": str(MOST_BYTES)}
        if previous:
            params["previous"] = "true"
        try:
            answer = await self._send(_path(namespace, pod), params, CALL)
            async with _closing(answer):
                raw = await answer.aread()
        except httpx.HTTPError as error:
            raise _broken(error) from error
        return raw.decode(errors="replace")

    async def follow(self, namespace: str, pod: str, container: str, *, lines: int) -> AsyncIterator[str]:
        """The last `lines`, then each line as it is written, until the container ends."""
        params = {"container": container, "tailLines": str(lines), "follow": "true"}
        try:
            answer = await self._send(_path(namespace, pod), params, FOLLOW)
            async with _closing(answer):
                async for line in _lines(answer):
                    yield line
        except httpx.HTTPError as error:
            raise _broken(error) from error

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _send(self, path: str, params: dict[str, str], timeout: httpx.Timeout) -> httpx.Response:
        """Open a stream; after 401 once more with the token as it is in the file now."""
        for fresh in (False, True):
            client = await self._connected(fresh=fresh)
            answer = await client.send(client.build_request("GET", path, params=params, timeout=timeout), stream=True)
            if answer.status_code == 401 and not fresh:
                await answer.aclose()
                continue
            if answer.status_code >= 400:
                async with _closing(answer):
                    raise answer_error(
                        answer.status_code, _status(await answer.aread()), mutating=False, retry_after=None
                    )
            return answer
        raise AssertionError("unreachable")

    async def _connected(self, *, fresh: bool) -> httpx.AsyncClient:
        async with self._lock:
            if fresh:
                # Streams of the client before go on with the connection they have.
                self._client = None
            if self._client is None:
                try:
                    self._client = await asyncio.to_thread(_client_of, self._kubeconfig)
                except NoAccountError as error:
                    raise transport_error("unreachable", str(error), mutating=False) from error
            return self._client


class _closing:
    """Close a streamed answer however its block ends."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await self._answer.aclose()


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """Split a stream at newlines; a line without end is handed on in pieces."""
    rest = b""
    async for chunk in answer.aiter_bytes():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
        if len(rest) > LONGEST_LINE:
            yield rest.decode(errors="replace")
            rest = b""
    if rest:
        yield rest.decode(errors="replace")


def _path(namespace: str, pod: str) -> str:
    return POD.path(namespace, pod) + "/log"


def _client_of(kubeconfig: str | Path) -> httpx.AsyncClient:
    configuration = configuration_of(kubeconfig)
    token = (configuration.auth_settings().get("BearerToken") or {}).get("value")
    return httpx.AsyncClient(
        base_url=configuration.host,
        headers={"Authorization": token} if token else {},
        verify=_tls(configuration),
        timeout=CALL,
        trust_env=False,
    )


def _tls(configuration: Any) -> ssl.SSLContext | bool:
    if not str(configuration.host).startswith("https"):
        return True
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _status(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _broken(error: httpx.HTTPError) -> ClusterError:
    code = "timeout" if isinstance(error, httpx.TimeoutException) else "unreachable"
    return transport_error(code, f"The API server cannot be reached: {error}", mutating=False)
