"""How long the portal took to say what there is to say, per scenario and ground, and the table of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tests.scenarios import differences

GROUNDS = "lite", "real"

_seconds: dict[str, dict[str, float]] = {}
_calls: dict[str, dict[str, list[str]]] = {}
_absent: dict[str, str] = {}
_started: dict[str, float] = {}
_played: Counter[str] = Counter()
_compared: list[str] = []
_wished: dict[str, str] = {}


def took(scenario: str, ground: str, seconds: float) -> None:
    """Note how long a scenario took on a ground."""
    _seconds.setdefault(scenario, {})[ground] = seconds


def called(what: str, ground: str, calls: list[str]) -> None:
    """Note which API calls a step cost on a ground, in words that are the same on all."""
    _calls.setdefault(what, {})[ground] = calls


def calls_of(what: str, ground: str) -> list[str] | None:
    """What was noted by `called` in this run."""
    return _calls.get(what, {}).get(ground)


def started(ground: str, seconds: float) -> None:
    """Note that a ground came up."""
    _started[ground] = seconds


def played(ground: str) -> None:
    """Note that a ground plays another scenario."""
    _played[ground] += 1


def absent(ground: str, why: str) -> None:
    """Note that a ground does not run, and why."""
    _absent[ground] = why


def compared(words: list[str]) -> None:
    """Note how much of `lite` was compared with the real API server, or why nothing was."""
    _compared[:] = words


def wished(ground: str, words: str) -> None:
    """Note what became of the wishes that were played on a ground."""
    _wished[ground] = words


def noted() -> dict[str, Any]:
    """Everything noted by this process, as plain data for another."""
    return {
        "seconds": _seconds,
        "calls": _calls,
        "absent": _absent,
        "started": _started,
        "played": dict(_played),
        "compared": _compared,
        "wished": _wished,
    }


def merge(other: Mapping[str, Any]) -> None:
    """Add what another process has noted."""
    for name, seconds in (other.get("seconds") or {}).items():
        _seconds.setdefault(name, {}).update(seconds)
    for name, calls in (other.get("calls") or {}).items():
        _calls.setdefault(name, {}).update(calls)
    _absent.update(other.get("absent") or {})
    _started.update(other.get("started") or {})
    _wished.update(other.get("wished") or {})
    _played.update(other.get("played") or {})
    _compared.extend(other.get("compared") or ())


def lines() -> Iterator[str]:
    """The table, side by side; nothing when no ground was asked for."""
    if not _started and not _absent:
        yield from _compared
        return
    yield from _table("seconds until the portal says it", _seconds, "{:.1f}")
    numbers = {name: {ground: len(calls) for ground, calls in cells.items()} for name, cells in _calls.items()}
    yield from _table("API calls of a reconcile", numbers, "{:d}")
    for ground in GROUNDS:
        if ground in _started:
            up = f"up with its nodes after {_started[ground]:.0f} s"
            yield f"ground {ground}: {up}, scenarios played: {_played[ground]}"
        else:
            yield f"ground {ground} did not run: {_absent.get(ground, 'no scenario on it was chosen')}"
    for ground, words in _wished.items():
        yield f"every wish on {ground}: {words}"
    yield from _compared or ["differential: not asked for"]
    for name, why in differences.REAL_ALONE.items():
        yield f"on real alone: {name.removeprefix('test_').replace('_', ' ')} ({why})"
    for name, why in differences.OTHER_VERSIONS.items():
        yield f"other versions: {name} ({why})"
    for name, why in differences.LITE_FAILS.items():
        yield f"lite differs: {name.removeprefix('test_').replace('_', ' ')} ({why})"


def _table(title: str, cells: dict[str, dict[str, float]] | dict[str, dict[str, int]], form: str) -> Iterator[str]:
    if not cells:
        return
    width = max(len(name) for name in (title, *cells))
    yield f"{title:<{width}} | " + " | ".join(f"{ground:>6}" for ground in GROUNDS)
    for name, found in cells.items():
        texts = defaultdict(lambda: "-", {ground: form.format(value) for ground, value in found.items()})
        yield f"{name:<{width}} | " + " | ".join(f"{texts[ground]:>6}" for ground in GROUNDS)
