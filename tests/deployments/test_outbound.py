"""Who may be called, where a redirect may lead, and what a hostile server cannot do."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from portal.lib import outbound
from portal.lib.deadline import tls
from portal.lib.hosts import is_public
from portal.lib.outbound import OutboundError, get_json, request

PRIVATE = "http://10.0.0.5:8080"


def serving(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.MockTransport:
    return httpx.MockTransport(answer)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to; others have no address."""
    table: dict[str, list[str]] = {}

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in table:
            raise socket.gaierror(-2, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in table[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return table


def test_an_operators_private_server_is_called():
    transport = serving(lambda _: httpx.Response(200, json={"a": 1}))
    assert get_json(f"{PRIVATE}/x", operator_origins=[PRIVATE], transport=transport) == (200, {"a": 1})


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.5:8081/x",  # another port
        "https://10.0.0.5:8080/x",  # another scheme
        "http://10.0.0.50:8080/x",
        "http://10.0.0.5:8080@evil.example/x",
        "file:///etc/passwd",
        "gopher://10.0.0.5:8080/",
        "http://10.0.0.5:99999/",
        "//10.0.0.5:8080/x",
    ],
)
def test_what_is_not_exactly_the_operators_is_a_users(url, names):
    transport = serving(lambda _: httpx.Response(200, json={}))
    with pytest.raises(OutboundError) as error:
        get_json(url, operator_origins=[PRIVATE], transport=transport)
    assert error.value.code == "forbidden"


@pytest.mark.parametrize(
    "address",
    ["fec0::1", "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1", "224.0.0.1", "240.0.0.1"],
)  # fmt: skip
def test_these_addresses_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_these_addresses_are_public(address):
    assert is_public(address)


def test_a_users_name_that_leads_inside_is_refused(names):
    names["evil.example"] = ["93.184.216.34", "10.0.0.5"]
    with pytest.raises(OutboundError) as error:
        get_json("https://evil.example/x", transport=serving(lambda _: httpx.Response(200, json={})))
    assert error.value.code == "forbidden"


def test_the_connection_goes_to_the_address_that_was_checked(names):
    names["hub.example"] = ["93.184.216.34"]
    seen: list[httpx.Request] = []

    def answer(sent: httpx.Request) -> httpx.Response:
        seen.append(sent)
        names["hub.example"] = ["10.0.0.5"]  # asked again it would lead inside
        return httpx.Response(200, json={})

    get_json("https://hub.example/x", transport=serving(answer))
    assert seen[0].url.host == "93.184.216.34"
    assert seen[0].headers["host"] == "hub.example"
    assert seen[0].extensions["sni_hostname"] == "hub.example"


def test_a_users_address_is_https_on_its_own_port(names):
    names["hub.example"] = ["93.184.216.34"]
    for url in ("http://hub.example/", "https://hub.example:8443/"):
        with pytest.raises(OutboundError):
            get_json(url, transport=serving(lambda _: httpx.Response(200, json={})))


def test_a_redirect_inside_is_refused(names):
    names["hub.example"] = ["93.184.216.34"]
    transport = serving(lambda _: httpx.Response(302, headers={"location": f"{PRIVATE}/admin"}))
    with pytest.raises(OutboundError) as error:
        get_json("https://hub.example/x", operator_origins=[PRIVATE], transport=transport)
    assert error.value.code == "forbidden"


def test_the_host_is_named_as_every_client_names_it(names):
    """Without the port of https, or a signature over it would be another one than the server makes."""
    names["hub.example"] = ["93.184.216.34"]
    seen: list[str] = []

    def answer(sent: httpx.Request) -> httpx.Response:
        seen.append(sent.headers["host"])
        return httpx.Response(200, json={})

    get_json("https://hub.example:443/x", transport=serving(answer))
    assert seen == ["hub.example"]


def test_a_redirect_to_an_allowed_host_is_checked_and_carries_no_secret(names):
    names["hub.example"] = ["93.184.216.34"]
    names["cdn.hub.example"] = ["93.184.216.35"]
    headers: list[httpx.Headers] = []

    def answer(sent: httpx.Request) -> httpx.Response:
        headers.append(sent.headers)
        if sent.headers["host"] == "hub.example":
            return httpx.Response(302, headers={"location": "https://cdn.hub.example/file"})
        return httpx.Response(200, json={"ok": True})

    result = get_json(
        "https://hub.example/x",
        redirect_hosts=[".hub.example"],
        headers={"Authorization": "Bearer secret"},
        transport=serving(answer),
    )
    assert result == (200, {"ok": True})
    assert headers[0]["authorization"] == "Bearer secret"
    assert "authorization" not in headers[1]


def test_an_allowed_host_that_leads_inside_is_refused(names):
    names["hub.example"] = ["93.184.216.34"]
    names["cdn.hub.example"] = ["127.0.0.1"]
    transport = serving(lambda _: httpx.Response(302, headers={"location": "https://cdn.hub.example/file"}))
    with pytest.raises(OutboundError):
        get_json("https://hub.example/x", redirect_hosts=[".hub.example"], transport=transport)


def test_three_redirects_are_followed_and_no_more():
    hops = [0]

    def answer(_: httpx.Request) -> httpx.Response:
        hops[0] += 1
        return httpx.Response(302, headers={"location": f"/{hops[0]}"})

    with pytest.raises(OutboundError):
        get_json(f"{PRIVATE}/x", operator_origins=[PRIVATE], transport=serving(answer))
    assert hops[0] == 4


def test_a_post_is_never_redirected():
    transport = serving(lambda _: httpx.Response(307, headers={"location": "/elsewhere"}))
    answer = request("POST", f"{PRIVATE}/x", operator_origins=[PRIVATE], json={}, transport=transport)
    assert answer.status == 307


def test_a_huge_answer_is_cut_off():
    transport = serving(lambda _: httpx.Response(200, content=b"x" * 2000))
    with pytest.raises(OutboundError) as error:
        request("GET", f"{PRIVATE}/x", operator_origins=[PRIVATE], max_bytes=1000, transport=transport)
    assert error.value.code == "too_large"


def test_an_answer_that_is_not_json_is_named():
    transport = serving(lambda _: httpx.Response(200, content=b"<html>"))
    with pytest.raises(OutboundError) as error:
        get_json(f"{PRIVATE}/x", operator_origins=[PRIVATE], transport=transport)
    assert error.value.code == "bad_answer"
    refusal = serving(lambda _: httpx.Response(502, content=b"<html>"))
    assert get_json(f"{PRIVATE}/x", operator_origins=[PRIVATE], transport=refusal) == (502, None)


def test_a_server_that_never_answers_costs_the_time_given():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(OutboundError) as error:
            get_json(url, operator_origins=[url], seconds=0.3)
    assert error.value.code == "timeout"
    assert time.monotonic() - began < 3


@contextmanager
def dripping(*, every: float = 0.05) -> Iterator[str]:
    """A server whose headers come byte by byte and never end."""
    stopped = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
            while not stopped.wait(every):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        stopped.set()
        thread.join(5)


def test_headers_that_drip_cost_the_time_given():
    with dripping() as url:
        began = time.monotonic()
        with pytest.raises(OutboundError) as error:
            get_json(url, operator_origins=[url], seconds=0.5)
        assert time.monotonic() - began < 2
    assert error.value.code == "timeout"


@pytest.mark.parametrize("url", ["https://slow.example/x", "http://slow.internal:8080/x"])
def test_a_resolver_that_hangs_costs_the_time_given(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    let_go = threading.Event()

    def resolve(*_: object, **__: object) -> list[object]:
        let_go.wait(10)
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    began = time.monotonic()
    with pytest.raises(OutboundError) as error:
        get_json(url, operator_origins=["http://slow.internal:8080"], seconds=0.3)
    took = time.monotonic() - began
    let_go.set()
    assert (error.value.code, took < 2) == ("timeout", True)


def test_a_packed_answer_is_not_unpacked():
    packed = gzip.compress(b"x" * 10_000_000)
    transport = serving(lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Bytes(packed)))
    with pytest.raises(OutboundError) as error:
        request("GET", f"{PRIVATE}/x", operator_origins=[PRIVATE], transport=transport)
    assert error.value.code == "bad_answer"


class Bytes(httpx.SyncByteStream):
    """A body that is read as it comes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self.content


class Endless(httpx.AsyncByteStream):
    """A body that never ends."""

    def __init__(self, part: bytes, pause: float = 0) -> None:
        self.part, self.pause = part, pause

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(self.pause)
            yield self.part


@pytest.mark.parametrize(
    ("body", "seconds", "code"),
    [
        (Endless(b"x" * 100), 60, "too_large"),
        (Endless(b"x\n"), 60, "too_large"),
        (Endless(b"x\n", 0.05), 0.5, "timeout"),
    ],
)
def test_a_stream_without_end_is_left(body: Endless, seconds: float, code: str) -> None:
    async def read() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=body))
        async with outbound.stream("GET", PRIVATE, operator_origin=PRIVATE, transport=transport) as found:
            async for _ in outbound.lines(found, longest=1000, most=5000, seconds=seconds):
                pass

    with pytest.raises(OutboundError) as error:
        asyncio.run(asyncio.wait_for(read(), 90))
    assert error.value.code == code


def test_only_the_beginning_of_an_endless_error_is_read() -> None:
    async def read(body: Endless) -> bytes:
        transport = httpx.MockTransport(lambda _: httpx.Response(500, stream=body))
        async with outbound.stream("GET", PRIVATE, operator_origin=PRIVATE, transport=transport) as found:
            return await outbound.beginning(found, most=250, seconds=0.3)

    assert asyncio.run(asyncio.wait_for(read(Endless(b"x" * 100)), 5)) == b"x" * 250
    assert set(asyncio.run(asyncio.wait_for(read(Endless(b"x", 0.1)), 5))) == {ord("x")}


def test_a_closed_port_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(OutboundError) as error:
        get_json(url, operator_origins=[url])
    assert error.value.code == "unreachable"


def test_the_authorities_are_read_once_and_not_for_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: read.append(1))
    tls.cache_clear()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"

    async def streamed() -> None:
        async with outbound.stream("GET", url, operator_origin=url):
            pass

    try:
        for _ in range(2):
            with pytest.raises(OutboundError):
                get_json(url, operator_origins=[url])
            with pytest.raises(OutboundError):
                asyncio.run(streamed())
        assert read == [1]
    finally:
        tls.cache_clear()  # this one knows no authority


def test_a_stream_waits_for_a_busy_server_and_leaves_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "SIGN_OF_LIFE_SECONDS", 0.05)
    lives = True

    async def answer(sent: httpx.Request) -> httpx.Response:
        if sent.url.path == "/":
            if lives:
                return httpx.Response(404)
            raise httpx.ReadTimeout("nothing came")
        await asyncio.sleep(0.3 if lives else 30)
        return httpx.Response(200, text="at last")

    async def ask() -> str:
        transport = httpx.MockTransport(answer)
        async with outbound.stream("POST", f"{PRIVATE}/v1", operator_origin=PRIVATE, transport=transport) as found:
            return (await found.aread()).decode()

    assert asyncio.run(ask()) == "at last"
    lives = False
    with pytest.raises(OutboundError) as refused:
        asyncio.run(asyncio.wait_for(ask(), 5))
    assert refused.value.code == "unreachable"
