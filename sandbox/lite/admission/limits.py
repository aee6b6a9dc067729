"""LimitRange: what containers ask for when they do not say, and how much at most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.lite import errors
from sandbox.lite.admission.change import Change
from sandbox.lite.quantity import canonical_sum, parse

Obj = dict[str, Any]

_NOTE = "kubernetes.io/limit-ranger"


def fill(change: Change) -> None:
    """Write the namespace's default requests and limits into the containers of a new pod."""
    if not change.is_new("/pods"):
        return
    for found in change.cluster.read_all("/limitranges", change.namespace):
        told: list[str] = []
        for kind, word in (("containers", "container"), ("initContainers", "init container")):
            for container in change.obj["spec"].get(kind) or ():
                told += _fill(container, word, found)
        if told:
            notes = change.obj["metadata"].setdefault("annotations", {})
            notes[_NOTE] = f"LimitRanger plugin set: {'; '.join(told)}"


def _fill(container: Obj, word: str, found: Obj) -> Iterator[str]:
    """Fill a container from one LimitRange, and tell with what."""
    resources = container.setdefault("resources", {})
    for source, target, what in (("defaultRequest", "requests", "request"), ("default", "limits", "limit")):
        amounts: Obj = {}
        for item in (found.get("spec") or {}).get("limits") or ():
            if item.get("type") == "Container":
                amounts |= item.get(source) or {}
        lacking = sorted(amounts.keys() - (resources.get(target) or {}).keys())
        if lacking:
            resources[target] = {name: amounts[name] for name in lacking} | (resources.get(target) or {})
            yield f"{', '.join(lacking)} {what} for {word} {container.get('name', '')}"


def check(change: Change) -> None:
    """403 for a pod, or a container, below the least or above the most its namespace allows."""
    if not change.is_new("/pods"):
        return
    problems: list[str] = []
    for item in _items(change):
        if item.get("type") == "Pod":
            problems += _breaches(item, _together(change.obj))
        elif item.get("type") == "Container":
            for container in _containers(change.obj):
                problems += _breaches(item, container.get("resources") or {})
    if problems:
        text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise errors.forbidden("", "pods", change.shown_name, text)


def _breaches(item: Obj, resources: Obj) -> Iterator[str]:
    requests, limits, kind = resources.get("requests") or {}, resources.get("limits") or {}, item["type"]
    for name, least in (item.get("min") or {}).items():
        if name not in requests:
            yield f"minimum {name} usage per {kind} is {least}.  No request is specified"
        elif parse(requests[name]) < parse(least):
            yield f"minimum {name} usage per {kind} is {least}, but request is {requests[name]}"
    for name, most in (item.get("max") or {}).items():
        if name not in limits:
            yield f"maximum {name} usage per {kind} is {most}.  No limit is specified"
        elif parse(limits[name]) > parse(most):
            yield f"maximum {name} usage per {kind} is {most}, but limit is {limits[name]}"


def _together(pod: Obj) -> Obj:
    """What a pod asks for and may use: the sum of its containers, or what one of those needs that run before."""
    found: Obj = {}
    for kind in ("requests", "limits"):
        totals: dict[str, str] = {}
        for container in pod["spec"].get("containers") or ():
            for name, value in ((container.get("resources") or {}).get(kind) or {}).items():
                totals[name] = canonical_sum(totals.get(name, "0"), value)
        for container in pod["spec"].get("initContainers") or ():
            for name, value in ((container.get("resources") or {}).get(kind) or {}).items():
                totals[name] = max(totals.get(name, "0"), value, key=parse)
        found[kind] = totals
    return found


def _items(change: Change) -> Iterator[Obj]:
    for found in change.cluster.read_all("/limitranges", change.namespace):
        yield from (found.get("spec") or {}).get("limits") or ()


def _containers(pod: Obj) -> list[Obj]:
    spec = pod["spec"]
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
