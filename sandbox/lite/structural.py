"""Schemas at work on whole objects: dropping unknown fields, filling defaults, and finding what is wrong."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jsonschema_rs

from sandbox.lite.errors import Cause, invalid_value, required, unsupported
from sandbox.lite.fields import TypedError, check_type
from sandbox.lite.resources import Resource
from sandbox.lite.schema import Raw, Schema

Obj = dict[str, Any]


def prune(value: Any, schema: Schema, path: str = "") -> list[str]:
    """Drop, in place, the fields a schema does not know; returns their paths."""
    dropped: list[str] = []
    if isinstance(value, dict) and schema.kind != "scalar":
        for name in list(value):
            below = schema.field(name)
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
    """Drop, in place, nulls that mean "not set": those of nullable fields stay, and those a default will replace."""
    if isinstance(value, dict):
        for name in list(value):
            below = schema.field(name) or Schema.ANY
            if value[name] is None:
                if schema.builtin and schema.kind == "map" and below.raw.get("type") == "string":
                    value[name] = ""  # what null is in a Go map of strings
                elif below.kind != "any" and not below.raw.get("nullable") and "default" not in below.raw:
                    del value[name]
            else:
                drop_nulls(value[name], below)
    elif isinstance(value, list):
        for item in value:
            drop_nulls(item, schema.items if schema.kind == "list" else Schema.ANY)


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


class Validator:
    """Checks custom resources of one version against their schema."""

    def __init__(self, raw: Raw) -> None:
        self._validator = jsonschema_rs.Draft4Validator(_json_schema(raw), validate_formats=False)

    def causes(self, obj: Obj) -> list[Cause]:
        """Return what is wrong with an object, worded as kube-apiserver words it."""
        bare = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
        found = [cause for error in self._validator.iter_errors(bare) for cause in _causes(error, bare)]
        return sorted(set(found), key=lambda cause: cause.field)


@lru_cache(maxsize=64)
def validator(resource: Resource) -> Validator:
    """Return the validator of a custom resource, built on first use."""
    return Validator(resource.crd_schema or {})


_COPIED = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "required", "enum",
)  # fmt: skip


def _json_schema(raw: Raw) -> Raw:
    result: Raw = {key: raw[key] for key in _COPIED if key in raw}
    if "(?i)" in result.get("pattern", ""):
        result["pattern"] = _any_case(result["pattern"])
    if raw.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    elif "type" in raw:
        result["type"] = raw["type"]
    if raw.get("nullable") and "type" in result:
        words = result["type"]
        result["type"] = [*(words if isinstance(words, list) else [words]), "null"]
        if "enum" in result:
            result["enum"] = [*result["enum"], None]
    for key in ("allOf", "anyOf", "oneOf"):
        if key in raw and not raw.get("x-kubernetes-int-or-string"):
            result[key] = [_json_schema(item) for item in raw[key]]
    if "not" in raw:
        result["not"] = _json_schema(raw["not"])
    if "properties" in raw:
        result["properties"] = {name: _json_schema(child) for name, child in raw["properties"].items()}
    if "items" in raw:
        result["items"] = _json_schema(raw["items"])
    if isinstance(raw.get("additionalProperties"), dict):
        result["additionalProperties"] = _json_schema(raw["additionalProperties"])
    return result


def _any_case(pattern: str) -> str:
    """Spell out Go's `(?i)`, which JSON schema does not know inside a pattern."""
    before, _, after = pattern.partition("(?i)")
    return before + re.sub("[A-Za-z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", after)


def _causes(error: Any, obj: Obj) -> Iterator[Cause]:
    steps = list(error.instance_path)
    path = _spell(steps)
    value = obj
    for step in steps:
        value = value[step]
    kind = str(error.schema_path[-1]) if error.schema_path else ""
    limit = getattr(error.kind, "limit", None)
    if kind == "required":
        yield required(f"{path}.{error.kind.property}" if path else str(error.kind.property))
    elif kind == "enum":
        yield unsupported(path, value, [str(option) for option in error.kind.options if option is not None])
    elif kind == "type":
        words = error.kind.types if hasattr(error.kind, "types") else []
        wanted = ",".join(word for word in words if word != "null")
        got = _type_word(value)
        text = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
        yield Cause(path, "FieldValueTypeInvalid", text)
    elif kind in ("minimum", "maximum"):
        relation = "greater than or equal to" if kind == "minimum" else "less than or equal to"
        yield invalid_value(path, value, f"{path} in body should be {relation} {limit}")
    elif kind == "pattern":
        yield invalid_value(path, value, f"{path} in body should match '{error.kind.pattern}'")
    elif kind == "maxLength":
        yield Cause(path, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")
    elif kind == "maxItems":
        yield Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {limit} items")
    elif kind == "minLength":
        yield invalid_value(path, value, f"{path} in body should be at least {limit} chars long")
    elif kind == "minItems":
        yield invalid_value(path, value, f"{path} in body should have at least {limit} items")
    else:
        yield invalid_value(path, value, f"{path} in body {error.message}")


def _type_word(value: Any) -> str:
    words = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return words.get(type(value), "null")


def _spell(steps: list[Any]) -> str:
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else str(step))
    return text
