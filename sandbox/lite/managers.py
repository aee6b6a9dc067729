"""Field managers: who owns which fields of an object, as kept in metadata.managedFields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sandbox.lite.fields import Fields, decode, encode
from sandbox.lite.resources import Resource

Obj = dict[str, Any]

# Fields nobody owns: the server writes them, or they name the object.
_STRIPPED: Fields = {("f:apiVersion",), ("f:kind",), ("f:metadata",)} | {
    ("f:metadata", f"f:{name}")
    for name in (
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    )
}


@dataclass(frozen=True)
class Manager:
    """Who wrote, how, and through which subresource."""

    name: str
    operation: str  # Apply or Update
    subresource: str = ""
    api_version: str = ""  # only Updates of different versions are told apart


@dataclass(frozen=True)
class Owned:
    """What one manager owns."""

    fields: frozenset[tuple[str, ...]]
    api_version: str
    time: str


Managers = dict[Manager, Owned]


def read_managers(entries: Iterable[Obj] | None) -> Managers:
    """Read metadata.managedFields. Raises ValueError or KeyError when an entry is malformed."""
    managers: Managers = {}
    for entry in entries or ():
        operation = entry["operation"]
        if operation not in ("Apply", "Update"):
            raise ValueError(f"invalid operation {operation}")
        version = entry["apiVersion"]
        manager = Manager(
            entry.get("manager", ""),
            operation,
            entry.get("subresource", ""),
            version if operation == "Update" else "",
        )
        managers[manager] = Owned(frozenset(decode(entry.get("fieldsV1") or {})), version, entry.get("time", ""))
    return managers


def write_managers(managers: Managers) -> list[Obj]:
    """Write metadata.managedFields, Apply entries first, then by time and name."""
    ordered = sorted(
        managers.items(),
        key=lambda pair: (pair[0].operation, pair[1].time, pair[0].name, pair[1].api_version, pair[0].subresource),
    )
    entries = []
    for manager, owned in ordered:
        entry = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": owned.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": encode(set(owned.fields)),
        }
        if not owned.time:
            del entry["time"]
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    return entries


# What of metadata a write to the status of a built-in kind leaves alone; of other built-in kinds it changes all.
_HELD_BACK = {"apps/deployments": {"labels"}, "/pods": {"ownerReferences"}}


def held_back(resource: Resource) -> set[str] | None:
    """Return what of metadata a write to status leaves alone; None where that is all of it, in custom resources."""
    return None if resource.crd is not None else _HELD_BACK.get(resource.storage_key, set())


def taken_metadata(resource: Resource, meta: Obj) -> Obj:
    """Return what of an applied metadata goes on to the object where only its status is applied."""
    held = held_back(resource)
    held = {"labels", "annotations", "finalizers", "ownerReferences"} if held is None else held
    return {name: value for name, value in meta.items() if name not in held}


def strip(fields: Fields, subresource: str, resource: Resource) -> Fields:
    """Drop the fields that nobody owns, and those a write through this door leaves alone."""
    kept = fields - _STRIPPED
    if subresource != "status":
        return {path for path in kept if path[0] != "f:status"} if resource.has_status else kept
    held = held_back(resource)
    if held is None:
        return {path for path in kept if path[0] == "f:status"}
    left_alone = {("f:metadata", f"f:{name}") for name in held}
    return {path for path in kept if path[0] in ("f:status", "f:metadata") and path[:2] not in left_alone}


def unnamed(fields: Fields) -> Fields:
    """Drop the fields that nobody owns."""
    return fields - _STRIPPED


def without(managers: Managers, fields: Fields) -> Managers:
    """Take fields away from everyone; managers left with none go."""
    left: Managers = {}
    for manager, owned in managers.items():
        rest = owned.fields - fields
        if rest:
            left[manager] = owned if len(rest) == len(owned.fields) else replace(owned, fields=rest)
    return left
