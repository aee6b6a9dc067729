"""How many replicas a metric asks for, as kube-controller-manager counts them.

Pure. Amounts are whole thousandths ("milli"), as the metrics APIs give them: 2500 is 2.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.client import Obj
from sandbox.lite.controllers.meta import deleting, pod_ready

MOST = 2**31 - 1  # replica counts are int32
_LARGEST, _NO_NUMBER = 2**63 - 1, -(2**63)  # what Go on amd64 makes of amounts that fit no int64


class MetricError(Exception):
    """A metric could not be read; the text is the one Kubernetes shows."""


@dataclass(frozen=True)
class Tolerances:
    """How far a ratio of usage to target may be from 1 before it counts."""

    down: float = 0.1
    up: float = 0.1

    def allow(self, ratio: float) -> bool:
        """Tell whether a ratio is near enough to 1 to leave things as they are."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True)
class Proposal:
    """What one metric asks for, and the usage shown in the status."""

    replicas: int
    usage: int


def for_value(current: int, usage: int, target: int, tolerances: Tolerances, pods: Sequence[Obj]) -> Proposal:
    """Propose for a total with target type Value: the ratio counts for each ready pod."""
    ratio = usage / target
    if current == 0:
        return Proposal(min(MOST, math.ceil(ratio)), usage)
    if tolerances.allow(ratio):
        return Proposal(current, usage)
    if not pods:
        raise MetricError(
            "unable to calculate ready pods: no pods returned by selector while calculating replica count"
        )
    ready = sum(pod.get("status", {}).get("phase") == "Running" and pod_ready(pod) for pod in pods)
    return Proposal(min(MOST, math.ceil(ratio * ready)), usage)


def for_average(seen: int, usage: int, target: int, tolerances: Tolerances) -> Proposal:
    """Propose for a total with target type AverageValue; `seen` is the count of replicas in the target's status."""
    ratio = usage / (target * seen) if seen else math.nan
    replicas = seen if tolerances.allow(ratio) else min(MOST, math.ceil(usage / target))
    if usage >= _LARGEST:
        return Proposal(replicas, _LARGEST)
    return Proposal(replicas, math.ceil(usage / seen) if seen else _NO_NUMBER)


def for_pods(
    current: int, values: Mapping[str, int], target: int, tolerances: Tolerances, pods: Sequence[Obj]
) -> Proposal:
    """Propose for a metric of each pod. Pods without a value hold a change back, pending pods a growth."""
    if not pods:
        raise MetricError("no pods returned by selector while calculating replica count")
    ready, pending, missing = _groups(pods, values)
    known = {name: value for name, value in values.items() if name in ready or name not in _names(pods)}
    if not known:
        raise MetricError("did not receive metrics for targeted pods (pods might be unready)")
    usage = _mean(known)
    ratio = usage / target
    growing_early = bool(pending) and ratio > 1.0
    if not growing_early and not missing:
        return Proposal(current if tolerances.allow(ratio) else math.ceil(ratio * len(ready)), usage)
    if ratio < 1.0:
        known |= dict.fromkeys(missing, target)
    elif ratio > 1.0:
        known |= dict.fromkeys(missing, 0)
    if growing_early:
        known |= dict.fromkeys(pending, 0)
    careful = _mean(known) / target
    turned = (ratio < 1.0 < careful) or (careful < 1.0 < ratio)
    if tolerances.allow(careful) or turned:
        return Proposal(current, usage)
    replicas = math.ceil(careful * len(known))
    if (careful < 1.0 and replicas > current) or (careful > 1.0 and replicas < current):
        return Proposal(current, usage)
    return Proposal(replicas, usage)


def _groups(pods: Sequence[Obj], values: Mapping[str, int]) -> tuple[set[str], set[str], set[str]]:
    """Return the names of pods that count, that have not started yet, and that have no value."""
    counted: set[str] = set()
    pending: set[str] = set()
    missing: set[str] = set()
    for pod in pods:
        name, phase = pod["metadata"]["name"], pod.get("status", {}).get("phase")
        if deleting(pod) or phase == "Failed":
            continue
        group = pending if phase == "Pending" else counted if name in values else missing
        group.add(name)
    return counted, pending, missing


def _names(pods: Sequence[Obj]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def _mean(values: Mapping[str, int]) -> int:
    return sum(values.values()) // len(values)
