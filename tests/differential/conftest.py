"""Both servers for all tests here, and the line that says how much was compared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential import servers
from tests.differential.pair import Pair
from tests.scenarios import grounds


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """A real kube-apiserver and `lite`; skipped, with the reason, where no control plane is built."""
    if why := grounds.why_not("real"):
        pytest.skip(why)
    with servers.real() as real, servers.lite() as lite, Pair(real, lite) as both:
        yield both
        print(f"\n{both.summary()}")
