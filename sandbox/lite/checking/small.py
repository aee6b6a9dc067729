"""ConfigMaps and Secrets."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import orjson

from sandbox.lite.checking.common import forbidden
from sandbox.lite.errors import Cause, invalid_value, required

Obj = dict[str, Any]

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_KEPT = "field is immutable when `immutable` is set"
# What Secrets of some types must hold.
_HELD = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
_ACCOUNT = "kubernetes.io/service-account.name"


def config_map(obj: Obj) -> Iterator[Cause]:
    """Check a ConfigMap."""
    binary = obj.get("binaryData") or {}
    for key in sorted(obj.get("data") or {}):
        yield from _key(key, f"data[{key}]")
        if key in binary:
            yield invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData")
    for key in sorted(binary):
        yield from _key(key, f"binaryData[{key}]")


def config_map_change(old: Obj, new: Obj) -> Iterator[Cause]:
    """Check an update of a ConfigMap."""
    yield from _frozen(old, new, ("data", "binaryData"))


def secret(obj: Obj) -> Iterator[Cause]:
    """Check a Secret."""
    data = obj.get("data") or {}
    for key in sorted(data):
        yield from _key(key, f"data[{key}]")
    kind = obj.get("type")
    if kind == "kubernetes.io/service-account-token":
        if not (obj["metadata"].get("annotations") or {}).get(_ACCOUNT):
            yield required(f"metadata.annotations[{_ACCOUNT}]")
    elif kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        yield required("data[username]")
        yield required("data[password]")
    for name in _HELD.get(kind or "", ()):
        if name not in data:
            yield required(f"data[{name}]")
        elif name.startswith(".docker"):
            yield from _json_object(data[name], f"data[{name}]")


def secret_change(old: Obj, new: Obj) -> Iterator[Cause]:
    """Check an update of a Secret."""
    if old.get("type") != new.get("type"):
        yield invalid_value("type", new.get("type"), "field is immutable")
    yield from _frozen(old, new, ("data",))


def _frozen(old: Obj, new: Obj, fields: tuple[str, ...]) -> Iterator[Cause]:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        yield forbidden("immutable", _KEPT)
    for field in fields:
        if (old.get(field) or {}) != (new.get(field) or {}):
            yield forbidden(field, _KEPT)


def _key(key: str, field: str) -> Iterator[Cause]:
    if len(key) > 253:
        yield invalid_value(field, key, "must be no more than 253 characters")
    if not _KEY.fullmatch(key):
        yield invalid_value(field, key, _KEY_RULE)
    elif key in (".", ".."):
        yield invalid_value(field, key, f"must not be '{key}'")
    elif key.startswith(".."):
        yield invalid_value(field, key, "must not start with '..'")


def _json_object(encoded: str, field: str) -> Iterator[Cause]:
    try:
        value = orjson.loads(base64.b64decode(encoded))
    except ValueError:
        yield invalid_value(field, "<secret contents redacted>", "invalid character")
        return
    if value is not None and not isinstance(value, dict):
        word = {list: "array", str: "string", bool: "bool"}.get(type(value), "number")
        text = f"json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"
        yield invalid_value(field, "<secret contents redacted>", text)
