"""Both servers for all tests here; the table of the grounds says how much was compared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential import SEED, servers
from tests.differential.pair import Pair
from tests.scenarios import grounds, timings


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """A real kube-apiserver and `lite`; skipped, with the reason, where no control plane is built."""
    if why := grounds.why_not("real"):
        timings.compared([f"differential: skipped: {why}"])
        pytest.skip(why)
    with servers.real() as real, servers.lite() as lite, Pair(real, lite) as both:
        yield both
        timings.compared(both.summary(SEED))
