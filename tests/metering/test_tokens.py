"""Tokens read from answers that pass by, whatever they are cut into."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest

from metering.tokens import Meter, asking_for_usage

CHAT = "/team/chat/v1/chat/completions"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def event(document: Any) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


PIECES = [event({"choices": [{"delta": {"content": word}}]}) for word in ("a", "b", "c")]
LAST = event({"choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"


def test_a_stream_is_made_to_tell_its_usage() -> None:
    body = orjson.dumps({"model": "chat", "stream": True, "stream_options": {"continuous_usage_stats": False}})

    asking = asking_for_usage(CHAT, body)

    assert asking is not None
    assert orjson.loads(asking) == {
        "model": "chat",
        "stream": True,
        "stream_options": {"continuous_usage_stats": False, "include_usage": True},
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"stream": False}),
        (CHAT, {"stream": True, "stream_options": {"include_usage": True}}),
        (CHAT, {"stream": True, "stream_options": 7}),
        (CHAT, []),
        ("/team/chat/v1/embeddings", {"stream": True}),
    ],
)
def test_other_bodies_stay_as_they_are(path: str, body: Any) -> None:
    assert asking_for_usage(path, orjson.dumps(body)) is None
    assert asking_for_usage(path, b"{") is None


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("hide", [True, False])
def test_usage_of_a_stream_is_read_and_kept_back_from_who_did_not_ask(size: int, hide: bool) -> None:
    whole = b"".join([*PIECES, LAST, DONE])
    meter = Meter(content_type="text/event-stream; charset=utf-8", hide=hide)

    passed = b"".join(meter.feed(whole[at : at + size]) for at in range(0, len(whole), size)) + meter.end()

    assert meter.tokens(999) == (11, 7)
    assert passed == (whole.replace(LAST, b"") if hide else whole)


def test_pieces_are_passed_on_as_they_come() -> None:
    meter = Meter(content_type="text/event-stream", hide=True)

    assert [meter.feed(piece) for piece in PIECES] == PIECES
    crlf = PIECES[0].replace(b"\n", b"\r\n")
    assert meter.feed(crlf) == crlf


def test_of_a_stream_that_breaks_off_the_pieces_count() -> None:
    meter = Meter(content_type="text/event-stream")
    for piece in PIECES:
        meter.feed(piece)

    assert meter.tokens(400) == (100, 3)


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ({"choices": [], "usage": USAGE}, (11, 7)),
        ({"data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}}, (5, 0)),
        ({"response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}, (3, 4)),
        ({"usage": {"prompt_tokens": -4, "completion_tokens": "9"}}, (0, 0)),
        ({"object": "list", "data": [{"id": "x"}]}, (0, 0)),
    ],
)
def test_usage_of_a_whole_answer_is_read(answer: Any, tokens: tuple[int, int]) -> None:
    meter = Meter(content_type="application/json")
    body = orjson.dumps(answer)

    assert meter.feed(body[:5]) + meter.feed(body[5:]) + meter.end() == body
    assert meter.tokens(999) == tokens


@pytest.mark.parametrize("yes", [True, 1, "true", "True", "on"])
def test_what_engines_take_for_a_stream_is_made_to_tell_too(yes: Any) -> None:
    for path in (CHAT, "/team/chat/v1/completions", "/team/chat/v1/chat/completion%73"):
        assert asking_for_usage(path, orjson.dumps({"stream": yes})) is not None


@pytest.mark.parametrize("no", [False, 0, "false", None, [], {}, "", 7])
def test_what_engines_do_not_take_for_a_stream_stays(no: Any) -> None:
    assert asking_for_usage(CHAT, orjson.dumps({"stream": no})) is None


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_a_packed_answer_passes_as_it_is_and_is_estimated(kind: str) -> None:
    packed = gzip.compress(b"".join([*PIECES, LAST, DONE]))
    meter = Meter(content_type=kind, encoding="gzip", hide=True)

    assert meter.feed(packed[:9]) + meter.feed(packed[9:]) + meter.end() == packed
    assert meter.tokens(400) == (100, len(packed) // 4)
