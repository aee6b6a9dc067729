"""What Linux tells about processes, and the two switches that keep a dead supervisor from leaving children."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PROC = Path("/proc")


def become_subreaper() -> None:
    """Adopt every orphan below this process, so that grandchildren can be found and ended."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, sig: int = signal.SIGKILL) -> None:
    """Ask for `sig` when `parent` ends; called in the child between fork and exec."""
    _prctl(PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:  # it ended before the request was made
        os._exit(1)


def descendants(of: int) -> set[int]:
    """Return the pids below `of`, zombies included."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = [of]
    while todo:
        fresh = [pid for pid in children.get(todo.pop(), ()) if pid not in found]
        found.update(fresh)
        todo += fresh
    return found


def sweep(of: int, *, patience: float, reap: Callable[[], None]) -> int:
    """End everything below `of`: TERM, after `patience` seconds KILL; returns how many there were."""
    found = descendants(of)
    begun = time.monotonic()
    for pid in found:
        send(pid, signal.SIGTERM)
    while left := descendants(of):
        reap()
        if time.monotonic() - begun > patience:
            for pid in left:
                send(pid, signal.SIGKILL)
        time.sleep(0.02)
    return len(found)


def send(pid: int, sig: int) -> None:
    """Signal a process that may be gone already."""
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        return


def send_group(pgid: int, sig: int) -> None:
    """Signal a process group that may be gone already."""
    try:
        os.killpg(pgid, sig)
    except (ProcessLookupError, PermissionError):  # macOS-like answers for a group of zombies
        return


def reap_all() -> list[tuple[int, int]]:
    """Collect every ended child without waiting: (pid, exit code), negative codes being signals."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))


def alive(pid: int) -> bool:
    """Tell whether `pid` runs; a zombie does not."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def _parents() -> list[tuple[int, int]]:
    pairs = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                pairs.append((int(entry.name), int(_stat(int(entry.name))[1])))
            except OSError:  # it ended while we looked
                continue
    return pairs


def _stat(pid: int) -> list[str]:
    """Return state, parent and what follows; the name before them may hold spaces and brackets."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
