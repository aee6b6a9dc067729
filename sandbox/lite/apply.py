"""Server-side apply and the bookkeeping of all other writes, after structured-merge-diff."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from sandbox.lite import errors, last_applied
from sandbox.lite.converting import conversion_error
from sandbox.lite.fields import (
    Fields,
    Path,
    TypedError,
    closure,
    compare,
    dotted,
    field_set,
    item_step,
)
from sandbox.lite.managers import (
    Manager,
    Managers,
    Owned,
    read_managers,
    strip,
    taken_metadata,
    unnamed,
    without,
    write_managers,
)
from sandbox.lite.resources import Resource
from sandbox.lite.schema import Schema

Obj = dict[str, Any]

_SCALE = "autoscaling/v1"  # whoever set the replicas, to whom asks through the scale it was a scale


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def track_update(resource: Resource, live: Obj | None, new: Obj, manager: str, subresource: str) -> None:
    """Write into `new` who owns what after a create, update or patch by `manager`."""
    managers = _base_managers(live, new, subresource)
    if live is not None and not managers:  # what nobody owns stays so until the first apply
        new["metadata"].pop("managedFields", None)
        return
    before = _bare(live) if live else _empty(new)
    found = compare(before, _bare(new), resource.schema)
    changed = strip(found.added | found.modified, subresource, resource)
    me = Manager(manager, "Update", subresource, resource.api_version)
    managers = without(managers, found.removed)
    mine = managers.pop(me, None)
    managers = without(managers, changed)
    fields = changed | (set(mine.fields) if mine else set())
    if fields:
        stamp = mine.time if mine is not None and not changed else _stamp(subresource)
        managers[me] = Owned(frozenset(fields), resource.api_version, stamp)
    _note(new, managers)


def apply(
    resource: Resource, live: Obj | None, config: Obj, manager: str, *, force: bool, subresource: str = ""
) -> Obj:
    """Return the object after `manager` applied `config`; `live` itself when nothing changed.

    Raises StatusError 500 when `config` does not fit the schema, 409 on conflicts without `force`.
    """
    schema = resource.schema
    given = _bare(config)
    try:
        wanted = strip(field_set(given, schema), subresource, resource)
    except TypedError as error:
        raise errors.StatusError(500, "", _typed_message(resource, config, str(error))) from None
    if subresource == "status":
        given = {key: given[key] for key in ("apiVersion", "kind", "metadata", "status") if key in given}
        given["metadata"] = taken_metadata(resource, given["metadata"])
    elif resource.has_status:
        given.pop("status", None)
    managers = _live_managers(resource, live)
    me = Manager(manager, "Apply", subresource)
    before = _bare(live) if live else _empty(config)
    merged: Obj = merge(before, given, schema)
    last = managers.get(me)
    managers[me] = Owned(frozenset(wanted), resource.api_version, last.time if last else "")
    if last:
        owned = {path for entry in managers.values() for path in entry.fields}
        merged = _prune(merged, set(last.fields), owned, schema)
    found = compare(before, merged, schema)
    others = {other: entry for other, entry in managers.items() if other != me}
    conflicts = {
        other: clash
        for other, entry in others.items()
        if (clash := unnamed(set(entry.fields) & (found.added | found.modified)))
    }
    if conflicts and not force:
        allowed = last_applied.forgiven(manager, live, schema)
        refused = {other: rest for other, clash in conflicts.items() if (rest := clash - allowed)}
        if refused:
            raise _conflict(refused, _SCALE if subresource == "scale" else "")
    taken = {path for clash in conflicts.values() for path in clash}
    kept = without(without(others, taken), found.removed)
    if resource.crd is None and (wrong := conversion_error(merged, schema)):
        raise errors.StatusError(500, "", _unconvertible(resource, config, wrong))
    last_applied.follow(manager, merged, config)
    noted = live is not None and merged["metadata"].get("annotations") != live["metadata"].get("annotations")
    stamp = _stamp(subresource) if _any(found) else managers[me].time  # who but shares what is there leaves no time
    mine = Owned(managers[me].fields, resource.api_version, stamp)
    if (
        live is not None
        and last is not None
        and mine.fields == last.fields
        and not (_any(found) or noted)
        and kept == others
    ):
        return live
    if mine.fields:
        kept[me] = mine
    _note(merged, kept)
    return merged


def _stamp(subresource: str) -> str:
    """The time that a write leaves; one through a scale leaves none."""
    return "" if subresource == "scale" else now()


def _note(obj: Obj, managers: Managers) -> None:
    if managers:
        obj["metadata"]["managedFields"] = write_managers(managers)
    else:
        obj["metadata"].pop("managedFields", None)


def merge(live: Any, config: Any, schema: Schema) -> Any:
    """Lay `config` over `live` as the schema says: maps and associative lists join, the rest is replaced."""
    if isinstance(live, dict) and isinstance(config, dict) and not schema.atomic:
        joined = dict(live)
        for name, value in config.items():
            below = schema.field(name) or Schema.ANY
            joined[name] = merge(live[name], value, below) if name in live else copy.deepcopy(value)
        return joined
    if isinstance(live, list) and isinstance(config, list) and (schema.is_set or schema.keys):
        return _merge_lists(live, config, schema)
    return copy.deepcopy(config)


def _prune(merged: Obj, last: Fields, owned: Fields, schema: Schema) -> Obj:
    """Take out what only the last apply owned. What nobody owns stays, even below what goes."""
    held = closure(owned)
    left = closure(field_set_loosely(remove(merged, last, schema), schema))
    gone = closure(field_set_loosely(merged, schema)) - left - held
    pruned: Obj = remove(merged, gone & closure(last), schema, held=held)
    return pruned


def remove(value: Any, fields: Fields, schema: Schema, path: Path = (), held: Fields | None = None) -> Any:
    """Return `value` without the parts at `fields`, and without what they leave empty unless it is in `held`."""
    if isinstance(value, dict) and not schema.atomic:
        left = {}
        for name, child in value.items():
            step = (*path, f"f:{name}")
            if step in fields:
                continue
            rest = remove(child, fields, schema.field(name) or Schema.ANY, step, held)
            if rest or not child or not isinstance(child, dict | list) or step in (held or ()):
                left[name] = rest
        return left
    if isinstance(value, list) and (schema.is_set or schema.keys):
        kept = []
        for item in value:
            step = (*path, item_step(item, schema, path))
            if step not in fields:
                kept.append(remove(item, fields, schema.items, step, held))
        return kept
    return value


def _merge_lists(live: list[Any], config: list[Any], schema: Schema) -> list[Any]:
    """Join by key. The applied order holds among its items; the others keep their place between them."""
    left = {item_step(item, schema, ()): item for item in live}
    right = {item_step(item, schema, ()): item for item in config}
    result: list[Any] = []
    lefts, rights = list(left), list(right)
    shared = [step for step in rights if step in left]
    done: set[str] = set()

    def take(step: str) -> None:
        done.add(step)
        if shared and shared[0] == step:
            shared.pop(0)
        item = right[step]
        result.append(merge(left[step], item, schema.items) if step in left else copy.deepcopy(item))

    while lefts or rights:
        if lefts and rights:
            if lefts[0] == rights[0]:
                take(lefts.pop(0))
                rights.pop(0)
                continue
            if lefts[0] in right and shared and shared[0] != lefts[0]:
                lefts.pop(0)  # it comes when its turn in the applied order does
                continue
        if lefts:
            if lefts[0] not in right:
                result.append(left[lefts.pop(0)])
                continue
            if lefts[0] in done:
                lefts.pop(0)
        if rights:
            take(rights.pop(0))
    return result


def _base_managers(live: Obj | None, new: Obj, subresource: str) -> Managers:
    """Take the managers the writer sent, when well-formed (that is how they are rewritten), else the stored ones."""
    sent = new["metadata"].get("managedFields")
    if sent == [{}]:
        return {}
    stored = live["metadata"].get("managedFields") if live else None
    if sent and not subresource:
        try:
            return read_managers(sent)
        except (KeyError, ValueError, AttributeError, TypeError):
            pass
    return read_managers(stored)


def _live_managers(resource: Resource, live: Obj | None) -> Managers:
    if live is None:
        return {}
    managers = read_managers(live["metadata"].get("managedFields"))
    if not managers:
        fields = strip(field_set_loosely(_bare(live), resource.schema), "", resource)
        before = Manager("before-first-apply", "Update", "", resource.api_version)
        managers[before] = Owned(frozenset(fields), resource.api_version, now())
    return managers


def field_set_loosely(obj: Obj, schema: Schema) -> Fields:
    """Return the paths of an object that may have fields its schema no longer declares."""
    found = compare({}, obj, schema)
    return found.added | found.modified


def _bare(obj: Obj) -> Obj:
    meta = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "managedFields"}
    return obj | {"metadata": meta}


def _empty(obj: Obj) -> Obj:
    return {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": {}}


def _any(found: Any) -> bool:
    return bool(found.added or found.removed or found.modified)


def _typed_message(resource: Resource, config: Obj, why: str) -> str:
    return f"failed to create typed patch object ({_told(resource, config)}): {why}"


def _unconvertible(resource: Resource, config: Obj, why: str) -> str:
    kind = f"{resource.group}/{resource.version}, Kind={resource.kind}"
    return (
        f"failed to convert new object ({_told(resource, config)}) to proper version: unable to convert unstructured "
        f"object to {kind}: {why}"
    )


def _told(resource: Resource, config: Obj) -> str:
    meta = config.get("metadata") or {}
    named = f"{meta.get('namespace') or ''}/{meta.get('name') or ''}"
    return f"{named}; {resource.group}/{resource.version}, Kind={resource.kind}"


def _turn(path: Path) -> list[tuple[bool, str]]:
    """Sort key of paths as structured-merge-diff walks its sets: at each level first what ends there."""
    return [(place < len(path) - 1, step) for place, step in enumerate(path)]


def _conflict(conflicts: dict[Manager, Fields], version: str) -> errors.StatusError:
    """409 that names who owns what; `version`, when set, is what all of them are said to have used."""
    causes, lines = [], []
    for manager in sorted(conflicts, key=lambda m: (m.name, m.operation, m.subresource)):
        who = f'"{manager.name}"'
        if manager.subresource:
            who += f' with subresource "{manager.subresource}"'
        if manager.operation == "Update":
            who += f" using {version or manager.api_version}"
        paths = [dotted(path) for path in sorted(conflicts[manager], key=_turn)]
        causes += [
            {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path} for path in paths
        ]
        lines += [f"conflicts with {who}:", *(f"- {path}" for path in paths)]
    if len(causes) == 1:
        text = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        text = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return errors.StatusError(409, "Conflict", text, details={"causes": causes})
