"""Schemas at work on whole objects: dropping unknown fields, filling defaults, and finding what a decoder would."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from sandbox.lite.errors import Cause, required
from sandbox.lite.fields import TypedError, check_type
from sandbox.lite.quantity import complaint as quantity_complaint
from sandbox.lite.schema import Raw, Schema

Obj = dict[str, Any]

QUANTITY = Schema.of_builtin("api.resource.Quantity").raw
NUMBER_OR_TEXT = Schema.of_builtin("util.intstr.IntOrString").raw
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


def prune(value: Any, schema: Schema, path: str = "") -> list[str]:
    """Drop, in place, the fields a schema does not know; returns their paths."""
    dropped: list[str] = []
    if isinstance(value, dict) and (schema.kind != "scalar" or not schema.builtin):
        for name in list(value):
            below = None if schema.kind == "scalar" else schema.field(name)
            step = f"{path}.{name}" if path else name
            if below is None:
                dropped.append(step)
                del value[name]
            else:
                dropped += prune(value[name], below, step)
    elif isinstance(value, list) and schema.kind == "list":
        for index, item in enumerate(value):
            dropped += prune(item, schema.items, f"{path}[{index}]")
    return dropped


def drop_nulls(value: Any, schema: Schema) -> None:
    """Drop, in place, nulls that mean "not set", and of built-in kinds what is empty.

    Nulls of nullable fields stay, and those that a default will replace; among the items of a list they become empty.
    """
    if isinstance(value, dict):
        for name in list(value):
            below = schema.field(name) or Schema.ANY
            if value[name] is None:
                if schema.builtin and schema.kind == "map" and (below.raw is QUANTITY or _is_text(below)):
                    value[name] = "" if _is_text(below) else "0"  # what null is in a Go map of either
                elif below.kind != "any" and not below.raw.get("nullable") and "default" not in below.raw:
                    del value[name]
            elif schema.builtin and value[name] in ({}, []) and below.kind in ("map", "list"):
                if name not in schema.raw.get("required", ()):
                    del value[name]  # Go writes no empty map or list
            elif isinstance(value[name], float) and value[name].is_integer():
                value[name] = int(value[name])  # Go writes 1.0 as 1
            else:
                drop_nulls(value[name], below)
    elif isinstance(value, list):
        items = schema.items if schema.kind == "list" else Schema.ANY
        for index, item in enumerate(value):
            if item is None and items.builtin and (items.kind == "object" or _is_text(items)):
                value[index] = "" if _is_text(items) else {}  # what null is in a Go slice of either
            else:
                drop_nulls(item, items)


def _is_text(schema: Schema) -> bool:
    return schema.raw.get("type") == "string"


def fill_defaults(value: Any, schema: Schema) -> None:
    """Fill, in place, the defaults of a custom resource's schema; a null that may not be counts as left out."""
    if not schema.has_defaults:
        return
    if isinstance(value, dict):
        for name, raw in schema.declared.items():
            if "default" in raw and (name not in value or _unset(value[name], raw)):
                value[name] = copy.deepcopy(raw["default"])
        for name, child in value.items():
            below = schema.field(name)
            if below is None:
                continue
            if _unset(child, below.raw) and "default" in below.raw:
                value[name] = copy.deepcopy(below.raw["default"])
            fill_defaults(value[name], below)
    elif isinstance(value, list) and schema.kind == "list":
        for index, item in enumerate(value):
            if _unset(item, schema.items.raw) and "default" in schema.items.raw:
                value[index] = copy.deepcopy(schema.items.raw["default"])
            fill_defaults(value[index], schema.items)


def _unset(value: Any, raw: Raw) -> bool:
    return value is None and not raw.get("nullable")


def type_error(value: Any, schema: Schema, path: str = "", struct: str = "") -> str | None:
    """Return what a Go decoder would say of the first value of a wrong type in a built-in object.

    `struct` is the type that holds the field at `path`; entries of maps and lists have no step of their own.
    """
    if value is None:
        return None
    try:
        check_type(value, schema, ())
    except TypedError:
        got = {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(value), "number")
        place = f"Go struct field {struct}.{path}" if struct else "Go value"
        return f"json: cannot unmarshal {got} into {place} of type {schema.go_type}"
    if isinstance(value, str) and schema.raw.get("format") == "byte":
        return base64_error(value)
    if schema.raw is QUANTITY and (complaint := quantity_complaint(value)):
        return complaint
    if schema.raw is NUMBER_OR_TEXT and isinstance(value, float):
        return f"json: cannot unmarshal number {value} into Go struct field {struct}.{path} of type int32"
    if isinstance(value, dict):
        fixed = schema.kind == "object"
        owner = schema.name.rpartition(".")[2] if fixed else struct
        for name, child in value.items():
            below = schema.field(name)
            step = (f"{path}.{name}" if path else name) if fixed else path
            if below and (found := type_error(child, below, step, owner)):
                return found
    elif isinstance(value, list):
        for item in value:
            if found := type_error(item, schema.items, path, struct):
                return found
    return None


def base64_error(text: str) -> str | None:
    """Return what Go says of base64 that cannot be read: where it stops making sense."""
    for place, sign in enumerate(text):
        if sign not in _BASE64:
            return None if sign == "=" else f"illegal base64 data at input byte {place}"
    return None if len(text) % 4 == 0 else f"illegal base64 data at input byte {len(text) - len(text) % 4}"


def missing(value: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """Yield the required fields a built-in object lacks."""
    if isinstance(value, dict) and schema.kind != "scalar":
        for name in schema.raw.get("required", ()):
            if value.get(name) in (None, ""):
                yield required(f"{path}.{name}" if path else name)
        for name, child in value.items():
            below = schema.field(name)
            if below is not None and isinstance(child, dict | list):
                yield from missing(child, below, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and schema.kind == "list":
        for index, item in enumerate(value):
            yield from missing(item, schema.items, f"{path}[{index}]")
