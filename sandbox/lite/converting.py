"""What kube-apiserver says where a strategic merge patch leaves a value of a wrong type: it converts, not decodes."""

from __future__ import annotations

from typing import Any

from sandbox.lite.quantity import complaint
from sandbox.lite.schema import Schema
from sandbox.lite.structural import NUMBER_OR_TEXT, QUANTITY, base64_error

_KINDS = {dict: "map", list: "slice", str: "string", bool: "bool", int: "int64", float: "float64"}


def conversion_error(value: Any, schema: Schema) -> str | None:
    """Return what is said of the first value of a wrong type in a built-in object."""
    if value is None:
        return None
    kind = _KINDS[type(value)]
    if schema.kind == "list":
        if kind != "slice":
            return f"cannot restore slice from {kind}"
        return _first((item, schema.items) for item in value)
    if schema.kind in ("object", "map"):
        if kind != "map":
            return f"cannot restore map from {kind}" if schema.kind == "map" else f"cannot restore struct from: {kind}"
        return _first((child, schema.field(name)) for name, child in value.items())
    return _scalar(value, kind, schema) if schema.kind == "scalar" else None


def _scalar(value: Any, kind: str, schema: Schema) -> str | None:
    if schema.raw is QUANTITY:
        return complaint(value)
    if schema.raw is NUMBER_OR_TEXT:
        if kind in ("string", "int64"):
            return None
        return f"json: cannot unmarshal number {value} into Go value of type int32"
    if schema.raw.get("format") == "byte":
        found = base64_error(value) if kind == "string" else None
        return f"error decoding from json: {found}" if found else None
    wanted = schema.go_type
    fits = {"string": "string", "bool": "bool"}.get(wanted, "float64" if wanted == "float64" else "int64")
    if kind == fits or (kind, wanted) == ("int64", "float64"):
        return None
    convertible = (kind == "int64" and wanted == "string") or (kind == "float64" and fits == "int64")
    return f"cannot convert {kind} to {wanted}" if convertible else f"unrecognized type: {wanted}"


def _first(parts: Any) -> str | None:
    for value, schema in parts:
        if schema is not None and (found := conversion_error(value, schema)):
            return found
    return None
