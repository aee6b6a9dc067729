"""How many streams one person and one process may hold open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from portal.live.http import Refused

PER_USER = 16
PER_PROCESS = 2000


class Places:
    """Counts open streams; a place is given back when its block ends."""

    def __init__(self, *, per_user: int = PER_USER, per_process: int = PER_PROCESS) -> None:
        self.per_user = per_user
        self.per_process = per_process
        self._taken: Counter[int] = Counter()

    @contextmanager
    def one(self, user_id: int) -> Iterator[None]:
        """Hold one place; Refused with 429 when the person has too many, with 503 when the process has."""
        if self._taken.total() >= self.per_process:
            raise Refused(503, "busy", "Too many pages are open on this server just now.")
        if self._taken[user_id] >= self.per_user:
            raise Refused(429, "too_many_streams", f"At most {self.per_user} live pages at a time: close some.")
        self._taken[user_id] += 1
        try:
            yield
        finally:
            self._taken[user_id] -= 1
            if not self._taken[user_id]:
                del self._taken[user_id]

    def taken(self) -> int:
        """Streams that are open now."""
        return self._taken.total()
