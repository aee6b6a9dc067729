"""What the cache of built programs and seeds keeps: what is of the present kind, and what any checkout used lately.

A folder there is named `<what it holds>-<hash>`. Its time of change says when it was used last.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

UNUSED_DAYS = 14
HASH = re.compile("[0-9a-f]{16}")


def use(folder: Path) -> None:
    """Note that a folder of the cache is used now."""
    with suppress(OSError):  # a cache that is somebody else's to write
        os.utime(folder)


def clear_away(present: Path, say: Callable[[str], None]) -> None:
    """Remove what holds the same as `present` by another hash, unused for two weeks and with no program running.

    Call it where `tools.alone` holds.
    """
    for old in _others(present):
        days = (time.time() - old.stat().st_mtime) / 86400
        if days > UNUSED_DAYS and not _runs(old):
            shutil.rmtree(old, ignore_errors=True)
            say(f"removed {old.name} from the cache: not used for {days:.0f} days")


def _others(present: Path) -> Iterator[Path]:
    what = present.name.rpartition("-")[0]
    for found in sorted(present.parent.glob(f"{what}-*")):
        if found != present and HASH.fullmatch(found.name.removeprefix(f"{what}-")):
            yield found


def _runs(folder: Path) -> bool:
    """Tell whether a program from this folder runs, where /proc tells."""
    for link in Path("/proc").glob("[0-9]*/exe"):
        with suppress(OSError):  # gone by now, or somebody else's
            if link.readlink().is_relative_to(folder):
                return True
    return False
