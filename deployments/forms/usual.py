"""With how many replicas a new request begins: the usual number, or as many as the team's free quota holds."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from deployments.forms.values import as_value
from deployments.services.holds import Usage

FEWEST, MOST = 2, 10


def replicas_within(free: int, gpus: int) -> tuple[int, int]:
    """The fewest and the most replicas of `gpus` GPUs to propose to a team that has `free` of them left."""
    most = max(1, min(MOST, free // max(1, gpus)))
    return min(FEWEST, most), most


def usual_words(usage: Usage | None, gpus: int) -> str:
    """What is usual, and what of it the quota holds, to read beside the field."""
    usual = f"{FEWEST} to {MOST} are usual"
    few, most = replicas_within(usage.free if usage else 0, gpus)
    if (few, most) == (FEWEST, MOST):
        return usual
    if usage is None or usage.free < gpus:
        return f"{usual}; the team has no quota left for {'one' if usage is None or not usage.free else 'a whole one'}"
    held = f"{few} to {most}" if few < most else f"{most}"
    return f"{usual}; the team has {usage.free:,} × {usage.flavor.name} left, enough for {held}"


def surge_words(gpus: int) -> str:
    """What starting the new pod first takes of the quota, to read beside the choice."""
    more = f"{gpus:,} more GPU{'' if gpus == 1 else 's'}" if gpus else "the GPUs of one replica more"
    return f"The new pod first: calls are answered all the while, for {more} of the quota until the change is through"


def keep_in_order(values: MutableMapping[str, str], name: str) -> None:
    """After a fix has set the fewest or the most replicas, let the other follow where it would stand in the way."""
    stem, _, end = name.rpartition("_")
    if stem.endswith("replicas") and _number(values, f"{stem}_min") > _number(values, f"{stem}_max") > 0:
        values[f"{stem}_{'min' if end == 'max' else 'max'}"] = values[name]


def _number(values: Mapping[str, str], name: str) -> int:
    value = as_value(int, values.get(name, "").strip())
    return value if isinstance(value, int) else 0
