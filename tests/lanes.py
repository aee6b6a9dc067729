"""Which tests go to one process when they run in several (`pytest -n 2`): those that share what is costly to start.

A lane is a cluster that scenarios change, the pair of servers that are compared, or the whole stack; any other module
is a lane of its own. Lanes begin in the order in which their first tests stand, the long ones before all others: they
decide when the run ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.scenarios import timings

SCENARIOS, ASIDE, DIFFERENTIAL, STACK, REAL_DEMO = "scenarios", "aside", "differential", "stack", "real demo"
LONG_FIRST = SCENARIOS, STACK, DIFFERENTIAL, ASIDE, REAL_DEMO
# By the beginning of a test's path, the first that fits. What kills parts of the stack comes after the browser, in the
# same lane. Scenarios aside have a cluster of their own, and so has the demo on a real control plane.
SHARED = {
    "tests/demo/test_real_demo.py": REAL_DEMO,
    "tests/scenarios/aside/": ASIDE,
    "tests/scenarios/": SCENARIOS,
    "tests/differential/": DIFFERENTIAL,
    "tests/browser/": STACK,
    "tests/demo/": STACK,
}


def lane_of(nodeid: str) -> str:
    """The lane of a test, by its id."""
    path = nodeid.partition("::")[0]
    shared = next((lane for beginning, lane in SHARED.items() if path.startswith(beginning)), "")
    return shared or (SCENARIOS if nodeid.endswith("[real]") else path)


class Lanes(LoadScopeScheduling):  # type: ignore[misc] - xdist has no types
    """Hands out whole lanes."""

    def _split_scope(self, nodeid: str) -> str:
        return lane_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes:
    config.option.loadscopereorder = False
    return Lanes(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over what a process noted of the grounds: the table is printed by the one that started them all."""
    timings.merge(getattr(node, "workeroutput", {}).get("grounds") or {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    if output := getattr(session.config, "workeroutput", None):
        output["grounds"] = timings.noted()


def in_turn(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """The tests in the order for several processes: long lanes first, inside them as they were."""
    places = {lane: place for place, lane in enumerate(LONG_FIRST)}
    return iter(sorted(items, key=lambda item: places.get(lane_of(item.nodeid), len(places))))
