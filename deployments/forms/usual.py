"""With how many replicas a new request begins: the usual number, or as many as the team's free quota holds."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from deployments.forms.roles import preset_within
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


def usual_offer(
    values: Mapping[str, str], usage: Usage | None, gpus: int, *, roles: bool
) -> tuple[str, dict[str, Any]]:
    """What to say beside which field where one replica is asked for, and the quota of this GPU holds what is usual.

    A form begins with one where its first GPU has room for no more; "" and nothing where there is nothing to say.
    """
    free = usage.free if usage else 0
    if roles:
        within = preset_within(free)
        split = all(values.get(name) == within[name] for name in within if name.endswith("_size"))
        sets = {name: value for name, value in within.items() if "_replicas_" in name} if split else {}
        field, shown = "decode_replicas_max", _shown_of_roles(*sets.values()) if sets else ""
    else:
        few, most = replicas_within(free, gpus)
        sets = {"replicas_min": str(few), "replicas_max": str(most)} if gpus else {}
        field, shown = "replicas_max", _range(few, most)
    if not sets or any(values.get(name) != "1" for name in sets) or set(sets.values()) == {"1"}:
        return "", {}
    return field, {
        "severity": "info",
        "message": "One replica serves nobody while its node fails or it is replaced; the team has room for more.",
        "set": sets[field],
        "shown": shown,
        "field": field,
        "sets": "&".join(f"{name}={value}" for name, value in sets.items()),
    }


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


def _shown_of_roles(prefill_min: str, prefill_max: str, decode_min: str, decode_max: str) -> str:
    return f"prefill {_range(prefill_min, prefill_max)}, decode {_range(decode_min, decode_max)}"


def _range(few: object, most: object) -> str:
    return f"{few}" if few == most else f"{few} to {most}"
