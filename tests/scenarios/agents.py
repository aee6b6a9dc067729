"""The node agents of a ground."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from portal.demo.layout import REPOSITORY
from portal.demo.ports import PortBook
from portal.demo.stack import NODES

if TYPE_CHECKING:
    from tests.scenarios.grounds import Ground

# Pulls, downloads and engine starts take next to nothing of what they take in the demo; back-offs keep their seconds.
SPEED = 120.0


class Agents:
    """One process per GPU node, several times as fast as the demo's."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._prefix = PortBook(ground.data / "node-ports.json", preferred={}).choose_prefix()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # Where nodes look for buckets of Google: a scenario that needs one listens there.
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.google_port: int = listener.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run an agent for each node until the block ends; back when all are ready."""
        with ExitStack() as stack:
            stack.callback(self._end, *NODES)
            for name in NODES:
                self._start(name)
            self._await_nodes()
            yield

    def restart(self, name: str) -> None:
        """End the agent of a node, with everything that runs there, and start another."""
        self._end(name)
        self._start(name)

    def _start(self, name: str) -> None:
        words = ["--name", name, "--pod-prefix", f"127.{self._prefix}", "--speed", str(SPEED)]
        words += ["--hub-url", self._ground.environment["HUB_URL"], "--model-url", self._model_url()]
        words += ["--kubeconfig", str(self._ground.kubeconfig_of("node"))]
        words += ["--claims", str(self._ground.data / "claims"), "--google-url", f"http://127.0.0.1:{self.google_port}"]
        argv = [sys.executable, "-m", "sandbox", "node", *words]
        with (self._ground.data / "logs" / f"node-{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _end(self, *names: str) -> None:
        agents = [self._processes.pop(name) for name in names if name in self._processes]
        for agent in agents:
            agent.terminate()
        for agent in agents:
            agent.wait(30)

    def _await_nodes(self) -> None:
        deadline = time.monotonic() + 60
        while sum(_is_ready(node) for node in self._ground.list("Node")) < len(NODES):
            if any(agent.poll() is not None for agent in self._processes.values()) or time.monotonic() > deadline:
                raise RuntimeError(f"the nodes did not come up; their logs: {self._ground.data / 'logs'}")
            time.sleep(0.1)

    def _model_url(self) -> str:
        ports: dict[str, int] = json.loads((self._ground.data / "ports.json").read_text())
        return f"http://127.0.0.1:{ports['model']}"


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    taints = {taint["key"] for taint in node["spec"].get("taints", [])}
    return ready and "node.kubernetes.io/not-ready" not in taints
