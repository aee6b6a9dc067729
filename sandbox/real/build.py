"""Builds the programs of the real control plane with the Go client: once, into a cache outside the tree."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from sandbox.real import seed, tools
from sandbox.real.tools import Tool

Say = Callable[[str], None]
TICK = 15.0  # seconds between signs of life while the compiler is at work
# What of a module's `config` folder is installed, in this order; the rest is for clusters with certificate managers.
KSERVE_PARTS = "components/kserve", "components/llmisvc", "configmap", "storagecontainers", "clusterresources"


class BuildError(Exception):
    """A program cannot be built; the message says why and what helps."""


def ensure(say: Say) -> None:
    """Build what is missing, with progress; BuildError when that fails. Nothing to do costs nothing."""
    if not tools.missing():
        return
    if tools.go() is None:
        raise BuildError(
            "The real control plane is built with Go 1.26 or newer, and `go` was not found: install it, or use the "
            "small one with CLUSTER=lite."
        )
    with _alone(say):
        todo = [tool for tool in tools.TOOLS if tool.find() is None]
        for number, tool in enumerate(todo, 1):
            _build(tool, f"{number} of {len(todo)}", say)
        for group in tools.WITH_MANIFESTS:
            if not tools.manifests(group).exists():
                say(f"reading the manifests of {group}")
                _write(tools.manifests(group), json.dumps(_manifests(group)))


def main() -> int:
    """Build everything; for `make control-plane`."""
    begun = time.monotonic()

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        ensure(say)
        seed.ensure(say)
    except (BuildError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The control plane is built ({time.monotonic() - begun:.0f} s): {tools.cache_root() / 'control-plane'}")
    return 0


def _build(tool: Tool, place: str, say: Say) -> None:
    say(f"building {tool.name} ({place}; about {_usual(tool.seconds)} the first time)")
    target = tool.path
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{tool.name}.{os.getpid()}")
    flags = ["-s", "-w"]
    if tool.group == "kubernetes":
        version = tools.module_version("kubernetes", "k8s.io/kubernetes")
        major, minor, _ = version.removeprefix("v").split(".", 2)
        values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
        flags += [f"-X {tools.VERSION_FLAGS}.{key}={value}" for key, value in values.items()]
    begun = time.monotonic()
    _go(
        tool.group,
        ["build", "-trimpath", "-buildvcs=false", "-ldflags", " ".join(flags), "-o", str(fresh), tool.package],
        lambda: say(f"  still building {tool.name}, {time.monotonic() - begun:.0f} s"),
    )
    fresh.replace(target)
    say(f"  built {tool.name} in {time.monotonic() - begun:.0f} s, {target.stat().st_size >> 20} MiB")


def _manifests(group: str) -> list[object]:
    """The objects in a module's `config` tree, as kustomize puts them together."""
    package = next(tool.package for tool in tools.TOOLS if tool.group == group)
    module = "/".join(package.split("/")[: 3 if package.startswith("github.com") else 2])
    config = Path(_go(group, ["list", "-m", "-f", "{{.Dir}}", module]).strip()) / "config"
    if group == "lws":
        files = [*sorted((config / "crd" / "bases").glob("*.yaml")), config / "webhook" / "manifests.yaml"]
        files += [config / "rbac" / "role.yaml"]
        return [item for file in files for item in yaml.safe_load_all(file.read_text()) if item]
    found: list[object] = []
    for part in KSERVE_PARTS:
        found += [item for item in yaml.safe_load_all(_kustomize(config / part)) if item]
    return found


def _kustomize(folder: Path) -> str:
    kubectl = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if kubectl is None:
        raise BuildError("kubectl was not found; `make setup` brings one.")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"kubectl kustomize {folder}: {done.stderr[-2000:]}")
    return done.stdout


def _go(group: str, arguments: list[str], tick: Callable[[], None] | None = None) -> str:
    """Run the Go client in a group's folder and return what it prints; BuildError with its last words."""
    client = tools.go()
    assert client is not None
    environment = {key: value for key, value in os.environ.items() if key not in ("GOFLAGS", "GOWORK")}
    environment |= {"CGO_ENABLED": "0", "GOTOOLCHAIN": os.environ.get("GOTOOLCHAIN", "local")}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as trouble:
        process = subprocess.Popen(
            [client, *arguments], cwd=tools.MODULES / group, env=environment, stdout=output, stderr=trouble
        )
        try:
            while True:
                try:
                    code = process.wait(TICK)
                    break
                except subprocess.TimeoutExpired:
                    if tick is not None:
                        tick()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        output.seek(0)
        trouble.seek(0)
        if code:
            raise BuildError(f"go {arguments[0]} {arguments[-1]} failed:\n{trouble.read()[-3000:]}")
        return output.read()


@contextmanager
def _alone(say: Say) -> Iterator[None]:
    """Let one build at a time write to the cache; a second waits for the first and finds everything done."""
    place = tools.cache_root() / "control-plane"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)


def _usual(seconds: int) -> str:
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"


if __name__ == "__main__":
    sys.exit(main())
