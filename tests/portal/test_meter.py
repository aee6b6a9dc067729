"""The meter by itself: what it answers Envoy message by message, whom it believes, and how it stops."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from django.core import signing

from deployments.services.invoke import Admission, KeyTerms
from deployments.services.usage import Use
from portal.live import metered
from portal.live.metered import HEADER, NO_KEY, Metered, told
from portal.meter.exchange import Exchange
from portal.meter.server import SERVING
from portal.meter.wire import ProcessingRequest

ROOT = Path(__file__).resolve().parents[2]
PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
CHAT = "/team/chat/v1/chat/completions"
WISH = {"model": "chat", "stream": True, "prompt": "x" * 100}
STREAM = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
LAST = b'data: {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}\n\n'


def headers(kind: str = "request_headers", *, end: bool = False, **values: str) -> Any:
    named = [{"key": name.replace("_", "-"), "raw_value": value.encode()} for name, value in values.items()]
    return ProcessingRequest(**{kind: {"headers": {"headers": named}, "end_of_stream": end}})


def keyed() -> str:
    """A key as `live` names it now."""
    return told(Admission("key:x", 7, key=KeyTerms(5)))


def asked(path: str = CHAT, who: str | None = None, method: str = "POST", **more: str) -> Any:
    named = {":path": path, ":method": method, HEADER: keyed() if who is None else who, **more}
    return headers(**named)


def body(kind: str, data: bytes, *, end: bool = False) -> Any:
    return ProcessingRequest(**{kind: {"body": data, "end_of_stream": end}})


def told_instead(answer: Any, kind: str) -> bytes | None:
    """The body that goes on instead of what came; None where that goes on."""
    mutation = getattr(answer, kind).response.body_mutation
    return mutation.body if mutation.WhichOneof("mutation") else None


def test_who_is_named_is_what_live_signed_just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = keyed()
    assert metered.metered(signed) == Metered(5, 7)
    assert told(Admission("user:alice", 7)) == NO_KEY

    others = signing.TimestampSigner(salt="another").sign("5.7")
    for value in (NO_KEY, "", "5.7", signed[:-1], signed.replace("5.7", "6.7"), others, signed + ", 6.7"):
        assert metered.metered(value) is None

    later = time.time() + metered.SECONDS + 1
    monkeypatch.setattr(signing.time, "time", lambda: later)
    assert metered.metered(signed) is None


@pytest.mark.parametrize("asks", [{"who": NO_KEY}, {"who": "5.7"}, {"method": "GET"}])
def test_of_others_nothing_more_is_sent_by(asks: dict[str, str]) -> None:
    exchange = Exchange()

    answer = exchange.answer(asked(**asks))

    mode = answer.mode_override
    assert (mode.response_header_mode, mode.request_body_mode, mode.response_body_mode) == (2, 0, 0)
    assert list(answer.request_headers.response.header_mutation.remove_headers) == [HEADER]
    assert exchange.used() is None


def test_a_request_is_held_until_it_is_whole_and_then_asks_for_usage() -> None:
    exchange, sent = Exchange(), orjson.dumps(WISH)

    first = exchange.answer(asked(accept_encoding="gzip"))
    cuts = (sent[:40], False), (sent[40:], True)
    parts = [exchange.answer(body("request_body", data, end=end)) for data, end in cuts]

    assert not first.HasField("mode_override")
    (plain,) = first.request_headers.response.header_mutation.set_headers
    assert (plain.header.key, plain.header.raw_value) == ("accept-encoding", b"identity")
    assert told_instead(parts[0], "request_body") == b""
    assert orjson.loads(told_instead(parts[1], "request_body") or b"") == WISH | {
        "stream_options": {"include_usage": True}
    }


@pytest.mark.parametrize("cut", [0, 30])
def test_a_request_that_needs_no_change_goes_on_as_it_came(cut: int) -> None:
    exchange, sent = Exchange(), orjson.dumps({**WISH, "stream": False})
    exchange.answer(asked())

    if cut:
        exchange.answer(body("request_body", sent[:cut]))
    answer = exchange.answer(body("request_body", sent[cut:], end=True))

    assert told_instead(answer, "request_body") == (sent if cut else None)


def test_the_event_that_nobody_asked_for_is_kept_back_and_counted() -> None:
    exchange = Exchange()
    exchange.answer(asked())
    exchange.answer(body("request_body", orjson.dumps(WISH), end=True))
    exchange.answer(headers("response_headers", **{":status": "200", "content_type": "text/event-stream"}))

    passed = [
        told_instead(exchange.answer(body("response_body", data, end=end)), "response_body")
        for data, end in ((STREAM, False), (LAST[:20], False), (LAST[20:] + b"data: [DONE]\n\n", True))
    ]

    assert passed == [None, b"", b"data: [DONE]\n\n"]
    assert exchange.used() == Use(5, 7, prompt_tokens=11, completion_tokens=7)


@pytest.mark.parametrize(
    ("status", "used"), [("", Use(5, 7, prompt_tokens=100)), ("200", Use(5, 7, prompt_tokens=100)), ("503", None)]
)
def test_without_an_answer_the_prompt_is_charged_unless_it_was_refused(status: str, used: Use | None) -> None:
    exchange = Exchange()
    exchange.answer(asked("/team/chat/v1/embeddings", content_length="400"))
    if status:
        exchange.answer(headers("response_headers", **{":status": status}))

    assert exchange.used() == used


def test_trailers_pass() -> None:
    exchange = Exchange()
    for kind in ("request_trailers", "response_trailers"):
        answer = exchange.answer(ProcessingRequest(**{kind: {"trailers": {}}}))
        assert answer.HasField(kind)


def test_it_says_that_it_is_well_and_lets_what_is_under_way_end() -> None:
    with running() as (process, channel):
        assert _is_well(channel)
        sent: queue.Queue[bytes | None] = queue.Queue()
        answers = channel.stream_stream(PROCESS)(iter(sent.get, None), timeout=60)
        sent.put(asked(who=NO_KEY).SerializeToString())
        next(answers)

        process.send_signal(signal.SIGTERM)
        while _is_well(channel):  # new ones are not taken any more
            time.sleep(0.05)
        sent.put(body("request_body", b"x", end=True).SerializeToString())
        next(answers)
        sent.put(None)
        assert list(answers) == []
        assert process.wait(20) == 0


def _is_well(channel: grpc.Channel) -> bool:
    try:
        return bool(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5) == SERVING)
    except grpc.RpcError:
        return False


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[bytes], grpc.Channel]]:
    """`manage.py meter` as it runs on a cluster."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "manage.py", "meter", f"--port={port}", "--grace=20"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "SLIPWAY_SECRET_KEY": "x" * 50})
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(30)
            yield process, channel
    finally:
        process.kill()
        process.wait(10)
