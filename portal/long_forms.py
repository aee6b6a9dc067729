"""The request form when far too much was typed or chosen: its long parts are cut, so that their fields can say so.

A request that is refused as a whole says nothing at any field, and takes with it what else was typed. What is cut stays
longer than any field takes, so every field refuses it with its own words.
"""

from __future__ import annotations

import re

PATHS = re.compile(r"/deployments/(?:(?:new|preflight|preview)|\d+/edit(?:/(?:preflight|preview))?)/", re.ASCII)
MULTIPART, ENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
# Bytes of a whole form that are looked at; more is refused as it is.
MOST = 8 * 1024 * 1024
# Bytes kept of one part: more than the 64 Ki characters of the longest field, however many bytes each of them takes.
MOST_OF_PART = 4 * 64 * 1024 + 4
_BOUNDARY = re.compile(r'boundary="?([^";,]{1,200})"?')


def takes(path: str, content_type: str) -> bool:
    """True for what is read up to `MOST` and cut, in place of being refused."""
    return bool(PATHS.fullmatch(path)) and content_type.startswith((MULTIPART, ENCODED))


def cut(body: bytes, content_type: str) -> bytes:
    """The same form with every long part cut; as it is where its parts cannot be told apart."""
    if content_type.startswith(ENCODED):
        return b"&".join(_cut_pair(pair) for pair in body.split(b"&"))
    match = _BOUNDARY.search(content_type)
    if match is None:
        return body
    delimiter = b"--" + match[1].encode()
    return delimiter.join(_cut_part(part) for part in body.split(delimiter))


def _cut_part(part: bytes) -> bytes:
    head, blank, content = part.partition(b"\r\n\r\n")
    return head + blank + content[:MOST_OF_PART] + b"\r\n" if len(content) > MOST_OF_PART + 2 else part


def _cut_pair(pair: bytes) -> bytes:
    name, equals, value = pair.partition(b"=")
    if len(value) <= MOST_OF_PART:
        return pair
    # Three characters stand for one byte; half of such a group would say something else.
    kept = value[:MOST_OF_PART]
    at = kept.rfind(b"%", len(kept) - 2)
    return name + equals + (kept[:at] if at >= 0 else kept)
