"""What is missing is named, asked for, and installed without starting servers of the system's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from portal.demo import install
from portal.demo.install import Part

FAKE_APT = """#!/bin/sh
echo "$@" >> {log}
[ -e {policy} ] && echo policy >> {log}
case "$*" in *install*) touch {installed};; esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose apt-get only notes what it was asked, on which one part is missing."""
    apt = tmp_path / "apt-get"
    policy = tmp_path / "policy-rc.d"
    apt.write_text(FAKE_APT.format(log=tmp_path / "log", policy=policy, installed=tmp_path / "installed"))
    apt.chmod(0o755)
    (tmp_path / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(install, "POLICY", policy)
    part = Part("Thing", "thing-server", "it does things", lambda: (tmp_path / "installed").exists())
    monkeypatch.setitem(install.PARTS, "thing", part)
    for name in ("CI", "YES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def said() -> tuple[list[str], Callable[[str], None]]:
    lines: list[str] = []
    return lines, lines.append


def test_nothing_is_said_when_nothing_is_missing(machine: Path) -> None:
    (machine / "installed").touch()
    lines, say = said()
    assert install.ensure(["thing"], say)
    assert lines == []


@pytest.mark.parametrize("name", ["CI", "YES"])
def test_it_installs_without_asking_where_that_was_said(
    machine: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    lines, say = said()
    assert install.ensure(["thing"], say)
    log = (machine / "log").read_text()
    assert "install --yes --no-install-recommends thing-server" in log
    assert log.count("policy") == 2, "servers of the packages were free to start"
    assert not (machine / "policy-rc.d").exists()
    assert any("apt-get install" in line for line in lines)


def test_without_a_terminal_it_does_not_ask_and_names_the_command(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        lines, say = said()
        assert not install.ensure(["thing"], say)
    assert not (machine / "log").exists()
    (sentence,) = [line for line in lines if line.startswith("Thing is missing")]
    assert sentence.endswith("apt-get install thing-server")


def test_a_failing_package_manager_is_reported(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "apt-get").write_text("#!/bin/sh\necho no such package; exit 100\n")
    monkeypatch.setenv("YES", "1")
    lines, say = said()
    assert not install.ensure(["thing"], say)
    assert any("no such package" in line for line in lines)
    assert any("failed with status 100" in line for line in lines)
    assert lines[-1].startswith("Thing is missing")


def test_the_bootstrap_does_nothing_the_second_time(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "scripts").mkdir()
    (tmp_path / "requirements").mkdir()
    script = tmp_path / "scripts" / "bootstrap"
    script.write_bytes((root / "scripts" / "bootstrap").read_bytes())
    script.chmod(0o755)
    (tmp_path / "requirements" / "dev.txt").write_text("a==1\n")
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/bin/true")
    digest = subprocess.run(
        ["sh", "-c", "cat requirements/dev.txt scripts/bootstrap | sha256sum"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (venv / ".made-from").write_text(digest + "\n")
    done = subprocess.run([script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
