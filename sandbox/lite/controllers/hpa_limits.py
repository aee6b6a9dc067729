"""From the replicas that metrics ask for to those that are set: stabilization, policies, bounds.

Pure but for History, which the controller keeps for each autoscaler: what was recommended and done, when. Moments
are seconds of one clock. What limits a change is named with the reasons and messages of kube-controller-manager.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sandbox.client import Obj

DOWN_WINDOW = 300  # seconds; --horizontal-pod-autoscaler-downscale-stabilization
_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_UP_LIMIT = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_DOWN_LIMIT = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
_READY = ("ReadyForNewScale", "recommended size matches current size")
_DOWN_STABILIZED = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
_UP_STABILIZED = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)

Said = tuple[str, str]  # reason and message


class Dated(NamedTuple):
    """A count of replicas, recommended or added or removed, and when."""

    moment: float
    replicas: int


@dataclass
class History:
    """What one autoscaler remembers."""

    recommended: list[Dated] = field(default_factory=list)
    added: list[Dated] = field(default_factory=list)
    removed: list[Dated] = field(default_factory=list)

    def begin(self, current: int, now: float) -> None:
        """Take the size found first as a recommendation, so that a restart does not shrink at once."""
        if not self.recommended:
            self.recommended.append(Dated(now, current))

    def changed(self, behavior: Obj | None, before: int, after: int, now: float) -> None:
        """Remember a change of size; policies count them."""
        if behavior is None:
            return
        done, rules = (self.added, behavior["scaleUp"]) if after > before else (self.removed, behavior["scaleDown"])
        longest = max((policy["periodSeconds"] for policy in rules["policies"]), default=0)
        done[:] = [*_since(done, now - longest), Dated(now, abs(after - before))]


@dataclass(frozen=True)
class Decision:
    """The size to set, what the stabilization says of it, and whether a limit cut it."""

    replicas: int
    able: Said
    limited: bool
    limit: Said


def decide(spec: Obj, history: History, current: int, wanted: int, now: float) -> Decision:
    """Return the size to set for a wanted one, and remember the wish."""
    least, most, behavior = spec.get("minReplicas", 1), spec["maxReplicas"], spec.get("behavior")
    if behavior is None:
        steady, able = _steady_by_default(history, wanted, now)
        replicas, limit = _within_bounds(current, steady, least, most)
    else:
        steady, able = _steady(behavior, history, current, wanted, now)
        replicas, limit = _within_policies(behavior, history, current, steady, (least, most), now)
    return Decision(replicas, able, replicas != steady, limit)


def _steady_by_default(history: History, wanted: int, now: float) -> tuple[int, Said]:
    history.recommended = _since(history.recommended, now - DOWN_WINDOW)
    steady = max([wanted, *(item.replicas for item in history.recommended)])
    history.recommended.append(Dated(now, wanted))
    return steady, _READY if steady == wanted else _DOWN_STABILIZED


def _within_bounds(current: int, wanted: int, least: int, most: int) -> tuple[int, Said]:
    """Without a behavior a target may double, or reach four."""
    fastest = max(2 * current, 4)
    highest, limit = (fastest, _UP_LIMIT) if most > fastest else (most, _TOO_MANY)
    if wanted < least:
        return least, _TOO_FEW
    if wanted > highest:
        return highest, limit
    return wanted, _WITHIN


def _steady(behavior: Obj, history: History, current: int, wanted: int, now: float) -> tuple[int, Said]:
    up = now - behavior["scaleUp"]["stabilizationWindowSeconds"]
    down = now - behavior["scaleDown"].get("stabilizationWindowSeconds", DOWN_WINDOW)
    lowest = min([wanted, *(item.replicas for item in history.recommended if item.moment > up)])
    highest = max([wanted, *(item.replicas for item in history.recommended if item.moment > down)])
    steady = min(max(current, lowest), highest)
    history.recommended = [*_since(history.recommended, min(up, down)), Dated(now, wanted)]
    if steady == wanted:
        return steady, _READY
    return steady, _UP_STABILIZED if wanted >= current else _DOWN_STABILIZED


def _within_policies(
    behavior: Obj, history: History, current: int, wanted: int, bounds: tuple[int, int], now: float
) -> tuple[int, Said]:
    least, most = bounds
    if wanted > current:
        fastest = max(current, _furthest(behavior["scaleUp"], history, current, now, growing=True))
        highest, limit = (fastest, _UP_LIMIT) if most > fastest else (most, _TOO_MANY)
        if wanted > highest:
            return highest, limit
    elif wanted < current:
        fastest = min(current, _furthest(behavior["scaleDown"], history, current, now, growing=False))
        lowest, limit = (fastest, _DOWN_LIMIT) if least < fastest else (least, _TOO_FEW)
        if wanted < lowest:
            return lowest, limit
    return wanted, _WITHIN


def _furthest(rules: Obj, history: History, current: int, now: float, *, growing: bool) -> int:
    """Return the size that the policies of one direction allow at this moment."""
    choice = rules["selectPolicy"]
    if choice == "Disabled":
        return current
    reached: list[int] = []
    for policy in rules["policies"]:
        since, value = now - policy["periodSeconds"], policy["value"] if growing else -policy["value"]
        added = sum(item.replicas for item in _since(history.added, since))
        removed = sum(item.replicas for item in _since(history.removed, since))
        start = current - added + removed
        if policy["type"] == "Pods":
            reached.append(start + value)
        else:  # rounded up in growth, or one replica would never become two at 50 %
            share = start * (1 + value / 100)
            reached.append(math.ceil(share) if growing else int(share))
    return max(reached) if (choice == "Max") is growing else min(reached)


def _since(items: Iterable[Dated], moment: float) -> list[Dated]:
    return [item for item in items if item.moment > moment]
