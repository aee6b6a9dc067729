"""JSON by orjson, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any

import orjson
from django.utils.functional import Promise
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from deployments.services.errors import InvalidError


class OrjsonRenderer(BaseRenderer):
    """Plain values, dates and decimals as JSON; UTC times end in Z."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """The JSON of `data`; nothing for None, as in an answer without a body."""
        if data is None:
            return b""
        return orjson.dumps(data, default=_plain, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


# Bytes of a body, and names and values in it: several times what the largest wish has. What a small body costs to check
# grows with what is in it, so both are bounded before anybody looks at what they mean.
MOST_BYTES = 256 * 1024
MOST_PARTS = 4000


class TooLargeError(APIException):
    """A body of more than MOST_BYTES."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


class OrjsonParser(BaseParser):
    """JSON bodies of bounded size. Unlike Python's parser it does not break on deep nesting or endless digits."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The decoded body; {} for an empty one."""
        # The framework reads the stream past Django's own limit.
        body = stream.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise TooLargeError(f"At most {MOST_BYTES:,} bytes.")
        if not body.strip():
            return {}
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ParseError(f"This is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None
        if not _is_bounded(found):
            raise InvalidError(f"At most {MOST_PARTS:,} names and values in one body.", code="too_many")
        return found


def _is_bounded(found: Any) -> bool:
    """True for a body of at most MOST_PARTS names and values; no deeper than the parser went."""
    left, around = MOST_PARTS, [found]
    while around:
        inner = around.pop()
        if isinstance(inner, dict | list):
            left -= len(inner)
            if left < 0:
                return False
            around += inner.values() if isinstance(inner, dict) else inner
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
