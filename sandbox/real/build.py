"""Builds the programs of the real control plane with the Go client: once, into a cache outside the tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from sandbox.real import cache, seed, tools
from sandbox.real.tools import Tool

Say = Callable[[str], None]
WEBHOOK_PORT = "Port: options.webhookPort"
TICK = 15.0  # seconds between signs of life while the compiler is at work
# What of a module's `config` folder is installed, in this order; the rest is for clusters with certificate managers.
KSERVE_PARTS = "components/kserve", "components/llmisvc", "configmap", "storagecontainers", "clusterresources"


class BuildError(Exception):
    """A program cannot be built; the message says why and what helps."""


def ensure(say: Say) -> None:
    """Build what is missing, with progress; BuildError when that fails. Nothing to do costs nothing."""
    for group in tools.RECIPES:
        cache.use(tools.folder(group))
    if not tools.missing():
        return
    if why := no_go():
        raise BuildError(why)
    with tools.alone(say):
        todo = [tool for tool in tools.TOOLS if tool.find() is None]
        for number, tool in enumerate(todo, 1):
            _build(tool, f"{number} of {len(todo)}", say)
        for group in tools.WITH_MANIFESTS:
            if not tools.manifests(group).exists():
                say(f"reading the manifests of {group}")
                _write(tools.manifests(group), json.dumps(_manifests(group)))
        for group in tools.RECIPES:
            cache.clear_away(tools.folder(group), say)


def no_go() -> str:
    """Why nothing can be built here, in one sentence; empty when it can."""
    client = tools.go()
    wanted = ".".join(map(str, tools.OLDEST_GO))
    if client is None:
        found = "`go` was not found"
    elif (version := tools.go_version(client)) is not None and version < tools.OLDEST_GO:
        found = f"this is {version[0]}.{version[1]}"
    else:
        return ""
    return (
        f"The real control plane is built with Go {wanted} or newer, and {found}: "
        "install it, or use the small one with CLUSTER=lite."
    )


def main(words: Sequence[str] | None = None) -> int:
    """Build everything, for `make control-plane`; with `--where-possible` a machine without Go is no failure."""
    arguments = sys.argv[1:] if words is None else words
    begun = time.monotonic()
    if "--where-possible" in arguments and tools.missing() and (why := no_go()):
        print(why)
        return 0

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
    for abandoned in target.parent.glob(f".{tool.name}.*"):
        abandoned.unlink()
    fresh = target.with_name(f".{tool.name}.{os.getpid()}")
    flags = ["-s", "-w"]
    if tool.group == "kubernetes":
        version = tools.module_version("kubernetes", "k8s.io/kubernetes")
        major, minor, _ = version.removeprefix("v").split(".", 2)
        values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
        flags += [f"-X {tools.VERSION_FLAGS}.{key}={value}" for key, value in values.items()]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slipway-kserve-") as folder:
        modules = [f"-modfile={_loopback(tool, Path(folder))}"] if tool.group == "kserve" else []
        _go(
            tool.group,
            [
                *("build", "-trimpath", "-buildvcs=false", *modules),
                *("-ldflags", " ".join(flags), "-o", str(fresh), tool.package),
            ],
            lambda: say(f"  still building {tool.name}, {time.monotonic() - begun:.0f} s"),
        )
    fresh.replace(target)
    say(f"  built {tool.name} in {time.monotonic() - begun:.0f} s, {target.stat().st_size >> 20} MiB")


def _loopback(tool: Tool, folder: Path) -> Path:
    """Have KServe's webhooks listen on 127.0.0.1, since its programs take a port alone.

    Their sources are copied and one word is put in; returns the go.mod that takes the copy.
    """
    module = _module_of(tool)
    source = _source_of(tool.group, module)
    copy = folder / "source"
    for name in ("cmd", "pkg"):
        shutil.copytree(source / name, copy / name, copy_function=shutil.copyfile)
    shutil.copyfile(source / "go.mod", copy / "go.mod")
    main = copy / tool.package.removeprefix(f"{module}/") / "main.go"
    text = main.read_text()
    if text.count(WEBHOOK_PORT) != 1:
        raise BuildError(f"{tool.package} does not say {WEBHOOK_PORT!r} once: it would listen on every address.")
    main.chmod(0o600)
    main.write_text(text.replace(WEBHOOK_PORT, f'Host: "127.0.0.1", {WEBHOOK_PORT}'))
    pins = tools.MODULES / tool.group
    (folder / "go.mod").write_text((pins / "go.mod").read_text() + f"\nreplace {module} => {copy}\n")
    shutil.copyfile(pins / "go.sum", folder / "go.sum")
    return folder / "go.mod"


def _module_of(tool: Tool) -> str:
    """The module that a program's package is part of."""
    return "/".join(tool.package.split("/")[: 3 if tool.package.startswith("github.com") else 2])


def _source_of(group: str, module: str) -> Path:
    """Where Go keeps a module's source. It is fetched first: nothing that was built before needs to be there."""
    return Path(json.loads(_go(group, ["mod", "download", "-json", module]))["Dir"])


def _manifests(group: str) -> list[object]:
    """The objects in a module's `config` tree, as kustomize puts them together."""
    module = _module_of(next(tool for tool in tools.TOOLS if tool.group == group))
    config = _source_of(group, module) / "config"
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


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)


def _usual(seconds: int) -> str:
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"


if __name__ == "__main__":
    sys.exit(main())
