"""The programs of the real control plane: which Go module each comes from, and where built ones are kept.

Versions stand in `tools/*/go.mod` alone, one file per group because the groups' dependencies disagree. What was built
is kept outside the tree, in a folder named after a hash of everything that decides its content.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NoReturn

MODULES = Path(__file__).parent / "tools"
# Part of a group's hash: raise one when its programs are built in another way.
RECIPES = {"etcd": "1", "kubernetes": "1", "kserve": "2", "lws": "1"}
OLDEST_GO = (1, 26)
VERSION_FLAGS = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Tool:
    """One program: its group (a folder of `tools`), its Go package, and how long a first build takes in seconds.

    `found_elsewhere` names the version prefix with which one that somebody else installed is as good.
    """

    name: str
    group: str
    package: str
    seconds: int
    found_elsewhere: str = ""

    @property
    def path(self) -> Path:
        """Where the built program lies, or will."""
        return folder(self.group) / self.name

    def find(self) -> Path | None:
        """The program to run, None when it has to be built first."""
        if self.found_elsewhere:
            for place in (os.environ.get("KUBEBUILDER_ASSETS", ""), os.environ.get("PATH", "")):
                found = shutil.which(self.name, path=place) if place else None
                if found and re.search(self.found_elsewhere, _version_of(found)):
                    return Path(found)
        return self.path if self.path.exists() else None


# Measured on two cores with an empty build cache; after the first of a group the others share most of it.
TOOLS = (
    Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3", 35, r"etcd Version: 3\.(5|6|7)\."),
    Tool("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", 340, r"Kubernetes v1\.36\."),
    Tool("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager", 60),
    Tool("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", 20),
    Tool("kserve-manager", "kserve", "github.com/kserve/kserve/cmd/manager", 120),
    Tool("kserve-llmisvc", "kserve", "github.com/kserve/kserve/cmd/llmisvc", 30),
    Tool("lws-manager", "lws", "sigs.k8s.io/lws/cmd", 110),
)
# Groups whose modules also carry the manifests that belong to their programs.
WITH_MANIFESTS = "kserve", "lws"


def cache_root() -> Path:
    """The folder of everything built, outside the tree: SLIPWAY_CACHE, else the user's cache folder."""
    own = os.environ.get("SLIPWAY_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipway"


def folder(group: str) -> Path:
    """Where the programs of a group are kept; changes with its go.mod, go.sum, the recipe and the machine's kind."""
    return cache_root() / "control-plane" / f"{group}-{_key(group)}"


def manifests(group: str) -> Path:
    """The objects that a group's module brings, as a JSON list."""
    return folder(group) / "manifests.json"


def missing() -> list[str]:
    """What has to be built before the control plane can start; empty when nothing."""
    programs = [tool.name for tool in TOOLS if tool.find() is None]
    return programs + [f"{group} manifests" for group in WITH_MANIFESTS if not manifests(group).exists()]


def program(name: str) -> Path:
    """The path of a program; FileNotFoundError when it is not built."""
    found = next(tool for tool in TOOLS if tool.name == name).find()
    if found is None:
        raise FileNotFoundError(f"{name} is not built: make control-plane")
    return found


def go() -> str | None:
    """The Go client, None where there is none."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def go_version(client: str) -> tuple[int, int] | None:
    """Major and minor version of a Go client, None when it does not tell."""
    try:
        told = subprocess.run([client, "version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\bgo(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else None


def module_version(group: str, module: str) -> str:
    """The version of a module that a group's go.mod pins, such as v1.36.3."""
    text = (MODULES / group / "go.mod").read_text()
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(module)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise LookupError(f"{group}/go.mod does not require {module}")
    return found[1]


@contextmanager
def alone(say: Callable[[str], None]) -> Iterator[None]:
    """Let one build at a time write to the cache; a second waits for the first and finds everything done.

    Within the block SIGTERM ends this program in order: no compiler and no server of a seed stays behind.
    """
    place = cache_root() / "control-plane"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        with _ends_in_order():
            yield


@contextmanager
def _ends_in_order() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@cache
def _key(group: str) -> str:
    digest = hashlib.sha256(f"{RECIPES[group]} {platform.system()} {platform.machine()}".encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULES / group / name).read_bytes())
    return digest.hexdigest()[:16]


def _version_of(path: str) -> str:
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout
