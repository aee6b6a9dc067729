"""Custom resources against their schemas, by a JSON schema library, in kube-apiserver's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

import jsonschema_rs

from sandbox.lite.errors import NOWHERE, Cause, invalid_value, required, spell, unsupported
from sandbox.lite.resources import Resource
from sandbox.lite.schema import Raw, Schema

Obj = dict[str, Any]

_COPIED = (
    "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties",
    "required", "enum",
)  # fmt: skip
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
_GO_TYPES = {int: "int64", float: "float64", bool: "boolean", dict: "object"}


class Validator:
    """Checks custom resources of one version against their schema."""

    def __init__(self, raw: Raw) -> None:
        self._validator = jsonschema_rs.Draft202012Validator(_json_schema(raw), validate_formats=True, formats=_FORMATS)
        self._schema = Schema(raw)

    def causes(self, obj: Obj, old: Obj | None = None, subresource: str = "") -> list[Cause]:
        """Return what is wrong with an object, worded as kube-apiserver words it.

        What was wrong in `old` already, and has not changed since, is forgiven. A write to status checks status alone.
        """
        bare = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
        found: set[tuple[Cause, ...]] = set()
        for error in self._validator.iter_errors(bare):
            steps = list(error.instance_path)
            if subresource == "status" and steps[:1] != ["status"]:
                continue
            if old is None or not self._unchanged(steps, obj, old):
                told = tuple(_causes(error, self._schema, bare, subresource))
                together = {"integer", "string"} <= set(getattr(error.kind, "types", ()))
                found.update([told] if together else [(cause,) for cause in told])
        return [each for told in sorted(found, key=lambda told: (told[0].field, told[0].message)) for each in told]

    def _unchanged(self, steps: list[str | int], new: Any, old: Any) -> bool:
        """Whether a value, or one around it, is what it was; items of lists are found again by their keys."""
        schema: Schema | None = self._schema
        for step in steps:
            if schema is None:
                return False
            if isinstance(step, int):
                item = new[step]
                if not schema.keys or not isinstance(old, list) or not isinstance(item, dict):
                    return False
                wanted = [item.get(key) for key in schema.keys]
                twins = [one for one in old if isinstance(one, dict) and [one.get(k) for k in schema.keys] == wanted]
                if not twins:
                    return False
                new, old, schema = item, twins[0], schema.items
            else:
                if not isinstance(old, dict) or step not in old:
                    return False
                new, old, schema = new[step], old[step], schema.field(step)
            if type(new) is type(old) and new == old:
                return True
        return False


@lru_cache(maxsize=128)
def validator(resource: Resource) -> Validator:
    """Return the validator of a custom resource, built on first use."""
    return Validator(resource.crd_schema or {})


def _json_schema(raw: Raw) -> Raw:
    result: Raw = {key: raw[key] for key in _COPIED if key in raw}
    for bound, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if bound in raw:
            result[strict if raw.get(strict) else bound] = raw[bound]
    if "pattern" in raw:
        result["pattern"] = _any_case(raw["pattern"]) if "(?i)" in raw["pattern"] else raw["pattern"]
    if raw.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    elif "type" in raw:
        result["type"] = raw["type"]
    if raw.get("nullable") and "type" in result:
        words = result["type"]
        result["type"] = [*(words if isinstance(words, list) else [words]), "null"]
    if raw.get("format") in _FORMATS:
        result["format"] = raw["format"]
    for key in ("allOf", "anyOf", "oneOf"):
        if key in raw and not raw.get("x-kubernetes-int-or-string"):
            result[key] = [_json_schema(item) for item in raw[key]]
    if raw.get("format") in _RANGES and raw.get("type") == "integer":
        low, high = _RANGES[raw["format"]]
        for bound, limit in (("minimum", low), ("maximum", high)):
            if bound not in raw:
                result[bound] = limit
    if "not" in raw:
        result["not"] = _json_schema(raw["not"])
    if "properties" in raw:
        result["properties"] = {name: _json_schema(child) for name, child in raw["properties"].items()}
    if raw.get("x-kubernetes-embedded-resource"):
        result["required"] = [*result.get("required", ()), "apiVersion", "kind"]
    if "items" in raw:
        result["items"] = _json_schema(raw["items"])
    if isinstance(raw.get("additionalProperties"), dict):
        result["additionalProperties"] = _json_schema(raw["additionalProperties"])
    return result


def _any_case(pattern: str) -> str:
    """Spell out Go's `(?i)`, which JSON schema does not know inside a pattern."""
    before, _, after = pattern.partition("(?i)")
    return before + re.sub("[A-Za-z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", after)


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_address(text: str, version: int) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


_FORMATS = {
    "date-time": _is_time,
    "date": _is_time,
    "ipv4": lambda text: _is_address(text, 4),
    "ipv6": lambda text: _is_address(text, 6),
}


def _causes(error: Any, root: Schema, obj: Obj, within: str = "") -> Iterator[Cause]:
    """Spell one complaint of the library; in words about status alone the path begins below it."""
    steps = list(error.instance_path)
    value: Any = obj
    schema = root
    for step in steps:
        value = value[step]
        schema = (schema.items if isinstance(step, int) else schema.field(step)) or Schema.ANY
    path = _spell(steps)
    said = path.removeprefix(f"{within}.") if within else path
    kind, limit = error.kind.name, error.kind.value
    if kind == "required":
        yield required(f"{path}.{error.kind.property}" if path else str(error.kind.property))
    elif kind == "enum":
        yield unsupported(path, value, [str(option) for option in limit if option is not None], ordered=True)
    elif kind == "type":
        yield from _wrong_type(path, said, value, schema, error.kind.types)
    elif kind == "format":
        yield _mistyped(path, said, str(limit), value)
    elif kind in ("minimum", "maximum") and limit in _RANGES.get(schema.raw.get("format", ""), ()):
        yield _out_of_range(said, schema)
    elif kind in ("oneOf", "anyOf", "not"):
        yield Cause(NOWHERE, "FieldValueInvalid", f'Invalid value: "": "{said}" {_choice(error.kind)}')
        branches = error.kind.context if kind != "not" else []
        if branches and all(branches):  # none fits: what keeps the first from fitting is told as well
            for below in branches[0]:
                yield from _causes(below, root, obj, within)
    elif kind == "maxLength":
        yield Cause(path, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")
    elif kind in ("maxItems", "maxProperties"):
        yield Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {limit} items")
    else:
        shown = len(value) if kind in ("minItems", "minProperties") else value
        yield invalid_value(path, shown, f"{said} in body {_sentence(error, kind)}")


def _wrong_type(path: str, said: str, value: Any, schema: Schema, types: Any) -> Iterator[Cause]:
    word = schema.raw.get("format")
    if word and value is not None and not isinstance(value, str | list):
        yield _mistyped(path, said, word, _GO_TYPES.get(type(value), ""))
        if isinstance(value, int | float) and word in _RANGES:
            yield _out_of_range(said, schema)
        return
    wanted, got = ",".join(str(word) for word in types if word != "null"), _TYPES.get(type(value), "null")
    yield _mistyped(path, said, wanted, got)
    if schema.raw.get("x-kubernetes-int-or-string") and "anyOf" in schema.raw:  # of integer and string, in this order
        text = f'"{said}" must validate at least one schema (anyOf)'
        yield Cause(NOWHERE, "FieldValueInvalid", f'Invalid value: "": {text}')
        yield _mistyped(path, said, "integer", got)
        if isinstance(value, float):
            text = f"Checked value must be of type integer (default format) in {said}"
            yield Cause(NOWHERE, "FieldValueInvalid", f'Invalid value: "": {text}')


def _mistyped(path: str, said: str, wanted: str, got: str) -> Cause:
    return Cause(
        path,
        "FieldValueTypeInvalid",
        f"Invalid value: {spell(got)}: {said} in body must be of type {wanted}: {spell(got)}",
    )


def _out_of_range(said: str, schema: Schema) -> Cause:
    text = f"Checked value must be of type {schema.raw['type']} with format {schema.raw['format']} in {said}"
    return Cause(NOWHERE, "FieldValueInvalid", f'Invalid value: "": {text}')


def _choice(kind: Any) -> str:
    if kind.name == "not":
        return "must not validate the schema (not)"
    if kind.name == "anyOf":
        return "must validate at least one schema (anyOf)"
    valid = sum(not branch for branch in kind.context)
    found = f"Found {valid} valid alternatives" if valid else "Found none valid"
    return f"must validate one and only one schema (oneOf). {found}"


def _sentence(error: Any, kind: str) -> str:
    words = {
        "minimum": "should be greater than or equal to {}",
        "maximum": "should be less than or equal to {}",
        "exclusiveMinimum": "should be greater than {}",
        "exclusiveMaximum": "should be less than {}",
        "multipleOf": "should be a multiple of {}",
        "pattern": "should match '{}'",
        "minLength": "should be at least {} chars long",
        "minItems": "should have at least {} items",
        "minProperties": "should have at least {} properties",
        "uniqueItems": "shouldn't contain duplicates",
    }
    return words[kind].format(error.kind.value) if kind in words else str(error.message)


def _spell(steps: list[Any]) -> str:
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else str(step))
    return text
