"""Log lines as vLLM 0.32.0 prints them, by process and source line.

The recordings are of the CPU build. Lines that only a GPU build prints have the wording of older releases, and their
source line numbers are made up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

API, CORE = "APIServer", "EngineCore"
CORE_PID = 77
LOGO = (
    "",
    "       █     █     █▄   ▄█",
    " ▄▄ ▄█ █     █     █ ▀▄▀ █  version {version}",
    "  █▄█▀ █     █     █     █  model   {model}",
    "   ▀▀  ▀▀▀▀▀ ▀▀▀▀▀ ▀     ▀",
    "",
)


class EngineLog:
    """Writes lines of the processes of one engine."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self.write = write
        self.clock = clock

    def api(self, where: str, text: str, level: str = "INFO") -> None:
        """A line of the API server process, which is the container's first."""
        self._line(API, 1, where, text, level)

    def core(self, where: str, text: str, level: str = "INFO") -> None:
        """A line of the engine core process."""
        self._line(CORE, CORE_PID, where, text, level)

    def worker(self, where: str, text: str, *, rank: int | None = None) -> None:
        """A line of a worker: with one GPU that is the engine core itself."""
        if rank is None:
            self.core(where, text)
        else:
            self._line(f"Worker_TP{rank}", CORE_PID + 12 + rank, where, text, "INFO")

    def core_prefix(self) -> str:
        """The start of an engine core line up to the level, for `errors.core_error`."""
        return f"({CORE} pid={CORE_PID}) {{level}} {self._stamp()} "

    def logo(self, model: str, version: str) -> None:
        """The banner."""
        for line in LOGO:
            self.api("api_utils.py:347", line.format(model=model, version=version))

    def _line(self, process: str, pid: int, where: str, text: str, level: str) -> None:
        self.write(f"({process} pid={pid}) {level} {self._stamp()} [{where}] {text}")

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self.clock()).strftime("%m-%d %H:%M:%S")
