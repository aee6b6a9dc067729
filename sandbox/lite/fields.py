"""Sets of field paths: which fields an object has, how two objects differ, and the fieldsV1 spelling.

A path is a tuple of the steps fieldsV1 uses: `f:name` for a field, `k:{"name":"x"}` for an item of an associative
list, `v:"x"` for an item of a set; complaints also say `i:0` for an item of any other list. The rules follow
structured-merge-diff.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from sandbox.lite import golang
from sandbox.lite.schema import Schema

Path = tuple[str, ...]
Fields = set[Path]


class TypedError(ValueError):
    """The object does not fit its schema: `.spec.nope: field not declared in schema`."""


@dataclass
class Difference:
    """Paths that one object has gained, lost or changed against another."""

    added: Fields = field(default_factory=set)
    removed: Fields = field(default_factory=set)
    modified: Fields = field(default_factory=set)


def field_set(obj: Any, schema: Schema) -> Fields:
    """Return the paths an applied configuration takes ownership of. Raises TypedError when it does not fit."""
    found: Fields = set()
    _collect(obj, schema, (), found)
    return found


def compare(old: Any, new: Any, schema: Schema) -> Difference:
    """Return how `new` differs from `old`."""
    result = Difference()
    _compare(old, new, schema, (), result)
    return result


def closure(fields: Fields) -> Fields:
    """Add to each path those of all its parents."""
    return {path[:length] for path in fields for length in range(1, len(path) + 1)}


def encode(fields: Fields) -> dict[str, Any]:
    """Write a set as fieldsV1."""
    root: dict[str, Any] = {}
    for path in sorted(fields):
        node = root
        for step in path:
            node = node.setdefault(step, {})
        node["."] = {}
    return {step: _fold(child) for step, child in root.items()}


def decode(tree: dict[str, Any]) -> Fields:
    """Read fieldsV1."""
    found: Fields = set()
    _unfold(tree, (), found)
    return found


def item_step(item: Any, schema: Schema, path: Path, index: int = 0) -> str:
    """Return the step that names an item of a set or an associative list. Raises TypedError without its keys."""
    if schema.is_set:
        return "v:" + orjson.dumps(item).decode()
    if not isinstance(item, dict):
        what = "a null element" if item is None else "non-map elements"
        raise TypedError(f"{dotted(path)}: element {index}: associative list with keys may not have {what}")
    named = {}
    for key in schema.keys:
        value = item.get(key, schema.key_default(key))
        if value is not None:
            named[key] = value
    if not named:
        keys = " ".join(f'"{key}"' for key in schema.keys)
        raise TypedError(
            f"{dotted(path)}: element {index}: associative list with keys has an element that omits all key fields "
            f"[{keys}] (and doesn't have default values for any key fields)"
        )
    return "k:" + orjson.dumps(named, option=orjson.OPT_SORT_KEYS).decode()


def dotted(path: Path) -> str:
    """Write a path for people: `.spec.containers[name="x"].image`."""
    words = []
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            words.append(f".{rest}")
        elif kind == "k":
            named = ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in orjson.loads(rest).items())
            words.append(f"[{named}]")
        elif kind == "i":
            words.append(f"[{rest}]")
        else:
            words.append(f"[={rest}]")
    return "".join(words)


def _collect(value: Any, schema: Schema, path: Path, found: Fields) -> None:
    if value is None:
        if path:
            found.add(path)
        return
    check_type(value, schema, path)
    if isinstance(value, dict) and not schema.atomic:
        for name, child in value.items():
            step = (*path, f"f:{name}")
            below = schema.field(name)
            if below is None:
                raise TypedError(f"{dotted(step)}: field not declared in schema")
            _collect(child, below, step, found)
            if child is None or child == {} or not schema.is_declared(name):
                found.add(step)
    elif isinstance(value, list) and (schema.is_set or schema.keys):
        for index, item in enumerate(value):
            step = (*path, item_step(item, schema, path, index))
            if step in found:
                raise TypedError(f"{dotted(path)}: duplicate entries for key {dotted(step[-1:])}")
            _collect(item, schema.items, step, found)
            found.add(step)
    else:
        check_inside(value, schema, path)
        found.add(path)


def check_inside(value: Any, schema: Schema, path: Path) -> None:
    """Check what lies in an atomic value: it must fit the schema as well."""
    if isinstance(value, dict):
        for name, child in value.items():
            below = schema.field(name)
            if below is None:
                raise TypedError(f"{dotted((*path, f'f:{name}'))}: field not declared in schema")
            if child is not None:
                check_type(child, below, (*path, f"f:{name}"))
                check_inside(child, below, (*path, f"f:{name}"))
    elif isinstance(value, list):
        seen: set[str] = set()
        for index, item in enumerate(value):
            step = item_step(item, schema, path, index) if schema.is_set or schema.keys else f"i:{index}"
            if step in seen:
                raise TypedError(f"{dotted(path)}: duplicate entries for key {dotted((step,))}")
            seen.add(step)
            if item is not None:
                check_type(item, schema.items, (*path, step))
                check_inside(item, schema.items, (*path, step))


def check_type(value: Any, schema: Schema, path: Path) -> None:
    """Raise TypedError when a value is not of the schema's type."""
    wanted = schema.raw.get("type")
    if schema.kind in ("object", "map"):
        if not isinstance(value, dict):
            raise TypedError(f"{dotted(path)}: expected map, got &{{{golang.plain(value)}}}")
    elif schema.kind == "list":
        if not isinstance(value, list):
            raise TypedError(f"{dotted(path)}: expected list, got &{{{golang.plain(value)}}}")
    elif schema.kind != "scalar":
        return
    elif wanted in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypedError(f"{dotted(path)}: expected numeric (int or float), got {golang.type_name(value)}")
    elif wanted == "boolean":
        if not isinstance(value, bool):
            raise TypedError(f"{dotted(path)}: expected boolean, got &{{{golang.plain(value)}}}")
    elif isinstance(value, dict | list) or (wanted == "string" and not isinstance(value, str)):
        shown = f"&value.valueUnstructured{{Value:{golang.literal(value)}}}"
        raise TypedError(f"{dotted(path)}: expected {wanted or 'scalar'}, got {shown}")


_MISSING: Any = object()


def _compare(old: Any, new: Any, schema: Schema, path: Path, result: Difference, *, always: bool = False) -> None:
    """Note the differences; of a value that is `always` there only the parts come and go."""
    if old is new:
        return
    sides = [side for side in (old, new) if side is not _MISSING]
    if not schema.atomic and all(isinstance(side, dict) for side in sides):
        old_map, new_map = ({} if side is _MISSING else side for side in (old, new))
        for name in {**old_map, **new_map}:
            below = schema.field(name) or Schema.ANY
            before, after = old_map.get(name, _MISSING), new_map.get(name, _MISSING)
            there = (always or len(sides) == 2) and schema.always_has(name)
            _compare(before, after, below, (*path, f"f:{name}"), result, always=there)
    elif (schema.is_set or schema.keys) and all(isinstance(side, list) for side in sides):
        before_items, after_items = (_by_step(side, schema, path) for side in (old, new))
        for step in {**before_items, **after_items}:
            before, after = before_items.get(step, _MISSING), after_items.get(step, _MISSING)
            _compare(before, after, schema.items, (*path, step), result)
    elif always and schema.kind == "object":  # an atomic struct, empty where it was left out
        if ({} if old is _MISSING else old) != ({} if new is _MISSING else new):
            (result.added if old is _MISSING else result.modified).add(path)
        return
    elif old is not _MISSING and new is not _MISSING:
        if old != new or type(old) is not type(new):
            result.modified.add(path)
        return
    if not path or always:
        return
    if old is _MISSING:
        result.added.add(path)
    elif new is _MISSING:
        result.removed.add(path)


def _by_step(items: Any, schema: Schema, path: Path) -> dict[str, Any]:
    if items is _MISSING:
        return {}
    return {item_step(item, schema, path): item for item in items}


def _fold(node: dict[str, Any]) -> dict[str, Any]:
    """Leave the dot out where there is nothing else to tell."""
    if list(node) == ["."]:
        return {}
    ordered: dict[str, Any] = {".": {}} if "." in node else {}
    return ordered | {step: _fold(child) for step, child in node.items() if step != "."}


def _unfold(tree: dict[str, Any], path: Path, found: Fields) -> None:
    for step, child in tree.items():
        if step == ".":
            found.add(path)
        elif child:
            _unfold(child, (*path, step), found)
        else:
            found.add((*path, step))
