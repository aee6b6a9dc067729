"""Which tests go to one process when they run in several (`pytest -n 2`): those that share what is costly to start.

A lane is a cluster that scenarios change, the pair of servers that are compared, or the whole stack; any other module
is a lane of its own. Lanes begin in the order in which their first tests stand, the long ones before all others: they
decide when the run ends. After the run stands how long each process and the longest lanes took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.scenarios import timings

SCENARIOS, ASIDE, DIFFERENTIAL, STACK, REAL_DEMO = "scenarios", "aside", "differential", "stack", "real demo"
# Those that take minutes, and modules of half a minute and more. A long one that begins last runs alone.
LONG_FIRST = (
    *(SCENARIOS, STACK, DIFFERENTIAL, ASIDE, REAL_DEMO),
    "tests/security/test_every_route.py",
    "tests/security/test_mass_assignment.py",
    "tests/sandbox/test_controllers_keda_live.py",
    "tests/security/test_answers.py",
    "tests/security/test_hostile_bodies.py",
    "tests/deployments/converging/test_watcher.py",
    "tests/deployments/converging/test_crashes.py",
    "tests/security/test_forms_once.py",
)
LONGEST = 10  # lanes that the run's end tells of
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


_by_process: Counter[str] = Counter()
_by_lane: Counter[str] = Counter()


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


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if node := getattr(report, "node", None):  # one of several processes
        _by_process[node.gateway.id] += report.duration
        _by_lane[lane_of(report.nodeid)] += report.duration


def lines() -> Iterator[str]:
    """The seconds of tests of each process, and of the longest lanes; nothing where there was one process."""
    for process, seconds in sorted(_by_process.items()):
        yield f"{seconds:7.0f} s  {process}"
    for lane, seconds in _by_lane.most_common(LONGEST):
        yield f"{seconds:7.0f} s  {lane}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if output := getattr(session.config, "workeroutput", None):
        output["grounds"] = timings.noted()


def in_turn(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """The tests in the order for several processes: long lanes first, inside them as they were."""
    places = {lane: place for place, lane in enumerate(LONG_FIRST)}
    return iter(sorted(items, key=lambda item: places.get(lane_of(item.nodeid), len(places))))
