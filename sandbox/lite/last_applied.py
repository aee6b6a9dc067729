"""kubectl's move from client-side to server-side apply: what the API server does with kubectl's own annotation.

Only the manager `kubectl` is treated so. Fields that it applied from the client's side are no conflict, and the
annotation follows what it applies now.
"""

from __future__ import annotations

from typing import Any

import orjson

from sandbox.lite.fields import Fields, compare
from sandbox.lite.schema import Schema

Obj = dict[str, Any]

MANAGER = "kubectl"
ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
LIMIT = 256 * 1024


def forgiven(manager: str, live: Obj | None, schema: Schema) -> Fields:
    """Return the fields that a manager applied before, from the client's side."""
    text = _annotations(live or {}).get(ANNOTATION)
    if manager != MANAGER or not text:
        return set()
    try:
        applied = orjson.loads(text)
    except ValueError:
        return set()
    if not isinstance(applied, dict) or not applied.get("kind"):
        return set()
    return compare({}, applied, schema).added


def follow(manager: str, obj: Obj, config: Obj) -> None:
    """Write, in place, what `manager` applied into the annotation, where there is one."""
    if manager != MANAGER or not _annotations(obj).get(ANNOTATION):
        return
    meta = config.get("metadata") or {}
    notes = {name: value for name, value in _annotations(config).items() if name != ANNOTATION}
    meta = {name: value for name, value in meta.items() if name != "annotations"} | (
        {"annotations": notes} if notes else {}
    )
    text = orjson.dumps(config | {"metadata": meta}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    kept = dict(_annotations(obj))
    if len(text) > LIMIT:
        del kept[ANNOTATION]
    else:
        kept[ANNOTATION] = text
    obj["metadata"] = obj["metadata"] | {"annotations": kept}


def _annotations(obj: Obj) -> Obj:
    return (obj.get("metadata") or {}).get("annotations") or {}
