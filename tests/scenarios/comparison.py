"""Scenarios whose calls on one ground are held against those on the other: what is more, and playing both once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from tests.scenarios.differences import COMPARED
from tests.scenarios.timings import GROUNDS

FAILED = "cache/lastfailed"  # where pytest keeps what `--last-failed` runs


def more(what: str, ground: str, calls: list[str], lite: list[str]) -> str:
    """Which kinds of calls a step made more often than on `lite`, and both lists; empty when there is none."""
    beyond = Counter(calls) - Counter(lite)
    if not beyond:
        return ""
    told = [f"{what}: on {ground} more than on lite", *(f"  {number} x {call}" for call, number in beyond.items())]
    for name, made in (("lite", lite), (ground, calls)):
        told += [f"all {len(made)} calls on {name}", *(f"  {call}" for call in made)]
    return "\n".join(told)


def both(failed: Iterable[str]) -> set[str]:
    """The ids of failed tests that compare, on every ground."""
    functions = {nodeid.partition("[")[0] for nodeid in failed}
    compared = {function for function in functions if function.rpartition("::")[2] in COMPARED}
    return {f"{function}[{ground}]" for function in compared for ground in GROUNDS}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A second pass (`pytest --last-failed`) has nothing to compare with unless it plays the other ground, too."""
    cache = getattr(session.config, "cache", None)
    if cache is None or hasattr(session.config, "workerinput"):  # kept by the process that hands out the tests
        return
    failed = cache.get(FAILED, {})
    if beside := both(failed) - failed.keys():
        cache.set(FAILED, failed | dict.fromkeys(sorted(beside), True))
