"""What `kubectl get pods` says of a pod: as printPod of Kubernetes does; most cases are its own (printers_test.go)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.lite import cells

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUNNING, WAITING = {"running": {}}, {"waiting": {}}
COMPLETED = {"terminated": {"reason": "Completed", "exitCode": 0}}
KILLED = {"terminated": {"reason": "Error", "exitCode": 137}}


def ago(seconds: int) -> dict[str, Any]:
    return {"terminated": {"finishedAt": (NOW - timedelta(seconds=seconds)).isoformat()}}


def age(stamp: str | None) -> str:
    """How long before the moment of these cases."""
    return f"{(NOW - datetime.fromisoformat(str(stamp))).seconds}s"


def container(state: dict[str, Any] | None = None, restarts: int = 0, name: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state or {}, "ready": False, "restartCount": restarts, **more}


def ready(restarts: int = 0, **more: Any) -> dict[str, Any]:
    return container(RUNNING, restarts, ready=True, **more)


def sidecar(number: int, state: dict[str, Any], *, started: bool, restarts: int = 0, **more: Any) -> dict[str, Any]:
    return container(state, restarts, f"side-{number}", started=started, **more)


def pod(
    phase: str,
    own: list[Any],
    inits: Sequence[Any] = (),
    sidecars: int = 0,
    initialized: bool | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A pod with these container statuses; the last of its init containers are sidecars."""
    plain = [{"name": each["name"]} for each in inits if not each["name"].startswith("side-")]
    beside = [{"name": f"side-{number}", "restartPolicy": "Always"} for number in range(1, sidecars + 1)]
    conditions = status.pop("conditions", [])
    if initialized is not None:
        conditions = [*conditions, {"type": "Initialized", "status": str(initialized)}]
    return {
        "metadata": status.pop("metadata", {}),
        "spec": {"initContainers": [*plain, *beside], "containers": [{} for _ in own]},
        "status": {
            "phase": phase,
            "initContainerStatuses": list(inits),
            "containerStatuses": own,
            "conditions": conditions,
            **status,
        },
    }


READY = [{"type": "Ready", "status": "True"}]
GATED = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
HELD = {"waiting": {"reason": "Held"}}
CASES = [
    (pod("podPhase", [ready(3), container(restarts=3)]), "1/2", "podPhase", "6"),
    (pod("podPhase", [ready(3), container(HELD, 3)]), "1/2", "Held", "6"),
    (pod("podPhase", [container(HELD, 3), container({"terminated": {"reason": "Ended"}}, 3)]), "0/2", "Held", "6"),
    # To be ready is not enough: it must run.
    (pod("podPhase", [ready(3), container(restarts=3, ready=True)]), "1/2", "podPhase", "6"),
    (pod("podPhase", [ready(3), container(restarts=3, ready=True)], reason="podReason"), "1/2", "podReason", "6"),
    (pod("Running", [container(COMPLETED, 3, ready=True), ready(3)]), "1/2", "NotReady", "6"),
    (pod("Running", [container(COMPLETED, 3, ready=True), ready(3)], conditions=READY), "1/2", "Running", "6"),
    (pod("Failed", [container(COMPLETED), container(KILLED)]), "0/2", "Error", "0"),
    # An init container that runs again, with when it ended last.
    (
        pod("podPhase", [container(WAITING)], [container(RUNNING, 3, "init", lastState=ago(10))]),
        "0/1", "Init:0/1", "3 (10s ago)",
    ),
    (pod("Pending", [container(WAITING)], [container(COMPLETED, 0, "one"), container(KILLED, 1, "two")]),
        "0/1", "Init:Error", "1"),
    # Past its init containers a pod counts the restarts of its containers alone.
    (pod("Running", [ready(4)], [container(COMPLETED, 3, "init")], initialized=True), "1/1", "Running", "4"),
    (pod("Running", [container()], reason="NodeLost", metadata=DELETED), "0/1", "Unknown", "0"),
    (pod("Running", [ready()], metadata=DELETED), "1/1", "Terminating", "0"),
    (pod("Succeeded", [container(COMPLETED)], metadata=DELETED), "0/1", "Completed", "0"),
    (
        pod("Pending", [container(WAITING)], conditions=GATED),
        "0/1", "SchedulingGated", "0",
    ),
]  # fmt: skip
SIDECARS = [
    # The first runs, and has not started.
    (
        pod("Pending", [container(WAITING)], [
            sidecar(1, RUNNING, started=False, restarts=3, lastState=ago(10)), sidecar(2, WAITING, started=False),
        ], 2, False),
        "0/3", "Init:0/2", "3 (10s ago)",
    ),
    # The first has started, the second runs and has not.
    (
        pod("Pending", [container(WAITING)], [
            sidecar(1, RUNNING, started=True, restarts=3, lastState=ago(10)), sidecar(2, RUNNING, started=False),
        ], 2, False),
        "0/3", "Init:1/2", "3 (10s ago)",
    ),
    # Both have started; they count as containers, with their restarts.
    (
        pod("Running", [ready(4, lastState=ago(20))], [
            sidecar(1, RUNNING, started=True, restarts=3, lastState=ago(10)), sidecar(2, RUNNING, started=True),
        ], 2, True),
        "1/3", "Running", "7 (10s ago)",
    ),
    (
        pod("Running", [ready()], [
            container(COMPLETED, 0, "init"), sidecar(1, RUNNING, started=True, ready=True),
        ], 1, True),
        "2/2", "Running", "0",
    ),
    # Ended with the pod.
    (
        pod("Succeeded", [container(COMPLETED, 4, lastState=ago(20))], [
            sidecar(1, KILLED, started=False, restarts=3, lastState=ago(10)), sidecar(2, KILLED, started=False),
        ], 2, True),
        "0/3", "Completed", "7 (10s ago)",
    ),
    # One that fails again and again beside a container that runs.
    (
        pod("Running", [ready()], [
            sidecar(1, {"waiting": {"reason": "CrashLoopBackOff"}}, started=False, restarts=2),
        ], 1, True),
        "1/2", "Init:CrashLoopBackOff", "2",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "containers", "word", "restarts"), [*CASES, *SIDECARS])
def test_a_pod_is_told_as_kubernetes_tells_it(seen: dict[str, Any], containers: str, word: str, restarts: str) -> None:
    assert (cells.pod_ready(seen), cells.pod_status(seen), cells.pod_restarts(seen, age)) == (
        containers,
        word,
        restarts,
    )
