"""Reads Kubernetes' protobuf bodies: some kubectl commands (`create namespace`, `auth can-i`) send nothing else.

Answers are always JSON, which the same clients accept.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
WIRE = Path(__file__).parent / "data" / "wire.json"
_MAGIC = b"k8s\x00"

Obj = dict[str, Any]
Field = tuple[int, str, str, str]
Value = int | bytes


@cache
def _messages() -> dict[str, dict[int, Field]]:
    loaded: dict[str, list[Any]] = orjson.loads(WIRE.read_bytes())
    return {name: {field[0]: tuple(field) for field in fields} for name, fields in loaded.items()}


def decode(body: bytes) -> Obj:
    """Return the object in a protobuf body. ValueError when it is malformed or of a kind not known here."""
    if not body.startswith(_MAGIC):
        raise ValueError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    outer = dict(_fields(body[len(_MAGIC) :]))
    kind_fields = dict(_fields(_bytes(outer.get(1, b""))))
    api_version = _bytes(kind_fields.get(1, b"")).decode()
    kind = _bytes(kind_fields.get(2, b"")).decode()
    group, _, version = api_version.rpartition("/")
    package = f"{group.partition('.')[0] or 'core'}.{version}"
    if kind == "DeleteOptions":
        package = "meta.v1"
    message = f"{package}.{kind}"
    if message not in _messages():
        raise ValueError(f'no kind "{kind}" is registered for version "{api_version}"')
    return {"apiVersion": api_version, "kind": kind} | _message(_bytes(outer.get(2, b"")), message)


def _message(data: bytes, name: str) -> Obj:
    known = _messages()[name]
    result: Obj = {}
    for number, value in _fields(data):
        if number not in known:
            continue
        _, field, kind, flags = known[number]
        if flags == "m":
            entry = dict(_fields(_bytes(value)))
            key = _bytes(entry.get(1, b"")).decode()
            result.setdefault(field, {})[key] = _value(entry.get(2, b""), kind)
        elif flags == "l":
            result.setdefault(field, []).append(_value(value, kind))
        else:
            decoded = _value(value, kind)
            if field == "":
                result |= decoded or {}
            elif not (flags == "z" and decoded in ("", 0, False, None)):
                result[field] = decoded
    return result


def _value(value: Value, kind: str) -> Any:
    if kind == "s":
        return _bytes(value).decode()
    if kind == "b":
        return bool(value)
    if kind == "i":
        number = value if isinstance(value, int) else 0
        return number - (1 << 64) if number >= 1 << 63 else number
    if kind == "y":
        return base64.b64encode(_bytes(value)).decode()
    if kind == "d":
        return struct.unpack("<d", _bytes(value))[0]
    if kind in _SPECIAL:
        return _SPECIAL[kind](dict(_fields(_bytes(value))))
    if kind not in _messages():
        raise ValueError(f"no message {kind}")
    return _message(_bytes(value), kind)


def _time(fields: dict[int, Value]) -> str | None:
    seconds = fields.get(1, 0)
    if not isinstance(seconds, int) or not seconds or seconds >= 1 << 63:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(fields: dict[int, Value]) -> str | None:
    whole, nanos = _time(fields), fields.get(2, 0)
    return f"{whole[:-1]}.{int(nanos) // 1000:06d}Z" if whole and isinstance(nanos, int) else whole


def _int_or_string(fields: dict[int, Value]) -> int | str:
    if fields.get(1):
        return _bytes(fields.get(3, b"")).decode()
    number = fields.get(2, 0)
    return number if isinstance(number, int) else 0


def _raw(fields: dict[int, Value]) -> Any:
    return orjson.loads(_bytes(fields.get(1, b"")) or b"null")


_SPECIAL: dict[str, Any] = {
    "time": _time,
    "microtime": _micro_time,
    "quantity": lambda fields: _bytes(fields.get(1, b"")).decode(),
    "intstr": _int_or_string,
    "raw": _raw,
    "duration": lambda fields: f"{int(fields.get(1, 0)) / 1e9:g}s",
}


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes were expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield field numbers and raw values. ValueError when the data ends early."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _varint(data, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} is not used by Kubernetes")
        if place + size > len(data):
            raise ValueError("unexpected EOF")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data):
            raise ValueError("unexpected EOF")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, place
        shift += 7
