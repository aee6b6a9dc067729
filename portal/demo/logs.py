"""One log file per program, kept small while the program writes to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import BinaryIO

LIMIT = 8_000_000
CHECK_SECONDS = 10.0


class LogFolder:
    """Files `NAME.log`; when one passes `limit` bytes its text moves to `NAME.log.1` and it begins anew.

    Programs hold their file open in append mode, so it is copied and cut, never renamed. Lines written between
    copy and cut are lost, which a log of a demo can bear.
    """

    def __init__(self, folder: Path, *, limit: int = LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Return where the log of `name` lies."""
        return self.folder / f"{name}.log"

    def open(self, name: str) -> BinaryIO:
        """Open a log for appending."""
        return self.path(name).open("ab")

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines, indented; a sentence when nothing was written."""
        path = self.path(name)
        text = path.read_bytes()[-20_000:].decode(errors="replace") if path.exists() else ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (nothing was logged)"

    def trim(self) -> None:
        """Cut every file that is over the limit."""
        for path in self.folder.glob("*.log"):
            if path.stat().st_size > self.limit:
                path.with_suffix(".log.1").write_bytes(path.read_bytes()[-self.limit :])
                with path.open("r+b") as log:
                    log.truncate(0)

    async def keep_small(self) -> None:
        """Trim until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.trim()
