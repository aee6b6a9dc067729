"""The whole demo, as a newcomer gets it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from portal.demo import proc
from portal.demo.layout import REPOSITORY
from portal.demo.stack import NODES

PROGRAMS = {
    *("initdb", "postgres", "redis", "prometheus", "apiserver", "hub", "model", "gateway", "metrics"),
    *(f"node-{name}" for name in NODES),
    *("migrate", "seed", "web", "worker", "beat", "watcher", "traffic"),
}


def rows(data: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((data / "processes.json").read_text())
    return found


def get(url: str, token: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def working_in(data: Path) -> set[int]:
    """Every living process that was told of this data folder or runs a program of it."""
    mark, found = str(data).encode(), set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and proc.alive(int(entry.name)):
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:  # it ended while we looked
                continue
            if mark in told:
                found.add(int(entry.name))
    return found - {os.getpid()}


class Demo:
    """`make demo` on a data folder of its own."""

    def __init__(self, data: Path, *words: str) -> None:
        self.data = data
        self.output = data.parent / "output"
        self.ready = data.parent / "ready"
        self.ready.unlink(missing_ok=True)
        self.begun = time.monotonic()
        command = [sys.executable, "-m", "portal.demo", "up", "--data", str(data), "--ready-file", str(self.ready)]
        with self.output.open("ab") as out:
            self.process = subprocess.Popen([*command, *words], cwd=REPOSITORY, stdout=out, stderr=out)

    def wait_for_page(self) -> float:
        """Return the seconds until the page answered."""
        while self.process.poll() is None and time.monotonic() - self.begun < 120:
            with contextlib.suppress(OSError):  # it does not listen yet
                url = json.loads((self.data / "demo.json").read_text())["url"]
                if get(f"{url}/accounts/login/")[0] == 200:
                    return time.monotonic() - self.begun
            time.sleep(0.1)
        raise AssertionError(self.output.read_text())

    def wait_until_up(self, seconds: float = 150) -> dict[str, Any]:
        while not self.ready.exists():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() - self.begun < seconds, self.output.read_text()
            time.sleep(0.1)
        description: dict[str, Any] = json.loads((self.data / "demo.json").read_text())
        return description

    def press_ctrl_c(self) -> float:
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        return time.monotonic() - begun


@pytest.mark.stack
def test_it_starts_stops_without_a_trace_and_starts_again_with_its_data(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    demo = Demo(data)
    try:
        assert demo.wait_for_page() < 60
        first = demo.wait_until_up()
        admin = next(account for account in first["accounts"] if account["role"] == "admin")
        before = get(f"{first['url']}/api/v1/deployments/", admin["token"])
        assert demo.press_ctrl_c() < 15
        assert demo.process.returncode == 0, demo.output.read_text()
        assert not working_in(data)

        demo = Demo(data)
        assert demo.wait_for_page() < 40
        second = demo.wait_until_up()
        assert second["url"] == first["url"]
        again = get(f"{second['url']}/api/v1/deployments/", second["accounts"][0]["token"])
        assert (before[0], again[0]) == (200, 200), (before, again)
        names = [{row["name"] for row in json.loads(answer[1])["results"]} for answer in (before, again)]
        assert names[1] <= names[0] != set()
    finally:
        if demo.process.poll() is None:
            demo.press_ctrl_c()
    assert not working_in(data)


@pytest.mark.stack
def test_every_program_is_up_and_demo_json_leads_to_it(demo: dict[str, Any]) -> None:
    states = {name: row["state"] for name, row in rows(Path(demo["data"])).items()}
    assert set(states) == PROGRAMS
    assert {state for name, state in states.items()} <= {"up", "done"}
    assert get(f"{demo['url']}/readyz")[0] == 200
    assert get(f"{demo['prometheus_url']}/-/ready")[0] == 200
    assert get(f"{demo['gateway_url']}/healthz")[0] == 200
    assert stat.S_IMODE((Path(demo["data"]) / "demo.json").stat().st_mode) == 0o600
    assert {"member", "lead", "admin"} <= {account["role"] for account in demo["accounts"]}
    for account in demo["accounts"]:
        assert set(account) >= {"username", "password", "role", "team", "token"}
        assert get(f"{demo['url']}/api/v1/deployments/", account["token"])[0] == 200


@pytest.mark.stack
def test_nodes_and_their_exporters_are_seen(demo: dict[str, Any]) -> None:
    kubectl = REPOSITORY / ".venv" / "bin" / "kubectl"
    cache = Path(demo["data"]) / "kubectl-cache"
    command = [kubectl, "--kubeconfig", demo["kubeconfig"], "--cache-dir", cache, "get", "nodes", "--no-headers"]
    nodes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0]: line.split()[1] for line in nodes.splitlines()} == dict.fromkeys(NODES, "Ready")
    deadline = time.monotonic() + 30
    query = f"{demo['prometheus_url']}/api/v1/query?query=up"
    while True:
        series = json.loads(get(query)[1])["data"]["result"]
        jobs = [row["metric"]["job"] for row in series if row["value"][1] == "1"]
        if jobs.count("nvidia-dcgm-exporter") == len(NODES) and {"kube-state-metrics", "slipway-gateway"} <= set(jobs):
            return
        assert time.monotonic() < deadline, series
        time.sleep(0.5)


@pytest.mark.stack
def test_whatever_is_killed_comes_back(demo: dict[str, Any]) -> None:
    data = Path(demo["data"])
    before = rows(data)
    killed = {name: row["pid"] for name, row in before.items() if row["pid"]}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:
        now = rows(data)
        back = {name for name in killed if now[name]["state"] == "up" and now[name]["pid"] not in (0, killed[name])}
        if back == set(killed):
            break
        assert time.monotonic() < deadline, {name: now[name] for name in killed.keys() - back}
        time.sleep(0.2)
    while (answer := get(f"{demo['url']}/readyz"))[0] != 200:  # a pooled connection may have to be found dead first
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
