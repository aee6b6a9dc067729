"""Logs for a process that lives in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from deployments.kube import logs
from deployments.kube.errors import ClusterError, ErrorClass
from deployments.kube.logs import LogSource


class Drip(httpx.AsyncByteStream):
    """A body that comes in given pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[httpx.Request]]:
    """Set what the API server answers; the requests that it got come back."""

    def by(*answers: httpx.Response | Exception) -> list[httpx.Request]:
        asked: list[httpx.Request] = []
        left = list(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            reply = left.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply

        def client(_: object) -> httpx.AsyncClient:
            return httpx.AsyncClient(base_url="http://api", transport=httpx.MockTransport(answer))

        monkeypatch.setattr(logs, "_client_of", client)
        return asked

    return by


def tail(**options) -> str:
    source = LogSource("unused")
    return asyncio.run(source.tail("ns", "pod-1", "kserve-container", **{"previous": False, "lines": 10, **options}))


def follow() -> list[str]:
    async def read() -> list[str]:
        source = LogSource("unused")
        return [line async for line in source.follow("ns", "pod-1", "kserve-container", lines=5)]

    return asyncio.run(read())


def test_the_end_of_a_log_is_read(answered):
    asked = answered(httpx.Response(200, content=b"one\ntwo\n"))
    assert tail(previous=True) == "one\ntwo\n"
    assert asked[0].url.path == "/api/v1/namespaces/ns/pods/pod-1/log"
    assert dict(asked[0].url.params) == {
        "container": "kserve-container",
        "tailLines": "10",
        "limitBytes": str(logs.MOST_BYTES),
        "previous": "true",
    }


def test_lines_are_put_together_however_they_arrive(answered):
    answered(httpx.Response(200, stream=Drip(b"o", b"ne\ntw", "o £".encode()[:4], "o £".encode()[4:], b"\nlast")))
    assert follow() == ["one", "two £", "last"]


def test_a_line_without_end_is_handed_on_in_pieces(answered):
    answered(httpx.Response(200, stream=Drip(*[b"x" * 40_000] * 4)))
    assert [len(line) for line in follow()] == [80_000, 80_000]


def test_bytes_that_are_no_text_do_not_end_it(answered):
    answered(httpx.Response(200, stream=Drip(b"\xff\xfe\nfine\n")))
    assert follow()[1] == "fine"


def test_a_rotated_token_is_read_again_once(answered):
    asked = answered(httpx.Response(401), httpx.Response(200, content=b"ok"))
    assert tail() == "ok"
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "status"),
    [
        (httpx.Response(403, json={"reason": "Forbidden", "message": "no"}), ErrorClass.WAIT, 403),
        (httpx.Response(400, json={"reason": "BadRequest", "message": "is waiting to start"}), ErrorClass.WAIT, 400),
        (httpx.Response(502, content=b"<html>"), ErrorClass.RETRY, 502),
        (httpx.ConnectError("refused"), ErrorClass.RETRY, 0),
        (httpx.ReadTimeout("late"), ErrorClass.RETRY, 0),
    ],
)
def test_trouble_is_told_apart(answered, answer, kind, status):
    answered(answer)
    with pytest.raises(ClusterError) as error:
        tail()
    assert (error.value.kind, error.value.status) == (kind, status)
