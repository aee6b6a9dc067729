"""Deployments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.lite.checking.common import at_most_all, count, forbidden, not_one_of, number_or_percent, selector
from sandbox.lite.checking.pods import pod_spec
from sandbox.lite.errors import Cause, invalid_value, required
from sandbox.lite.names import annotation_causes, label_causes
from sandbox.lite.selectors import match_labels

Obj = dict[str, Any]


def deployment(obj: Obj) -> Iterator[Cause]:
    """Check a Deployment."""
    spec = obj.get("spec") or {}
    yield from count(spec.get("replicas"), "spec.replicas")
    wanted = spec.get("selector")
    if wanted is None:
        yield required("spec.selector")
    else:
        yield from selector(wanted, "spec.selector")
        if not (wanted.get("matchLabels") or wanted.get("matchExpressions")):
            yield invalid_value("spec.selector", wanted, "empty selector is invalid for deployment")
    yield from _template(spec.get("template") or {}, wanted)
    yield from _strategy(spec.get("strategy") or {})
    ready, deadline = spec.get("minReadySeconds") or 0, spec.get("progressDeadlineSeconds")
    yield from count(ready, "spec.minReadySeconds")
    yield from count(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")
    if deadline is not None:
        yield from count(deadline, "spec.progressDeadlineSeconds")
        if deadline <= ready:
            yield invalid_value("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def deployment_status(obj: Obj) -> Iterator[Cause]:
    """Check the status of a Deployment: its numbers fit each other."""
    status = obj.get("status") or {}
    names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
    numbers = {name: status.get(name) or 0 for name in names}
    yield from count(status.get("observedGeneration"), "status.observedGeneration")
    for name in names:
        yield from count(numbers[name], f"status.{name}")
    for name in ("updatedReplicas", "readyReplicas", "availableReplicas"):
        if numbers[name] > numbers["replicas"]:
            yield invalid_value(f"status.{name}", numbers[name], "cannot be greater than status.replicas")
    if numbers["availableReplicas"] > numbers["readyReplicas"]:
        number = numbers["availableReplicas"]
        yield invalid_value("status.availableReplicas", number, "cannot be greater than readyReplicas")


def _template(template: Obj, wanted: Obj | None) -> Iterator[Cause]:
    meta = template.get("metadata") or {}
    labels = meta.get("labels")
    chosen = wanted and (wanted.get("matchLabels") or wanted.get("matchExpressions"))
    if wanted is not None and not chosen:
        pass  # told of already
    elif not chosen or not match_labels(wanted, labels or {}):
        rule = "`selector` does not match template `labels`"
        yield invalid_value("spec.template.metadata.labels", labels, rule)
    yield from label_causes(labels or {}, "spec.template.labels")
    yield from annotation_causes(meta.get("annotations") or {}, "spec.template.annotations")
    spec = template.get("spec") or {}
    yield from pod_spec(spec, "spec.template.spec")
    if spec.get("restartPolicy") != "Always":
        yield not_one_of("spec.template.spec.restartPolicy", spec.get("restartPolicy") or "", ("Always",))
    if spec.get("activeDeadlineSeconds") is not None:
        yield forbidden(
            "spec.template.spec.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"
        )


def _strategy(strategy: Obj) -> Iterator[Cause]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            yield forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
        return
    if kind != "RollingUpdate":
        given = (
            {"MaxUnavailable": rolling.get("maxUnavailable"), "MaxSurge": rolling.get("maxSurge")} if rolling else None
        )
        shown = {"Type": kind or "", "RollingUpdate": given}
        yield not_one_of("spec.strategy", shown, ("Recreate", "RollingUpdate"))
        return
    field = "spec.strategy.rollingUpdate"
    surge, down = (rolling or {}).get("maxSurge", 0), (rolling or {}).get("maxUnavailable", 0)
    yield from number_or_percent(down, f"{field}.maxUnavailable")
    yield from number_or_percent(surge, f"{field}.maxSurge")
    if _none(surge) and _none(down):
        yield invalid_value(f"{field}.maxUnavailable", down, "may not be 0 when `maxSurge` is 0")
    yield from at_most_all(down, f"{field}.maxUnavailable")


def _none(value: Any) -> bool:
    return value in (0, "0%")
