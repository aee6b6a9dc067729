"""One request on its way through Envoy, as its external processor sees it. Pure: message in, message out.

A request that can ask for a stream is held back until it is whole, because it may have to be changed: Envoy sends it in
pieces, each of which is answered at once, and the whole goes on with the last. Answers pass as they come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deployments.services.usage import Use
from metering.tokens import MOST_READ, Meter, asking_for_usage, may_stream
from portal.live.metered import HEADER, Metered, metered
from portal.meter.wire import (
    OVERWRITE,
    SKIP,
    STREAMED,
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    HeaderValue,
    HeaderValueOption,
    ProcessingMode,
    ProcessingResponse,
    TrailersResponse,
)

# Only an answer that is not packed can be read.
PLAIN = HeaderValueOption(
    header=HeaderValue(key="accept-encoding", raw_value=b"identity"),
    append_action=OVERWRITE,
)


class Exchange:
    """Give it each message of Envoy in turn, and send back what it answers."""

    def __init__(self) -> None:
        self._who: Metered | None = None
        self._path = self._method = ""
        self._status = 0
        self._held = b""  # of a request that is not whole yet
        self._let_go = False  # it is too large to be read
        self._sent = 0  # bytes of the request
        self._asked = False  # the engine was asked for usage, and the caller did not
        self._meter = Meter()
        self._answers: dict[str, Callable[[Any], Any]] = {
            "request_headers": self._request_headers,
            "request_body": self._request_body,
            "request_trailers": lambda _: ProcessingResponse(request_trailers=TrailersResponse()),
            "response_headers": self._response_headers,
            "response_body": self._response_body,
            "response_trailers": lambda _: ProcessingResponse(response_trailers=TrailersResponse()),
        }

    def answer(self, message: Any) -> Any:
        """What Envoy is to do with what it sent."""
        kind = message.WhichOneof("request")
        return self._answers[kind](getattr(message, kind))

    def used(self) -> Use | None:
        """What the key is charged with, however the exchange ended; None where nothing was computed for a key.

        Of an engine's refusal nothing was; of a caller who left, what had come. The request itself `live` has counted.
        """
        if self._who is None or self._method != "POST" or self._status >= 400:
            return None
        prompt, made = self._meter.tokens(self._sent)
        return Use(*self._who, prompt_tokens=prompt, completion_tokens=made) if prompt or made else None

    def _request_headers(self, sent: Any) -> Any:
        headers = _headers(sent)
        self._who = metered(headers.get(HEADER, ""))
        self._method = headers.get(":method", "")
        self._path = headers.get(":path", "").partition("?")[0]
        # It has served its purpose, and engines need not know it.
        changes = HeaderMutation(remove_headers=[HEADER])
        if self._who is None or self._method != "POST":
            return _of_headers(changes, ProcessingMode(response_header_mode=SKIP))
        changes.set_headers.append(PLAIN)
        if may_stream(self._path):
            return _of_headers(changes)
        length = headers.get("content-length", "")
        self._sent = int(length) if length.isascii() and length.isdigit() else 0
        return _of_headers(changes, ProcessingMode(response_body_mode=STREAMED))

    def _request_body(self, sent: Any) -> Any:
        self._sent += len(sent.body)
        if self._let_go:
            return ProcessingResponse(request_body=BodyResponse())
        only = sent.end_of_stream and not self._held
        self._held += sent.body
        if not sent.end_of_stream and len(self._held) <= MOST_READ:
            return ProcessingResponse(request_body=_instead(b""))
        whole, self._held = self._held, b""
        self._let_go = True
        asking = asking_for_usage(self._path, whole) if sent.end_of_stream else None
        self._asked = asking is not None
        if asking is None and only:
            return ProcessingResponse(request_body=BodyResponse())
        return ProcessingResponse(request_body=_instead(asking or whole))

    def _response_headers(self, sent: Any) -> Any:
        headers = _headers(sent)
        status = headers.get(":status", "")
        self._status = int(status) if status.isascii() and status.isdigit() else 0
        self._meter = Meter(
            content_type=headers.get("content-type", ""),
            encoding=headers.get("content-encoding", ""),
            hide=self._asked,
        )
        return ProcessingResponse(response_headers=HeadersResponse())

    def _response_body(self, sent: Any) -> Any:
        passed = self._meter.feed(sent.body)
        if sent.end_of_stream:
            passed += self._meter.end()
        same = passed == sent.body
        return ProcessingResponse(response_body=BodyResponse() if same else _instead(passed))


def _headers(sent: Any) -> dict[str, str]:
    """By name, in lower case; of several of one name the last."""
    return {
        item.key.lower(): (item.raw_value or item.value.encode()).decode("latin-1") for item in sent.headers.headers
    }


def _of_headers(changes: Any, mode: Any = None) -> Any:
    response = CommonResponse(header_mutation=changes)
    return ProcessingResponse(request_headers=HeadersResponse(response=response), mode_override=mode)


def _instead(body: bytes) -> Any:
    mutation = BodyMutation(body=body) if body else BodyMutation(clear_body=True)
    return BodyResponse(response=CommonResponse(body_mutation=mutation))
