"""RFC 6902 as kube-apiserver means it: what its patch library forgives is forgiven here too.

Against the letter of the RFC a member that is not there can be replaced, copied (as null) and tested for null, an
operation may lack its value, and an index may count from the end.
"""

from __future__ import annotations

import copy
from typing import Any

Obj = dict[str, Any]

MEMBERS = ("op", "path", "from", "value")
OPERATIONS_LIMIT = 10_000

_ABSENT: Any = object()


class PatchFailed(ValueError):
    """An operation does not apply, or a test failed."""


def json_patch(target: Obj, operations: list[Any]) -> Any:
    """Return a patched copy. Raises PatchFailed at the first operation that does not apply."""
    document = copy.deepcopy(target)
    for operation in operations:
        document = _step(document, operation or {})
    return document


def unknown_members(operations: list[Any]) -> list[str]:
    """Return what no operation has, as paths like `[0].valeu`."""
    return [
        f"[{place}].{member}"
        for place, operation in enumerate(operations)
        for member in operation or ()
        if member not in MEMBERS
    ]


def _step(document: Any, operation: Obj) -> Any:
    kind, path = operation.get("op"), operation.get("path")
    if not isinstance(path, str):
        raise PatchFailed(f"{kind} operation has no path")
    value = copy.deepcopy(operation.get("value"))
    if path == "" and kind == "test":
        if not same(document, value):
            raise PatchFailed("testing value  failed")
    elif path == "" and kind == "replace":
        if not isinstance(value, dict | list):
            raise PatchFailed("replace operation value must be object or array")
        return value
    elif kind == "test":
        holder, key = _find(document, path)
        if not same(_get(holder, key), value):
            raise PatchFailed(f"testing value {path} failed")
    elif kind == "add":
        _add(*_find(document, path), value)
    elif kind == "remove":
        _remove(*_find(document, path))
    elif kind == "replace":
        holder, key = _find(document, path)
        _get(holder, key)
        holder[_index(holder, key) if isinstance(holder, list) else key] = value
    elif kind in ("move", "copy"):
        source = operation.get("from")
        if not isinstance(source, str):
            raise PatchFailed(f"{kind} operation has no from")
        holder, key = _find(document, source)
        taken = copy.deepcopy(_get(holder, key))
        if kind == "move":
            _remove(holder, key)
        _add(*_find(document, path), taken)
    else:
        raise PatchFailed(f"unexpected kind: {kind}")
    return document


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same, 1 and 1.0 and true being three."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)


def _find(document: Any, path: str) -> tuple[Any, str]:
    """Return the container that holds a path's last step, and that step."""
    first, *steps = path.split("/")
    if not steps:
        raise PatchFailed(f"doc is missing path: {first}")
    holder = document
    *parents, last = (step.replace("~1", "/").replace("~0", "~") for step in steps)
    for step in parents:
        try:
            holder = _get(holder, step)
        except PatchFailed:
            holder = None
        if not isinstance(holder, dict | list):
            raise PatchFailed(f"doc is missing path: {path}")
    return holder, last


def _get(holder: Any, key: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(key)
    place = _index(holder, key)
    if place >= len(holder):
        raise PatchFailed(f"Unable to access invalid index: {key}")
    return holder[place]


def _add(holder: Any, key: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[key] = value
    elif key == "-":
        holder.append(value)
    else:
        place = _index(holder, key, spare=1)
        if place > len(holder):
            raise PatchFailed(f"Unable to access invalid index: {key}")
        holder.insert(place, value)


def _remove(holder: Any, key: str) -> None:
    if isinstance(holder, dict):
        if holder.pop(key, _ABSENT) is _ABSENT:
            raise PatchFailed(f"Unable to remove nonexistent key: {key}")
        return
    _get(holder, key)
    del holder[_index(holder, key)]


def _index(holder: list[Any], key: str, spare: int = 0) -> int:
    """Read an index; a negative one counts from the end, for an insertion from behind it."""
    try:
        place = int(key)
    except ValueError:
        raise PatchFailed(f"value was not a proper array index: '{key}'") from None
    if place < 0:
        place += len(holder) + spare
        if place < 0:
            raise PatchFailed(f"Unable to access invalid index: {key}")
    return place
