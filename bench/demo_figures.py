"""Measure what the demo promises: how soon a page answers, how soon a newcomer's model runs, what idling costs.

    .venv/bin/python -m bench.demo_figures            # about four minutes; prints the table of docs/measured.md

Starts a stack on data of its own, so a running demo is left alone. Memory is the proportional set size (PSS), which
counts shared pages once; processor time is what all processes of the stack used over the idle minute.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from portal.demo import proc
from portal.demo.layout import REPOSITORY

TICKS = os.sysconf("SC_CLK_TCK")
IDLE_SECONDS = 60


class Stack:
    """`make demo` without make, on a folder of its own."""

    def __init__(self, data: Path) -> None:
        self.data, self.ready = data, data.parent / "ready.json"
        self.ready.unlink(missing_ok=True)
        self.begun = time.monotonic()
        command = [sys.executable, "-m", "portal.demo", "up", "--data", str(data), "--ready-file", str(self.ready)]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)

    def page_after(self) -> float:
        """Seconds from the start until the sign-in page answers."""
        while True:
            try:
                url = json.loads((self.data / "demo.json").read_text())["url"]
                with urllib.request.urlopen(f"{url}/accounts/login/", timeout=5):
                    return time.monotonic() - self.begun
            except (OSError, ValueError):
                time.sleep(0.1)

    def up_after(self) -> float:
        while not self.ready.exists():
            time.sleep(0.1)
        return time.monotonic() - self.begun

    def stop(self) -> float:
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        return time.monotonic() - begun

    def processes(self) -> set[int]:
        return proc.descendants(self.process.pid) | {self.process.pid}


def seconds_used(pids: set[int]) -> float:
    """Processor seconds of these processes, those of ended children included."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def memory(pids: set[int]) -> float:
    """Proportional set size in GB."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e9


def call(demo: dict[str, Any], username: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
    token = next(row["token"] for row in demo["accounts"] if row["username"] == username)
    sent = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(demo["url"] + path, data, sent, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def newcomer(demo: dict[str, Any]) -> dict[str, float]:
    """Ask as Alice, approve as Carol, and note the seconds after approval at which each state was first seen."""
    spec = {
        "source": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct", "revision": None, "credential": None},
        "strategy": "standard",
        "flavor": "l40s-48gb",
        "replicas": {"min": 1, "max": 1},
        "engine": {"profile": "vllm-0.32.0", "args": {"max-model-len": 16384}},
    }
    row = call(demo, "alice", "POST", "/api/v1/deployments/", {"team": "search", "name": "newcomer", "spec": spec})
    path = f"/api/v1/deployments/{row['id']}/"
    call(demo, "carol", "POST", f"{path}approve/", {"comment": "measured", "digest": row["digest"]})
    begun, seen = time.monotonic(), dict[str, float]()
    while "Running" not in seen:
        state = call(demo, "alice", "GET", path)["state"]
        seen.setdefault(state, time.monotonic() - begun)
        if state in {"Failed", "Blocked"} or time.monotonic() - begun > 300:
            raise SystemExit(f"did not come up: {seen}")
        time.sleep(0.2)
    return seen


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="slipway-figures-"))
    folder.chmod(0o755)  # PostgreSQL may run as another user
    stack = Stack(folder / "demo")
    page, up = stack.page_after(), stack.up_after()
    demo = json.loads((folder / "demo" / "demo.json").read_text())
    seen = newcomer(demo)
    time.sleep(20)  # let the new deployment settle: the idle minute is about idling
    pids = stack.processes()
    used, begun = seconds_used(pids), time.monotonic()
    time.sleep(IDLE_SECONDS)
    share = (seconds_used(pids) - used) / (time.monotonic() - begun)
    size, count = memory(stack.processes()), len(stack.processes())
    stopped = stack.stop()
    again = Stack(folder / "demo")
    second_page, second_up = again.page_after(), again.up_after()
    again.stop()
    shutil.rmtree(folder)
    rows = [
        ("first start: page answers", f"{page:.0f} s"),
        ("first start: everything up", f"{up:.0f} s"),
        ("second start: page answers", f"{second_page:.0f} s"),
        ("second start: everything up", f"{second_up:.0f} s"),
        ("Ctrl-C until nothing is left", f"{stopped:.1f} s"),
        *((f"approval until {state}", f"{at:.1f} s") for state, at in seen.items() if state != "AwaitingApproval"),
        (f"idle with traffic: processor, {count} processes", f"{share:.2f} cores"),
        ("idle with traffic: memory (PSS)", f"{size:.2f} GB"),
    ]
    print("| what | measured |\n| --- | --- |")
    for what, measured in rows:
        print(f"| {what} | {measured} |")


if __name__ == "__main__":
    main()
