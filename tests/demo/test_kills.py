"""Kill any one process while a deployment is being reconciled: it still comes to its state, once.

Each case asks for a model in a team whose policy approves at once, and kills one program in the moments in which the
worker is at it. Then the cluster must hold each object once, the ledger one reservation, and after deletion nothing.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from .people import Person, kubectl, wait_until, wish

TEAM = "devtools"
# One moment each, spread over the reconcile: accepted, being applied, pods appear.
CASES = {
    "worker": 0.0,
    "beat": 0.1,
    "watcher": 0.8,
    "web": 0.2,
    "redis": 0.0,
    "postgres": 0.3,
    "prometheus": 0.2,
    "apiserver": 0.3,
    "node-gpu-l4-1": 3.0,
    "gateway": 1.0,
}


def running(demo: dict[str, Any], program: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((Path(demo["data"]) / "processes.json").read_text())[program]
    return row


def kill(demo: dict[str, Any], program: str) -> None:
    """SIGKILL, and wait until the supervisor has another one up."""
    pid = running(demo, program)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: running(demo, program)["pid"] not in (0, pid), 30, lambda: running(demo, program))


def objects_named(demo: dict[str, Any], namespace: str, name: str) -> dict[str, int]:
    """How many pods, and objects of ours, carry this deployment's name."""
    services = kubectl(demo, "get", "inferenceservices", "-n", namespace)["items"]
    pods = kubectl(demo, "get", "pods", "-n", namespace, "-l", f"serving.kserve.io/inferenceservice={name}")["items"]
    return {
        "services": sum(item["metadata"]["name"] == name for item in services),
        "pods": len(pods),
    }


@pytest.mark.stack
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("program", "after"), CASES.items(), ids=CASES)
def test_a_deployment_reaches_its_state_once(demo: dict[str, Any], program: str, after: float) -> None:
    dave = Person.named(demo, "dave")
    namespace = next(team for team in dave.call("GET", "/api/v1/teams/")[1] if team["slug"] == TEAM)["namespace"]
    name = f"kill-{program}"[:38].rstrip("-")

    pk = dave.ask(wish(TEAM, name))
    time.sleep(after)  # the moment of the blow is what a case is about
    kill(demo, program)

    dave.wait_for(pk, "Running", 120)
    assert objects_named(demo, namespace, name) == {"services": 1, "pods": 1}
    assert dave.ledger(pk) == [("take", 1)]

    assert dave.call("DELETE", f"/api/v1/deployments/{pk}/")[0] == 202
    dave.wait_for(pk, "gone", 60)
    assert objects_named(demo, namespace, name) == {"services": 0, "pods": 0}
    # An admin looks: whoever may not see the team's ledger would see nothing, and prove nothing.
    assert Person.named(demo, "carol").ledger(pk) == [("take", 1), ("release", -1)]


@pytest.mark.stack
@pytest.mark.timeout(240)
def test_a_wish_made_while_redis_is_down_is_carried_out_by_the_sweep(demo: dict[str, Any]) -> None:
    dave = Person.named(demo, "dave")
    pid = running(demo, "redis")["pid"]
    os.kill(pid, signal.SIGSTOP)  # it hangs: worse than being gone
    try:
        begun = time.monotonic()
        pk = dave.ask(wish(TEAM, "without-redis"))
        took = time.monotonic() - begun
    finally:
        os.kill(pid, signal.SIGCONT)

    assert took < 5, f"the request hung for {took:.1f} s"
    dave.wait_for(pk, "Running", 120)
    assert dave.call("DELETE", f"/api/v1/deployments/{pk}/")[0] == 202
    dave.wait_for(pk, "gone", 60)
