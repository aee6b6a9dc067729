"""Starts a stack from a program (tests, benchmarks) and ends it again."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from portal.demo.layout import REPOSITORY, Layout

# Open files, whose locks end with the process.
_CLAIMS: dict[Path, IO[str]] = {}


@contextmanager
def running(
    data: Path, *, only: Sequence[str] = (), quick: bool = False, ground: str = "lite", seconds: float = 180.0
) -> Iterator[dict[str, str]]:
    """Yield the environment of a running stack on `data`; RuntimeError with its output when it does not come up."""
    data.mkdir(parents=True, exist_ok=True)
    ready = data / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "portal.demo", "up", "--data", str(data), "--ready-file", str(ready)]
    command += ["--only", ",".join(only)] if only else []
    command += ["--quick"] if quick else []
    command += ["--cluster", ground]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + seconds
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    raise RuntimeError(f"the stack did not start:\n{output.read().decode(errors='replace')}")
                time.sleep(0.05)
            environment: dict[str, str] = json.loads(ready.read_text())["environment"]
            yield environment
        finally:
            process.terminate()
            process.wait(30)


def idle_folder(base: Path) -> Path:
    """Return `base`, or `base`-2, -3, ... where another program runs a stack on it, or is about to.

    The folder is this process's own until it ends: two that look at the same moment get different ones.
    """
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if _claim(folder):
            with Layout(folder).alone() as alone:
                if alone:
                    return folder
        number += 1


def _claim(folder: Path) -> bool:
    if folder in _CLAIMS:
        return True
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, for what lies in it may be cleared.
    claim = folder.with_name(f"{folder.name}.claim").open("w")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        claim.close()
        return False
    _CLAIMS[folder] = claim
    return True
