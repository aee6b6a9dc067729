"""How Go prints JSON values, where kube-apiserver's complaints show them so."""

from __future__ import annotations

from typing import Any

import orjson


def plain(value: Any) -> str:
    """Print a value as `%v` does: `map[a:[1 true]]`."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{name}:{plain(value[name])}' for name in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(plain(item) for item in value)}]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def literal(value: Any) -> str:
    """Print a value as `%#v` does: `map[string]interface {}{"a":1}`."""
    if isinstance(value, dict):
        inside = ", ".join(f"{orjson.dumps(name).decode()}:{literal(value[name])}" for name in sorted(value))
        return f"{type_name(value)}{{{inside}}}"
    if isinstance(value, list):
        return f"{type_name(value)}{{{', '.join(literal(item) for item in value)}}}"
    if value is None:
        return "interface {}(nil)"
    return orjson.dumps(value).decode()


def type_name(value: Any) -> str:
    """Name the type a decoder gives a value."""
    names = {dict: "map[string]interface {}", list: "[]interface {}", str: "string", bool: "bool", int: "int64"}
    return names.get(type(value), "float64")
