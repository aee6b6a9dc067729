"""The recordings of real KServe 0.20.0, and how an object of ours is compared with one of theirs."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parent.parent / "data" / "kserve-0.20.0"

# What a server makes itself and no two clusters make alike.
SERVER_MADE = {
    "metadata.creationTimestamp": "time",
    "metadata.resourceVersion": "count of writes",
    "metadata.uid": "random",
    "metadata.generation": "count of writes",
    "metadata.managedFields": "not recorded",
    "spec.clusterIP": "next free address",
    "spec.clusterIPs": "next free address",
}
_HASH = re.compile(r"(?<=-predictor-)[bcdfghjklmnpqrstvwxz2456789]{6,10}(-[bcdfghjklmnpqrstvwxz2456789]{5})?\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_TOKEN_VOLUME = re.compile(r"kube-api-access-[a-z0-9]{5}")


@functools.cache
def _read(name: str) -> Any:
    return yaml.load((DATA / name).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read(name: str) -> Any:
    """Return a recording; each call its own copy."""
    return copy.deepcopy(_read(name))


def read_all(name: str) -> list[dict[str, Any]]:
    """Return the documents of one example file."""
    return [item for item in yaml.safe_load_all((DATA / name).read_text()) if item]


def recorded(name: str, kind: str) -> dict[str, Any] | None:
    """Return the only recorded object of a kind, None when there is none."""
    found = [item for item in read(name)["objects"] if item["kind"] == kind]
    assert len(found) <= 1, f"{name} has {len(found)} objects of kind {kind}"
    return found[0] if found else None


def comparable(obj: Any) -> Any:
    """Return an object with what differs from cluster to cluster made equal, and keyed lists in one order."""
    whole = _plain(copy.deepcopy(obj))
    if isinstance(whole, dict):
        for path in SERVER_MADE:
            _drop(whole, path.split("."))
    return whole


def _drop(obj: dict[str, Any], path: list[str]) -> None:
    for name in path[:-1]:
        obj = obj.get(name) or {}
    obj.pop(path[-1], None)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {key: _plain(item) for key, item in value.items() if item is not None}
        for name in ("uid", "pod-template-hash"):
            if name in plain:
                plain[name] = name
        return plain
    if isinstance(value, list):
        items = [_plain(item) for item in value]
        for key in ("type", "mountPath"):
            if items and all(isinstance(item, dict) and key in item for item in items):
                return sorted(items, key=lambda item: item[key])
        if items and all(isinstance(item, dict) and "name" in item for item in items) and "valueFrom" not in items[0]:
            return sorted(items, key=lambda item: item["name"])
        return items
    if isinstance(value, str):
        value = _TIME.sub("TIME", value)
        value = _TOKEN_VOLUME.sub("kube-api-access-x", value)
        return _HASH.sub("HASH", value)
    return value
