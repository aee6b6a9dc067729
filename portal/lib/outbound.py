"""The one door for outbound HTTP besides Kubernetes and Prometheus: who may be called, where to, and for how long.

Two classes of origin. Those an operator configured match exactly and may be private. Those a user gave must be public:
the name is resolved once, every address is checked, and the connection goes to the checked address.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

import httpx
import orjson

from portal.lib.deadline import DeadlineTransport, resolve, tls
from portal.lib.hosts import is_public, why_not_public

# What a streamed answer is, and what tests put in place of the network: nobody else names the library behind this door.
Stream = httpx.Response
StreamTransport = httpx.AsyncBaseTransport

MAX_REDIRECTS = 3
MAX_BYTES = 4 * 1024 * 1024
SECONDS = 10.0
STREAM_SECONDS = 600.0
CONNECT_SECONDS = 3.0
RESOLVE_SECONDS = 2.0
# A server that is busy with our request still answers others; one that hangs answers nobody.
SIGN_OF_LIFE_SECONDS = 5.0
PORTS = {"http": 80, "https": 443}
# Carried to another origin these would hand our secrets to whoever a redirect names.
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


class OutboundError(Exception):
    """A call that was not made or did not succeed. `code`: forbidden, unreachable, timeout, too_large, bad_answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Answer:
    """What came back: the status, lower-case header names, the body, and the address that finally answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def json(self) -> Any:
        """The body as JSON; OutboundError *bad_answer* when it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise OutboundError("bad_answer", f"{_host(self.url)} did not answer with JSON.") from None


def get_json(
    url: str,
    *,
    operator_origins: Iterable[str] = (),
    redirect_hosts: Iterable[str] = (),
    headers: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
    transport: httpx.BaseTransport | None = None,
) -> tuple[int, Any]:
    """GET a document: its status, and its JSON (None where an error answer carries none)."""
    answer = request(
        "GET",
        url,
        operator_origins=operator_origins,
        redirect_hosts=redirect_hosts,
        headers=headers,
        seconds=seconds,
        transport=transport,
    )
    if answer.status < 400:
        return answer.status, answer.json()
    try:
        return answer.status, answer.json()
    except OutboundError:
        return answer.status, None


def request(
    method: str,
    url: str,
    *,
    operator_origins: Iterable[str] = (),
    redirect_hosts: Iterable[str] = (),
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    form: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
    max_bytes: int = MAX_BYTES,
    transport: httpx.BaseTransport | None = None,
) -> Answer:
    """Send one request, with a body of `json` or a `form`, and return its answer, whatever its status.

    Redirects are followed for GET and HEAD only, at most three, to the same origin or to `redirect_hosts` (exact names
    or `.suffix`), each checked like the first. `seconds` bounds the whole call.
    """
    trusted = frozenset(_origin(urlsplit(origin)) for origin in operator_origins)
    deadline = time.monotonic() + seconds
    # Uncompressed, so that the size cap counts what arrives and no small answer unpacks into a huge one.
    carried = {"accept-encoding": "identity"} | {name.lower(): value for name, value in (headers or {}).items()}
    content = None if json is None else orjson.dumps(json)
    if content is not None:
        carried["content-type"] = "application/json"
    elif form is not None:
        content, carried["content-type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
    first = _origin(_parsed(url))
    for _ in range(MAX_REDIRECTS + 1):
        answer = _once(method, url, trusted, carried, content, deadline, max_bytes, transport)
        location = answer.headers.get("location")
        if answer.status not in {301, 302, 303, 307, 308} or not location or method not in {"GET", "HEAD"}:
            return answer
        url = urljoin(url, location)
        target = _parsed(url)
        if _origin(target) != first:
            if not _allowed(target.hostname or "", redirect_hosts):
                raise OutboundError("forbidden", f"{_host(answer.url)} redirects to another host.")
            carried = {name: value for name, value in carried.items() if name not in SECRET_HEADERS}
    raise OutboundError("forbidden", f"{_host(url)} redirects more than {MAX_REDIRECTS} times.")


@asynccontextmanager
async def stream(
    method: str,
    url: str,
    *,
    operator_origin: str,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    idle_seconds: float = SECONDS,
    seconds: float = STREAM_SECONDS,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[httpx.Response]:
    """Open a streamed answer of an operator's server; no redirects. `idle_seconds` is the longest silence,
    `seconds` the longest wait for the answer to begin.

    While the answer has not begun, the server is asked now and then for a sign of life: one that hangs is *unreachable*
    within seconds, however long a queue in front of a model may be.
    """
    if _origin(_parsed(url)) != _origin(urlsplit(operator_origin)):
        raise OutboundError("forbidden", f"{_host(url)} is not the configured server.")
    timeout = httpx.Timeout(idle_seconds, connect=CONNECT_SECONDS)
    content = None if json is None else orjson.dumps(json)
    carried = {"accept-encoding": "identity"} | ({"content-type": "application/json"} if content is not None else {})
    async with httpx.AsyncClient(timeout=timeout, trust_env=False, verify=tls(), transport=transport) as client:
        request = client.build_request(method, url, headers={**carried, **(headers or {})}, content=content)
        try:
            answer = await _begun(client, request, time.monotonic() + seconds)
            try:
                _uncompressed(answer, url)
                yield answer
            finally:
                await answer.aclose()
        except httpx.TimeoutException:
            raise OutboundError("timeout", f"{_host(url)} did not answer in time.") from None
        except httpx.HTTPError as error:
            raise OutboundError("unreachable", f"{_host(url)} cannot be reached: {_short(error)}") from None


async def lines(
    answer: httpx.Response, *, longest: int, most: int, seconds: float = STREAM_SECONDS
) -> AsyncIterator[str]:
    """Lines of a streamed answer as they come, within `seconds` in all.

    OutboundError *too_large* for a line over `longest` bytes or an answer over `most`, *timeout* when time is up.
    """
    size, rest = 0, b""
    async for chunk in _chunks(answer, time.monotonic() + seconds):
        size += len(chunk)
        *whole, rest = (rest + chunk).split(b"\n")
        if size > most or len(rest) > longest or any(len(line) > longest for line in whole):
            raise OutboundError("too_large", f"{_host(str(answer.url))} answered with more than is read.")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


async def beginning(answer: httpx.Response, *, most: int, seconds: float = SECONDS) -> bytes:
    """At most the first `most` bytes of a streamed answer: what came within `seconds`."""
    found = b""
    try:
        async for chunk in _chunks(answer, time.monotonic() + seconds):
            found += chunk
            if len(found) >= most:
                break
    except OutboundError:
        return found[:most]
    return found[:most]


async def _chunks(answer: httpx.Response, deadline: float) -> AsyncIterator[bytes]:
    chunks = answer.aiter_bytes()
    while True:
        try:
            # A timeout around each wait: a block around a yield would cancel whichever task comes next.
            chunk = await asyncio.wait_for(anext(chunks, None), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise OutboundError("timeout", f"{_host(str(answer.url))} did not finish in time.") from None
        if chunk is None:
            return
        yield chunk


async def _begun(client: httpx.AsyncClient, request: httpx.Request, deadline: float) -> httpx.Response:
    """Send a request and wait for its status line, for as long as the server lives."""
    sending = asyncio.ensure_future(client.send(request, stream=True))
    try:
        while not (await asyncio.wait({sending}, timeout=SIGN_OF_LIFE_SECONDS))[0]:
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("The answer did not begin in time.")
            probe = client.build_request("GET", request.url.join("/"), timeout=CONNECT_SECONDS)
            try:
                await (await client.send(probe, stream=True)).aclose()
            except httpx.TimeoutException as error:
                raise httpx.ConnectError("It gives no sign of life.") from error
        return sending.result()
    finally:
        # Also when the caller left meanwhile.
        sending.cancel()


def why_forbidden(url: str, *, operator_origins: Iterable[str] = (), seconds: float = RESOLVE_SECONDS) -> str:
    """Why an address is none that may be called, in words for people; empty where it may be.

    A name of which nobody knows now where it leads is not refused for that: what calls it later looks again.
    """
    try:
        parts = _parsed(url)
        if _origin(parts) not in {_origin(urlsplit(origin)) for origin in operator_origins}:
            _pinned(parts, time.monotonic() + seconds)
    except OutboundError as error:
        return error.message if error.code == "forbidden" else ""
    return ""


def _once(
    method: str,
    url: str,
    trusted: frozenset[tuple[str, str, int]],
    headers: Mapping[str, str],
    content: bytes | None,
    deadline: float,
    max_bytes: int,
    transport: httpx.BaseTransport | None,
) -> Answer:
    parts = _parsed(url)
    origin = _origin(parts)
    address = None if origin in trusted else _pinned(parts, deadline)
    left = deadline - time.monotonic()
    if left <= 0:
        raise OutboundError("timeout", f"{_host(url)} did not answer in time.")
    target, extra, extensions = url, {}, {}
    if address is not None:
        # The connection goes to the address that was checked; the name stays in Host and in the TLS handshake.
        shown = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{shown}:{origin[2]}").geturl()
        # Without the usual port, as every client writes it: a signature covers this header.
        host = parts.netloc.removesuffix(f":{PORTS[parts.scheme]}")
        extra, extensions = {"host": host}, {"sni_hostname": origin[1]}
    timeout = httpx.Timeout(left, connect=min(CONNECT_SECONDS, left))
    # No proxy and no credentials of the environment: a proxy would resolve the name again.
    door = transport or DeadlineTransport(deadline)
    with httpx.Client(timeout=timeout, trust_env=False, verify=tls(), transport=door) as client:
        try:
            with client.stream(
                method, target, headers={**headers, **extra}, content=content, extensions=extensions
            ) as answer:
                body = _body(answer, deadline, max_bytes, url)
                lower = {name.lower(): value for name, value in answer.headers.items()}
                return Answer(answer.status_code, lower, body, url)
        except httpx.TimeoutException:
            raise OutboundError("timeout", f"{_host(url)} did not answer in time.") from None
        except httpx.HTTPError as error:
            raise OutboundError("unreachable", f"{_host(url)} cannot be reached: {_short(error)}") from None


def _body(answer: httpx.Response, deadline: float, max_bytes: int, url: str) -> bytes:
    _uncompressed(answer, url)
    parts: list[bytes] = []
    size = 0
    for chunk in answer.iter_bytes():
        size += len(chunk)
        if size > max_bytes:
            raise OutboundError("too_large", f"{_host(url)} answered with more than {max_bytes} bytes.")
        if time.monotonic() > deadline:
            raise OutboundError("timeout", f"{_host(url)} did not answer in time.")
        parts.append(chunk)
    return b"".join(parts)


def _uncompressed(answer: httpx.Response, url: str) -> None:
    """Refuse what was packed though nobody asked for it: a small answer could unpack into a huge one."""
    if answer.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise OutboundError("bad_answer", f"{_host(url)} answered compressed, which was not asked for.")


def _pinned(parts: SplitResult, deadline: float) -> str:
    """Resolve a user's host once; every address must be public, the first is used."""
    scheme, host, port = _origin(parts)
    if scheme != "https" or port != PORTS["https"]:
        raise OutboundError("forbidden", "Only https:// addresses on port 443 may be given.")
    if why := why_not_public(host):
        # Also where a resolver knows it: that of the cluster, which loads from there, need not be ours.
        raise OutboundError("forbidden", why)
    try:
        addresses = resolve(host, port, deadline)
    except TimeoutError:
        raise OutboundError("timeout", f"{host} was not resolved in time.") from None
    except OSError:
        raise OutboundError("unreachable", f"{host} has no address.") from None
    if not addresses or not all(is_public(address.split("%", 1)[0]) for address in addresses):
        raise OutboundError("forbidden", f"{host} is not a public address.")
    return addresses[0]


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise OutboundError("forbidden", "That is not a web address.") from None
    if parts.scheme not in PORTS or not parts.hostname or not port_ok:
        raise OutboundError("forbidden", "That is not a web address.")
    if parts.username is not None or parts.password is not None:
        raise OutboundError("forbidden", "A web address must not carry a user name or password.")
    return parts


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, (parts.hostname or "").rstrip(".").lower(), parts.port or PORTS.get(parts.scheme, 0)


def _allowed(host: str, allowed: Iterable[str]) -> bool:
    host = host.rstrip(".").lower()
    return any(host.endswith(name) if name.startswith(".") else host == name for name in allowed)


def _host(url: str) -> str:
    return urlsplit(url).hostname or "The server"


def _short(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
