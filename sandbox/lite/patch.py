"""JSON merge patch and strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

from sandbox.lite.errors import StatusError
from sandbox.lite.golang import plain
from sandbox.lite.schema import Schema

Obj = dict[str, Any]


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def strategic_merge(target: Any, patch: Any, schema: Schema) -> Any:
    """Merge as kubectl means it: lists with a merge key join by it, `$patch` and its kin are obeyed."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    mode = patch.get("$patch")
    if mode == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    if mode == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {name: value for name, value in result.items() if name in patch["$retainKeys"]}
    before = dict(result)
    # A patch has its directives first, and they are about what becomes of the lists.
    for name, value in sorted(patch.items(), key=lambda item: item[0].startswith("$")):
        if name.startswith("$"):
            _directive(result, before, name, value, schema)
        elif value is None:
            result.pop(name, None)
        else:
            below = schema.field(name) or Schema.ANY
            current = result.get(name)
            if isinstance(value, list) and "merge" in below.raw.get("x-kubernetes-patch-strategy", ""):
                result[name] = _merge_list(current or [], value, below)
            elif isinstance(value, dict):
                result[name] = strategic_merge(current, value, below)
            else:
                result[name] = copy.deepcopy(value)
    return result


def _directive(result: Obj, before: Obj, name: str, value: Any, schema: Schema) -> None:
    verb, _, target = name.partition("/")
    if verb == "$deleteFromPrimitiveList":
        result[target] = [item for item in result.get(target) or [] if item not in value]
    elif verb == "$setElementOrder":
        below = schema.field(target) or Schema.ANY
        key = below.raw.get("x-kubernetes-patch-merge-key")
        if items := result.get(target):
            result[target] = _ordered(items, value, before.get(target) or [], key)


def _merge_list(current: list[Any], patch: list[Any], schema: Schema) -> list[Any]:
    key = schema.raw.get("x-kubernetes-patch-merge-key")
    if not key:
        return _ordered(current + [item for item in patch if item not in current], patch, current, None)
    if any(item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if "$patch" not in item]
    if not current:
        return [strategic_merge({}, item, schema.items) for item in patch if item.get("$patch") != "delete"]
    result = list(current)
    for item in patch:
        if key not in item:
            raise StatusError(500, "", f"map: {plain(item)} does not contain declared merge key: {key}")
        place = next((i for i, known in enumerate(result) if known.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if place is not None:
                del result[place]
        elif place is None:
            result.append(strategic_merge({}, item, schema.items))
        else:
            result[place] = strategic_merge(result[place], item, schema.items)
    return _ordered(result, patch, current, key)


def _ordered(items: list[Any], patch: list[Any], server: list[Any], key: str | None) -> list[Any]:
    """Order a merged list: what the patch names by the patch, the rest as it was, and where the two meet as it was.

    What is new comes before all that the patch does not name.
    """

    def name(item: Any) -> Any:
        return item.get(key) if key else item

    wanted, known = [name(item) for item in patch], [name(item) for item in server]
    named = sorted((item for item in items if name(item) in wanted), key=lambda item: wanted.index(name(item)))
    rest = [item for item in items if name(item) not in wanted]
    result: list[Any] = []
    while named and rest:
        mine, other = name(named[0]), name(rest[0])
        kept = mine in known and other in known and known.index(other) < known.index(mine)
        result.append((rest if kept else named).pop(0))
    return result + named + rest
