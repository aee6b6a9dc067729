"""Custom resources that scale: their number of replicas, wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.lite.errors import Cause, invalid_value
from sandbox.lite.resources import Resource

Obj = dict[str, Any]

_TYPES = {str: "string", bool: "bool", float: "float64", dict: "map[string]interface {}", list: "[]interface {}"}


def wanted_replicas(resource: Resource, obj: Obj) -> Iterator[Cause]:
    """Check how many replicas a custom resource asks for; nothing where it has no scale."""
    assert resource.crd is not None
    version = next(item for item in resource.crd["spec"]["versions"] if item["name"] == resource.version)
    scale = (version.get("subresources") or {}).get("scale")
    if not scale:
        return
    path: str = scale["specReplicasPath"]
    value: Any = obj
    for step in path.lstrip(".").split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        why = f"{path} accessor error: {value} is of the type {_TYPES.get(type(value), 'string')}, expected int64"
        yield invalid_value(path, 0, why)
    elif value < 0:
        yield invalid_value(path, value, "should be a non-negative integer")
