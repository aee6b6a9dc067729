"""Both servers for all tests here, and the line that says how much was compared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.terminal import TerminalReporter

from tests.differential import servers
from tests.differential.pair import Pair
from tests.scenarios import grounds

_summary: list[str] = []


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """A real kube-apiserver and `lite`; skipped, with the reason, where no control plane is built."""
    if why := grounds.why_not("real"):
        _summary.append(f"differential: did not run: {why}")
        pytest.skip(why)
    with servers.real() as real, servers.lite() as lite, Pair(real, lite) as both:
        yield both
        _summary.append(both.summary())


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say how much was asked, how fast, and what differed."""
    for text in dict.fromkeys(_summary):
        terminalreporter.write_line(text)
