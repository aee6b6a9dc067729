"""Others read what Slipway made: kubectl and KServe's own Python client agree with it where KServe tells the truth."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portal.demo.layout import REPOSITORY
from tests.deployments import factories as make
from tests.scenarios.grounds import Ground
from tests.scenarios.stage import SMALL, Says, Stage, engine
from tests.scenarios.test_failures import CROWDED, shapeless

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(300)]

PEER = Path(__file__).parent.parent / "peer.py"
LOCK = REPOSITORY / "requirements" / "peer.txt"
TOOLS = Path(sys.executable).parent

Read = Callable[[Stage, str], dict[str, Any]]


@pytest.fixture(scope="session")
def sdk(ground: Ground) -> Iterator[Read]:
    """KServe's client in an environment of its own, kept for the next run: `sdk(stage, name)` is what it reads."""
    key = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    place = REPOSITORY / ".demo-test" / f"peer-{key}"
    if not (place / "made").exists():
        run(TOOLS / "uv", "venv", "--quiet", "--clear", "--python", sys.executable, place)
        run(TOOLS / "uv", "pip", "install", "--quiet", "--python", place / "bin/python", "--require-hashes", "-r", LOCK)
        (place / "made").touch()
    words = [str(place / "bin/python"), str(PEER), str(ground.kubeconfig_of("admin"))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        asked, answers = peer.stdin, peer.stdout

        def read(stage: Stage, name: str) -> dict[str, Any]:
            asked.write(f"{stage.namespace} {name}\n")
            asked.flush()
            told: dict[str, dict[str, Any]] = json.loads(answers.readline())
            assert "failed" not in told, told["failed"]
            return told["read"]

        yield read
        asked.close()


def run(*words: object) -> str:
    """What a program prints; AssertionError with its complaint when it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kubectl(stage: Stage, *words: str) -> str:
    config = stage.ground.kubeconfig_of("admin")
    cache = f"--cache-dir={config.parent / 'kubectl-cache'}"
    program = next(path for path in (TOOLS / "kubectl", Path("/usr/bin/kubectl")) if os.access(path, os.X_OK))
    return run(program, "--kubeconfig", config, cache, "-n", stage.namespace, *words)


def test_a_peer_reads_what_serves(stage: Stage, sdk: Read):
    row = stage.running()

    seen = sdk(stage, row.name)

    assert seen["ready"] is True
    assert (seen["model"], seen["failure"]) == ("UpToDate", None)
    commit = row.approved.resolution["commit"]
    assert seen["source"] == f"{SMALL}:{commit}"
    assert (seen["gpus"], seen["replicas"]) == ("1", 1)
    assert kubectl(stage, "wait", "--for=condition=Ready", f"inferenceservice/{row.name}", "--timeout=5s")
    assert row.name in kubectl(stage, "describe", "inferenceservice", row.name)
    [line] = kubectl(stage, "get", "pods", "--no-headers").splitlines()
    assert line.split()[1:3] == ["1/1", "Running"]


def test_a_peer_reads_what_stands_still(stage: Stage, sdk: Read):
    row = stage.running()
    stage.stop(row)
    stage.comes_to(row, Says("Stopped"))

    seen = sdk(stage, row.name)

    assert (seen["ready"], seen["conditions"]["Stopped"]) == (False, "True")
    assert kubectl(stage, "get", "pods", "--no-headers") == ""


def test_a_peer_believes_what_slipway_does_not(stage: Stage, sdk: Read):
    """KServe calls a service ready whose only pod crashes: here the portal and its peer have to differ."""
    shapeless(make.QWEN)
    row = stage.ask(source={"uri": make.QWEN}, engine=engine(**CROWDED))
    stage.until(row, lambda: stage.fresh(row).state == "Failed", within=60, what="failed")

    stage.until(row, lambda: stage.pods()[0]["status"]["containerStatuses"][0]["restartCount"], what="a restart")

    seen = sdk(stage, row.name)

    assert (seen["ready"], seen["model"], seen["failure"]) == (True, "UpToDate", None)
    [line] = kubectl(stage, "get", "pods", "--no-headers").splitlines()
    assert line.split()[1] == "0/1"
