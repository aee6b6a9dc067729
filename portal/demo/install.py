"""Finds what the stack needs from the system, and installs what is missing with apt-get where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from portal.demo import services

POLICY = Path("/usr/sbin/policy-rc.d")
# How the packages are called where apt-get is not the way.
OTHER_MANAGERS = {"dnf": "dnf install", "zypper": "zypper install", "pacman": "pacman -S", "apk": "apk add"}


@dataclass(frozen=True)
class Part:
    """One thing of the system: what it is for, the Debian package, and how it is found."""

    name: str
    package: str
    purpose: str
    found: Callable[[], bool]

    def sentence(self) -> str:
        """Say in one sentence that it is missing and which command gets it."""
        manager = next((line for word, line in OTHER_MANAGERS.items() if shutil.which(word)), "apt-get install")
        sudo = "" if os.geteuid() == 0 else "sudo "
        return f"{self.name} is missing ({self.purpose}): {sudo}{manager} {self.package}"


PARTS = {
    "postgres": Part(
        "PostgreSQL", "postgresql", "it keeps what is wanted", lambda: services.find().postgres is not None
    ),
    "redis": Part("Redis", "redis-server", "it carries hints to workers", lambda: services.find().redis is not None),
    "prometheus": Part(
        "Prometheus", "prometheus", "it keeps the metrics", lambda: services.find().prometheus is not None
    ),
    "chromium": Part("Chromium", "chromium", "the browser tests drive it", lambda: chromium() is not None),
}


def chromium() -> str | None:
    """Return the path of the system's Chromium or Chrome."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def ensure(names: Iterable[str], say: Callable[[str], None]) -> bool:
    """Install what is missing of `names`; False, after saying what to do, when something stays missing."""
    missing = [PARTS[name] for name in names if not PARTS[name].found()]
    if not missing:
        return True
    command = _apt_command([part.package for part in missing])
    if command is not None and _agreed(missing, command, say):
        _install(command, say)
        missing = [part for part in missing if not part.found()]
    for part in missing:
        say(part.sentence())
    return not missing


def _apt_command(packages: list[str]) -> list[str] | None:
    """Return the command line, or None where there is no apt-get or no right to use it."""
    if shutil.which("apt-get") is None:
        return None
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() == 0:
        return install
    return ["sudo", *install] if shutil.which("sudo") else None


def _agreed(missing: list[Part], command: list[str], say: Callable[[str], None]) -> bool:
    say(f"Not on this machine yet: {', '.join(part.name for part in missing)}. This gets it:")
    say(f"    {' '.join(command)}")
    if os.environ.get("CI") or os.environ.get("YES") == "1":
        return True
    if not sys.stdin.isatty():
        say("(YES=1 in the environment runs it without asking.)")
        return False
    return input("Run it now? [Y/n] ").strip().lower() in ("", "y", "yes")


def _install(command: list[str], say: Callable[[str], None]) -> None:
    sudo = command[:1] if command[0] == "sudo" else []
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = command[command.index("--no-install-recommends") + 1 :]
    with _services_stay_off(sudo):
        for step in ([*sudo, "apt-get", "update", "--quiet=2"], command):
            say(f"  {' '.join(step)}")
            result = subprocess.run(
                step, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            if result.returncode:
                say(result.stdout.decode(errors="replace")[-3000:])
                say(f"  {' '.join(step)} failed with status {result.returncode}.")
                return
    if Path("/run/systemd/system").exists():
        subprocess.run([*sudo, "systemctl", "disable", "--quiet", *packages], check=False, capture_output=True)


@contextmanager
def _services_stay_off(sudo: list[str]) -> Iterator[None]:
    """Keep the packages from starting servers of their own on the standard ports."""
    if POLICY.exists():
        yield
        return
    script = f"printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}"
    subprocess.run([*sudo, "sh", "-c", script], check=True)
    try:
        yield
    finally:
        subprocess.run([*sudo, "rm", "-f", str(POLICY)], check=True)
