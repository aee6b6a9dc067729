"""Two servers asked the same, at the same time."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from tests.differential import tolerated
from tests.differential.bodies_more import PARTLY
from tests.differential.comparing import Difference, differences
from tests.differential.remembering import Outcome
from tests.differential.sending import Server
from tests.differential.sequences import Recorded, Sequence


class Pair:
    """Plays sequences on both servers, each in a namespace of its own, and counts."""

    def __init__(self, real: Server, lite: Server) -> None:
        self._servers = real, lite
        self._pool = ThreadPoolExecutor(2)
        self._run = f"d{int(time.time() * 10) % 10**8}"
        self._sequences = self._found = 0
        self._seconds = 0.0
        self._tolerated: Counter[str] = Counter()
        self._sorts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def play(self, sequence: Sequence | Recorded) -> list[Difference]:
        """Return where the answers differ, what is tolerated left out."""
        self._sequences += 1
        sort = "recorded" if isinstance(sequence, Recorded) else sequence.origin
        self._sorts[sort] += 1
        begun, namespace = time.monotonic(), f"{self._run}-{self._sequences}"
        playing = [self._pool.submit(_play, server, sequence, namespace) for server in self._servers]
        outcomes: list[Outcome] = [each.result() for each in playing]
        self._seconds += time.monotonic() - begun
        found: list[Difference] = []
        for difference in differences(sequence, *outcomes, tolerated.ALIKE):
            item = tolerated.why(sequence, difference)
            if reason := difference.reason or (item.reason if item else ""):
                self._tolerated[reason] += 1
            else:
                found.append(difference)
        self._found += bool(found)
        return found

    def summary(self, seed: int) -> list[str]:
        """How much was asked, how fast, and what differed."""
        requests = sum(server.requests for server in self._servers)
        sorts = ", ".join(f"{count} {sort}" for sort, count in self._sorts.items())
        lines = [
            f"differential: {self._sequences} sequences compared ({sorts}; SLIPWAY_SEED={seed}), {requests} requests "
            f"to both servers in {self._seconds:.0f} s, {self._found} sequences with differences"
        ]
        lines += [f"  tolerated {count} times: {reason}" for reason, count in self._tolerated.most_common()]
        return lines + [f"  {kind} is not compared whole: {what}" for kind, what in PARTLY.items()]


def _play(server: Server, sequence: Sequence | Recorded, namespace: str) -> Outcome:
    if isinstance(sequence, Recorded):
        return server.replay(sequence, namespace)
    return server.play(sequence, namespace)
