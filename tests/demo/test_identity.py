"""PostgreSQL runs for root, below folders that only root may enter, and for an ordinary user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from portal.demo import identity
from portal.demo.layout import REPOSITORY

NOBODY = 65534


def start_and_stop(data: Path, prefix: list[str], python: str) -> str:
    """Start the three servers, wait until they are up, press Ctrl-C; returns what was printed."""
    ready = data / "ready.json"
    ready.unlink(missing_ok=True)
    command = [*prefix, python, "-m", "portal.demo", "up", "--data", str(data), "--ready-file", str(ready)]
    process = subprocess.Popen(
        [*command, "--only", "postgres,redis,prometheus"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    assert "postgres" in output
    return output


def test_servers_run_for_whoever_runs_the_tests_in_a_private_folder(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    start_and_stop(private / "demo", [], sys.executable)
    start_and_stop(private / "demo", [], sys.executable)


def test_servers_run_for_an_ordinary_user() -> None:
    if os.geteuid() != 0:
        return  # the test above is this one
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    data = Path(f"/var/tmp/slipway-test-{os.getpid()}")
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    try:
        start_and_stop(data, ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"], python)
    finally:
        shutil.rmtree(data)


@pytest.mark.parametrize("blocked", [(), ("unshare",)])
def test_some_way_of_leaving_root_reaches_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocked: tuple[str, ...]
) -> None:
    works = identity._works
    monkeypatch.setattr(identity, "_works", lambda who, folder: who.prefix[0] not in blocked and works(who, folder))
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    who = identity.choose(private)
    done = subprocess.run([*who.prefix, "sh", "-c", f"id -u; ls {private}"], capture_output=True, text=True, check=True)
    assert int(done.stdout) != 0


def test_where_no_way_is_left_a_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(identity, "_works", lambda who, folder: False)
    monkeypatch.setattr(identity, "_reachable_by_all", lambda folder: False)
    with pytest.raises(OSError, match="run as an ordinary user"):
        identity.choose(tmp_path)
