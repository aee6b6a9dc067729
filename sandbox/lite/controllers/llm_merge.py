"""Putting one LLMInferenceService spec over another as KServe does: a strategic merge with Kubernetes' list keys. Pure.

Lists of a pod spec that have a key (containers by name, ports by containerPort, ...) are merged entry by entry; all
other lists are replaced. Only what is set counts: empty strings, lists and maps of scalars say nothing.
"""

from __future__ import annotations

import copy
from typing import Any

from sandbox.client import Obj

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
}
_POD_SPECS = ("template", "worker")


def merge_specs(*specs: Obj) -> Obj:
    """Return the specs in one; later ones win."""
    merged: Obj = {}
    for spec in specs:
        merged = _merge(merged, _said(spec), in_pod=False)
    return merged


def merge_container(base: Obj, over: Obj) -> Obj:
    """Return a container with what another says put over it."""
    return _merge(base, _said(over), in_pod=True)


def _said(value: Any) -> Any:
    """Drop what a Go struct leaves out when it is written as JSON."""
    if isinstance(value, dict):
        return {name: _said(item) for name, item in value.items() if item is not None and item not in ("", [])}
    if isinstance(value, list):
        return [_said(item) if isinstance(item, dict) else item for item in value]
    return value


def _merge(base: Obj, over: Obj, *, in_pod: bool) -> Obj:
    merged = copy.deepcopy(base)
    for name, value in over.items():
        known = merged.get(name)
        below = in_pod or name in _POD_SPECS
        if isinstance(value, dict) and isinstance(known, dict):
            merged[name] = _merge(known, value, in_pod=below)
        elif isinstance(value, list) and isinstance(known, list) and in_pod and name in _KEYS:
            merged[name] = _merge_list(known, value, name)
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def _merge_list(base: list[Any], over: list[Any], name: str) -> list[Any]:
    """Merge by key; entries of `over` keep their order, and those of `base` alone go where `base` had them."""
    key = _KEYS[name]
    known = {item.get(key): item for item in base}
    place = {item.get(key): index for index, item in enumerate(base)}
    left = [item for item in base if item.get(key) not in {entry.get(key) for entry in over}]
    right = [_merge_entry(known.get(item.get(key)), item, name) for item in over]
    joined: list[Any] = []
    while left and right:
        first, second = place[left[0].get(key)], place.get(right[0].get(key), -1)
        joined.append((left if first < second else right).pop(0))
    return [*joined, *copy.deepcopy(left), *right]


def _merge_entry(known: Any, item: Any, name: str) -> Any:
    if known is None:
        return copy.deepcopy(item)
    if name == "volumes":  # a volume has one source: another source replaces the known one
        known = {key: value for key, value in known.items() if key in item}
    return _merge(known, item, in_pod=True)
