"""Order, restarts and, above all, that nothing is left: asked of /proc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portal.demo import proc
from portal.demo.layout import REPOSITORY


class Run:
    """One driver and what it printed; `family` are all pids that were ever seen below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.demo.driver", str(folder)], cwd=REPOSITORY, stdout=out, stderr=out
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str) -> None:
        eventually(lambda: text in self.text(), lambda: self.text())

    def pid(self, name: str) -> int:
        pid: int = json.loads((self.folder / "processes.json").read_text())[name]["pid"]
        return pid

    def inner(self) -> int:
        outer = self.process.pid
        (pid,) = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(pid)


def eventually(check: Callable[[], object], explain: Callable[[], str] = str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)


def alive_in(folder: Path) -> set[int]:
    """Every living process that works in `folder`, whoever its parent is now."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").resolve() == folder and proc.alive(int(entry.name)):
                    found.add(int(entry.name))
            except OSError:  # it ended while we looked
                continue
    return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    if run.process.poll() is None:
        run.process.terminate()
        run.process.wait(20)
    for pid in alive_in(tmp_path):  # left only by the test that kills both layers
        os.kill(pid, signal.SIGKILL)


def test_programs_start_in_the_order_of_their_needs(run: Run) -> None:
    run.wait_for("everything is up")
    assert (run.folder / "order").read_text().split() == ["first", "plain", "parent"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_it_ends_everything_within_seconds(run: Run, number: signal.Signals) -> None:
    run.wait_for("everything is up")
    assert len(alive_in(run.folder)) >= 4
    begun = time.monotonic()
    run.process.send_signal(number)
    assert run.process.wait(10) == 0
    assert time.monotonic() - begun < 5
    assert not alive_in(run.folder)
    assert "stubborn did not stop in time and is killed" in run.text()


def test_a_dead_program_is_named_and_started_again(run: Run) -> None:
    run.wait_for("everything is up")
    first = run.pid("plain")
    os.kill(first, signal.SIGKILL)
    run.wait_for("plain ended (signal 9), started again")
    eventually(lambda: run.pid("plain") not in (0, first))
    assert proc.alive(run.pid("plain"))


def test_killing_the_outer_layer_leaves_nothing(run: Run) -> None:
    run.wait_for("everything is up")
    run.process.kill()
    run.process.wait(5)
    eventually(lambda: not alive_in(run.folder))


def test_killing_the_inner_layer_leaves_nothing(run: Run) -> None:
    run.wait_for("everything is up")
    os.kill(run.inner(), signal.SIGKILL)
    assert run.process.wait(10) == 128 + signal.SIGKILL
    assert not alive_in(run.folder)


def test_killing_both_layers_at_once_leaves_no_program(run: Run) -> None:
    run.wait_for("everything is up")
    programs = {run.pid(name) for name in ("plain", "parent", "stubborn")}
    inner = run.inner()
    os.kill(inner, signal.SIGSTOP)  # so that neither can do anything for the other
    run.process.kill()
    os.kill(inner, signal.SIGKILL)
    run.process.wait(5)
    eventually(lambda: not any(proc.alive(pid) for pid in programs))


def test_a_program_that_cannot_start_ends_the_start_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "break").touch()
    run = Run(tmp_path)
    assert run.process.wait(20) == 1
    assert "broken ended (status 3)" in run.text()
    assert "no such luck" in run.text()
    assert str(tmp_path / "logs" / "broken.log") in run.text()
    assert not alive_in(tmp_path)
