"""The cache of the real control plane: what other checkouts use stays; what nobody used for two weeks goes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from portal.demo.layout import REPOSITORY
from sandbox.real import build, cache, seed, tools

OTHER = "0123456789abcdef"
DAY = 86400.0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path))
    made = tmp_path / "control-plane"
    made.mkdir()
    return made


def kept(folder: Path, *, days: float) -> Path:
    """A folder of the cache that was used last so many days ago."""
    folder.mkdir(parents=True)
    (folder / "program").write_text("built")
    then = time.time() - days * DAY
    os.utime(folder, (then, then))
    return folder


@pytest.mark.parametrize("group", tools.RECIPES)
def test_what_no_checkout_has_used_for_two_weeks_goes(place: Path, group: str) -> None:
    present = kept(tools.folder(group), days=90)
    lately, long_ago = kept(place / f"{group}-{OTHER}", days=13), kept(place / f"{group}-{OTHER[::-1]}", days=15)
    strangers = [kept(place / name, days=90) for name in (f"{group}-notes", f"other-{OTHER}", f"{group}{OTHER}")]
    said: list[str] = []

    cache.clear_away(present, said.append)

    assert not long_ago.exists()
    assert [path for path in (present, lately, *strangers) if not (path / "program").exists()] == []
    assert said == [f"removed {long_ago.name} from the cache: not used for 15 days"]


def test_a_program_that_runs_keeps_its_folder(place: Path) -> None:
    old = kept(place / f"etcd-{OTHER}", days=0)
    sleeper = old / "etcd"
    shutil.copy(shutil.which("sleep") or "", sleeper)
    os.utime(old, (0, 0))
    with subprocess.Popen([sleeper, "60"]) as process:
        try:
            cache.clear_away(tools.folder("etcd"), print)
            assert sleeper.exists()
        finally:
            process.kill()
    cache.clear_away(tools.folder("etcd"), print)
    assert not old.exists()


def test_use_is_noted_wherever_something_of_the_cache_is_taken(place: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(seed, "folder", lambda: place / f"seed-{OTHER}")
    monkeypatch.setattr(tools, "missing", lambda: [])
    folders = [kept(tools.folder(group), days=90) for group in tools.RECIPES]
    sown = kept(seed.folder(), days=90)
    build.ensure(print)
    seed.ensure(print)
    cache.clear_away(place / "seed-1111111111111111", print)
    for group in tools.RECIPES:
        cache.clear_away(place / f"{group}-1111111111111111", print)
    assert all(path.exists() for path in (*folders, sown))

    (sown / "etcd").mkdir()
    (sown / seed.RECORD).write_text(json.dumps({}))
    os.utime(sown, (0, 0))
    assert seed.sow(tmp_path / "cluster")
    assert time.time() - sown.stat().st_mtime < DAY


def test_a_new_seed_takes_the_place_of_old_and_unfinished_ones(place: Path, monkeypatch) -> None:
    new, old = place / f"seed-{OTHER}", kept(place / f"seed-{OTHER[::-1]}", days=30)
    unfinished = kept(place / "slipway-seed-x1y2z3", days=0)
    monkeypatch.setattr(seed, "folder", lambda: new)
    monkeypatch.setattr(seed, "_keep", lambda made: made.mkdir())
    seed.ensure(print)
    assert new.exists()
    assert not old.exists()
    assert not unfinished.exists()


def test_a_build_that_is_told_to_end_leaves_nothing_running(place: Path, tmp_path: Path) -> None:
    """`make test` ends the demo that builds with SIGTERM; what that has started must not outlive it."""
    child = tmp_path / "child"
    script = (
        "import subprocess, sys, pathlib\n"
        "from sandbox.real import tools\n"
        "with tools.alone(print):\n"
        "    process = subprocess.Popen(['sleep', '60'])\n"
        "    try:\n"
        f"        pathlib.Path({str(child)!r}).write_text(str(process.pid))\n"
        "        process.wait()\n"
        "    finally:\n"
        "        process.kill()\n"
        "        process.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY) as builder:
        deadline = time.monotonic() + 20
        while not (child.exists() and child.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        builder.send_signal(signal.SIGTERM)
        assert builder.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(child.read_text()), 0)
