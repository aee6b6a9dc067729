"""Somebody who uses a running demo over its REST API, patient while a part of it is being restarted."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portal.demo.layout import REPOSITORY

PAUSE = 0.25


def wish(
    team: str, name: str, *, uri: str = "hf://Qwen/Qwen2.5-0.5B-Instruct", flavor: str = "l4-24gb"
) -> dict[str, Any]:
    """The smallest request that is approved by policy in a team that allows it."""
    return {
        "team": team,
        "name": name,
        "spec": {
            "source": {"uri": uri, "revision": None, "credential": None},
            "strategy": "standard",
            "flavor": flavor,
            "replicas": {"min": 1, "max": 1},
            "engine": {"profile": "vllm-0.32.0", "args": {"max-model-len": 4096}},
        },
    }


@dataclass(frozen=True)
class Person:
    """One account of demo.json."""

    url: str
    username: str
    token: str

    @classmethod
    def named(cls, demo: dict[str, Any], username: str) -> Person:
        account = next(row for row in demo["accounts"] if row["username"] == username)
        return cls(demo["url"], username, account["token"])

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and decoded answer, whatever the status; OSError when nobody answers."""
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as refused:
            return refused.code, _decoded(refused.read())

    def ask(self, body: dict[str, Any]) -> int:
        """Submit a request and return the deployment's id."""
        status, answer = self.call("POST", "/api/v1/deployments/", body)
        assert status == 201, answer
        return int(answer["id"])

    def wait_for(self, pk: int, wanted: str, seconds: float = 90) -> float:
        """Seconds until the deployment is in the state `wanted` ("gone": not there any more)."""

        def reached() -> bool:
            status, answer = self.call("GET", f"/api/v1/deployments/{pk}/")
            return status == 404 if wanted == "gone" else status == 200 and answer["state"] == wanted

        return wait_until(reached, seconds, lambda: self.call("GET", f"/api/v1/deployments/{pk}/"))

    def ledger(self, pk: int) -> list[tuple[str, int]]:
        """Kind and GPUs of each ledger row of one deployment, oldest first."""
        status, answer = self.call("GET", f"/api/v1/reservations/?deployment={pk}")
        assert status == 200, answer
        rows = [row for row in answer["results"] if row["deployment"] == pk]
        return [(row["kind"], row["delta"]) for row in reversed(rows)]


def wait_until(reached: Callable[[], bool], seconds: float, seen: Callable[[], Any] = lambda: None) -> float:
    """Seconds until `reached`; a part that is away meanwhile counts as not yet."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        try:
            if reached():
                return time.monotonic() - begun
        except OSError:
            pass  # it is being restarted: that is what these tests are about
        time.sleep(PAUSE)
    raise AssertionError(f"not within {seconds} s: {seen()}")


def kubectl(demo: dict[str, Any], *words: str) -> Any:
    """What the cluster says, decoded."""
    program = REPOSITORY / ".venv" / "bin" / "kubectl"
    cache = Path(demo["data"]) / "kubectl-cache"
    command = [program, "--kubeconfig", demo["kubeconfig"], "--cache-dir", cache, *words, "-o", "json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text.decode(errors="replace")[:300]
