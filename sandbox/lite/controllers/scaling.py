"""How autoscalers run here: where their metrics come from, and how fast their time passes."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Scaling:
    """`prometheus_url` is what metrics are read from, empty for none. `speed` divides every wait of an autoscaler.

    At speed 10 a stabilization window of 300 s lasts 30 s, and metrics are looked at every 1.5 s instead of 15.
    """

    prometheus_url: str = ""
    speed: float = 1.0

    def wait(self, seconds: float) -> float:
        """Return how long an autoscaler's `seconds` last here."""
        return seconds / self.speed

    def clock(self) -> float:
        """Return the autoscalers' time, in their seconds since no moment in particular."""
        return time.monotonic() * self.speed


REAL_TIME = Scaling()
