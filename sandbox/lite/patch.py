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
    for name, value in patch.items():
        if name.startswith("$"):
            _directive(result, name, value, schema)
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


def _directive(result: Obj, name: str, value: Any, schema: Schema) -> None:
    verb, _, target = name.partition("/")
    if verb == "$deleteFromPrimitiveList":
        result[target] = [item for item in result.get(target) or [] if item not in value]
    elif verb == "$setElementOrder":
        below = schema.field(target) or Schema.ANY
        key = below.raw.get("x-kubernetes-patch-merge-key")
        order = [item[key] if key else item for item in value]
        items = result.get(target) or []
        places = {name: place for place, name in enumerate(order)}
        items.sort(key=lambda item: places.get(item.get(key) if key else item, len(places)))
        if items:
            result[target] = items


def _merge_list(current: list[Any], patch: list[Any], schema: Schema) -> list[Any]:
    key = schema.raw.get("x-kubernetes-patch-merge-key")
    if not key:
        return current + [item for item in patch if item not in current]
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
    return result
