"""Who owns which fields of an object, by its managed fields. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from deployments.labels import FIELD_MANAGER

Object = dict[str, Any]


def managed_hash(live: Mapping[str, Any]) -> str:
    """Hash the fields that the server credits to us; empty when it credits none.

    An edit by anybody else of a field that we own takes the field out of our set, so the hash changes. Fields that
    others add change nothing.
    """
    return hash_of_fields(
        (str(entry.get("operation")), entry.get("fieldsV1") or {}) for entry in _ours(live) if entry.get("fieldsV1")
    )


def hash_of_fields(entries: Iterable[tuple[str, Any]]) -> str:
    """Hash (operation, field set) pairs in one spelling."""
    spelled = sorted((operation, orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)) for operation, fields in entries)
    if not spelled:
        return ""
    return hashlib.sha256(b"\x00".join(operation.encode() + fields for operation, fields in spelled)).hexdigest()


def is_split(live: Mapping[str, Any]) -> bool:
    """True while an Update entry of ours is left: fields in it would stay when we stop sending them."""
    return any(entry.get("operation") == "Update" for entry in _ours(live))


def last_editor(live: Mapping[str, Any]) -> str:
    """Name the manager that wrote last beside us, status left out; empty when there is none.

    Times have whole seconds only. A controller that keeps nothing but its finalizer there is no editor, or it would be
    named for what a person did within the same second.
    """
    others = [
        entry
        for entry in _entries(live)
        if entry.get("manager") not in (None, "", FIELD_MANAGER) and not entry.get("subresource") and _edits(entry)
    ]
    newest = max(others, key=lambda entry: str(entry.get("time") or ""), default=None)
    return str(newest["manager"]) if newest else ""


def _edits(entry: Mapping[str, Any]) -> bool:
    """Whether an entry holds more than bookkeeping of controllers."""
    fields = entry.get("fieldsV1") or {}
    metadata = fields.get("f:metadata") or {}
    return bool(fields.keys() - {"f:metadata"} or metadata.keys() - {"f:finalizers", "f:ownerReferences"})


def ownership_patch(live: Mapping[str, Any]) -> list[Object]:
    """Return the JSON patch that moves our managed fields from Update to Apply; empty when there is nothing to move.

    Where both entries exist, Apply gets the union and the Update entry goes.
    """
    entries = _entries(live)
    ours = {str(entry.get("operation")): index for index, entry in enumerate(entries) if _is_ours(entry)}
    update, apply = ours.get("Update"), ours.get("Apply")
    if update is None:
        return []
    version = live["metadata"]["resourceVersion"]
    path = "/metadata/managedFields"
    patch: list[Object] = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
    if apply is None:
        return [*patch, {"op": "replace", "path": f"{path}/{update}/operation", "value": "Apply"}]
    union = merge_fields(entries[apply].get("fieldsV1") or {}, entries[update].get("fieldsV1") or {})
    patch.append({"op": "replace", "path": f"{path}/{apply}/fieldsV1", "value": union})
    patch.append({"op": "remove", "path": f"{path}/{update}"})
    return patch


def merge_fields(left: Mapping[str, Any], right: Mapping[str, Any]) -> Object:
    """Return the union of two field sets (`fieldsV1`)."""
    merged = dict(left)
    for key, value in right.items():
        merged[key] = merge_fields(merged.get(key) or {}, value)
    return merged


def _entries(live: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = (live.get("metadata") or {}).get("managedFields")
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def _ours(live: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry for entry in _entries(live) if _is_ours(entry)]


def _is_ours(entry: Mapping[str, Any]) -> bool:
    return entry.get("manager") == FIELD_MANAGER and not entry.get("subresource")
