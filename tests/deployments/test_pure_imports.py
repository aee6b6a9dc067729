"""The pure core starts without Django and Celery: each module alone, in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = ["spec", "spec_errors", "findings", "labels", "state", "commandline", "fitting"]
PACKAGES = ["preflight", "engine", "sources", "manifests", "kube"]
HEAVY = ["django", "celery", "rest_framework", "psycopg"]


def modules() -> list[str]:
    found = [f"deployments.{name}" for name in PURE]
    for package in PACKAGES:
        for path in sorted((ROOT / "deployments" / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


SCRIPT = """
import json, sys, os
# What is slow to load and has no Django in it is loaded once, not once per fork.
import pydantic, kubernetes.config
import deployments.spec
answers = {}
for name in json.loads(sys.argv[1]):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            __import__(name)
            text = json.dumps(sorted(set(json.loads(sys.argv[2])) & set(sys.modules)))
        except BaseException as error:
            text = json.dumps([f"failed: {error!r}"])
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answers[name] = json.loads(stream.read())
    os.waitpid(pid, 0)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What each module pulls in; every one is imported in a fork of a bare interpreter."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(modules()), json.dumps(HEAVY)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return dict(json.loads(answer.stdout))


@pytest.mark.parametrize("name", modules())
def test_a_pure_module_pulls_in_neither_django_nor_celery(name: str, loaded: dict[str, list[str]]):
    assert loaded[name] == []


def test_the_package_itself_is_empty():
    assert (ROOT / "deployments" / "__init__.py").read_text() == ""
