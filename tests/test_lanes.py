"""Tests that share a cluster or a stack go to one process; all others may part."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from portal.demo.layout import REPOSITORY
from tests import lanes
from tests.scenarios import timings

TESTS = Path(__file__).parent
MARK = "pytest.mark.cluster"


@pytest.mark.parametrize(
    ("nodeid", "lane"),
    [
        ("tests/scenarios/test_costs.py::test_calls_of_a_reconcile[lite]", lanes.SCENARIOS),
        ("tests/scenarios/test_privileges.py::test_what_was_granted_was_used[real]", lanes.SCENARIOS),
        ("tests/scenarios/aside/test_cluster.py::test_api_server_restart[lite]", lanes.ASIDE),
        ("tests/demo/test_real_demo.py::test_a_newcomers_walk", lanes.REAL_DEMO),
        ("tests/sandbox/test_controllers.py::test_children[real]", lanes.SCENARIOS),
        ("tests/differential/test_sequences.py::test_there_are_recordings", lanes.DIFFERENTIAL),
        ("tests/browser/test_looks.py::test_no_table_is_cut_off", lanes.STACK),
        ("tests/demo/test_kills.py::test_any_one[beat]", lanes.STACK),
        ("tests/deployments/test_spec.py::test_shape", "tests/deployments/test_spec.py"),
    ],
)
def test_lanes(nodeid: str, lane: str) -> None:
    assert lanes.lane_of(nodeid) == lane


def test_make_knows_where_tests_of_the_real_control_plane_lie() -> None:
    [told] = re.findall(r"^CLUSTER_TESTS := (.+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    places = [REPOSITORY / place for place in told.split()]
    assert all(place.exists() for place in places)
    marked = {path for path in TESTS.rglob("*.py") if MARK in path.read_text()} - {Path(__file__)}
    assert {path for path in marked if not any(path.is_relative_to(place) for place in places)} == set()


def test_what_processes_noted_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_seconds", "_calls", "_absent", "_started", "_played"):
        monkeypatch.setattr(timings, name, type(getattr(timings, name))())
    monkeypatch.setattr(timings, "_compared", [])
    timings.merge({"seconds": {"scale": {"lite": 1.0}}, "started": {"lite": 1.0}, "played": {"lite": 2}})
    timings.merge({"seconds": {"scale": {"real": 2.0}}, "started": {"real": 9.0}, "compared": ["differential: 5"]})
    lines = "\n".join(timings.lines())
    assert "scale" in lines
    assert [cell.strip() for cell in lines.splitlines()[1].split("|")[1:]] == ["1.0", "2.0"]
    assert "ground real: up with its nodes after 9 s" in lines
    assert "differential: 5" in lines


def test_every_long_lane_is_one() -> None:
    """A module that is renamed would begin last."""
    modules = [lane for lane in lanes.LONG_FIRST if lane.endswith(".py")]
    assert [lane for lane in modules if not (REPOSITORY / lane).is_file()] == []
    assert [lane for lane in modules if lanes.lane_of(f"{lane}::test") != lane] == []
    assert set(lanes.SHARED.values()) <= set(lanes.LONG_FIRST)


def test_the_run_tells_which_lanes_were_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_by_process", Counter())
    monkeypatch.setattr(lanes, "_by_lane", Counter())
    assert list(lanes.lines()) == []
    for process, nodeid, seconds in (
        ("gw0", "tests/scenarios/test_costs.py::test_calls", 9.0),
        ("gw1", "tests/deployments/test_spec.py::test_shape", 2.0),
        ("gw0", "tests/scenarios/test_scaling.py::test_up", 3.0),
    ):
        node = SimpleNamespace(gateway=SimpleNamespace(id=process))
        lanes.pytest_runtest_logreport(SimpleNamespace(nodeid=nodeid, duration=seconds, node=node))  # type: ignore[arg-type]
    told = [line.split(maxsplit=2) for line in lanes.lines()]
    assert told == [
        ["12", "s", "gw0"],
        ["2", "s", "gw1"],
        ["12", "s", "scenarios"],
        ["2", "s", "tests/deployments/test_spec.py"],
    ]
