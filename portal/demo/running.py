"""Starts a stack from a program (tests, benchmarks) and ends it again."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from portal.demo.layout import REPOSITORY, Layout


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
    """Return `base`, or `base`-2, -3, ... where another program runs a stack on it."""
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        with Layout(folder).alone() as alone:
            if alone:
                return folder
        number += 1
