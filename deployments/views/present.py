"""Turns one deployment's rows into what its page says: replicas, endpoint, conditions, differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils.dateparse import parse_datetime

from deployments.kube.observe import FETCH, ConditionView, Observed, PodView
from deployments.models import Deployment, Status

BAD_WHEN_TRUE = frozenset({"Stopped", "ReplicaFailure"})


@dataclass(frozen=True)
class Replica:
    """One pod as a row."""

    name: str
    revision: int | None
    node: str
    word: str
    tone: str
    shape: str
    since: datetime | None
    restarts: int
    gpus: int
    containers: list[str]
    role: str = ""
    # Per container: how often it began again, and whether it has ended for good.
    restarted: dict[str, int] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Endpoint:
    """Where the deployment answers, and what came of Slipway's own last question (None and "" before the first)."""

    url: str
    model: str
    ok: bool
    at: datetime | None
    seconds: float | None
    answer: str
    detail: str


def known_at(row: Deployment) -> datetime | None:
    """When what is shown was last known to be so: a row is written only on a change, the watcher's beat confirms it."""
    status: Status | None = getattr(row, "status", None)
    if status is None:
        return None
    seen = row.cluster.seen_at
    return max(status.observed_at, seen) if seen and not row.cluster.trouble else status.observed_at


def replicas(observed: Observed | None) -> list[Replica]:
    """The pods, each in a word."""
    return [_replica(pod) for pod in observed.pods] if observed else []


def _replica(pod: PodView) -> Replica:
    word, tone, shape = _pod_word(pod)
    return Replica(
        name=pod.name,
        revision=pod.revision,
        node=pod.node,
        word=word,
        tone=tone,
        shape=shape,
        since=pod.created,
        restarts=sum(container.restarts for container in pod.containers),
        gpus=pod.gpus,
        containers=[container.name for container in pod.containers],
        role=pod.role,
        restarted={container.name: container.restarts for container in pod.containers},
        ended=frozenset(container.name for container in pod.containers if container.state == "terminated"),
    )


def _pod_word(pod: PodView) -> tuple[str, str, str]:
    engine, weights = pod.engine, pod.initializer
    if pod.terminating:
        return "Ending", "grey", "square"
    if pod.role == FETCH and pod.phase in {"Running", "Succeeded"}:
        return ("Downloading", "azure", "turning") if pod.phase == "Running" else ("Fetched", "green", "dot")
    if pod.phase == "Failed":
        return pod.reason or "Failed", "red", "cross"
    if pod.ready:
        return "Serving" if pod.is_engine else "Ready", "green", "dot"
    if pod.unschedulable:
        return "No place", "red", "octagon"
    for container in (weights, engine):
        if (
            container
            and container.state == "waiting"
            and container.reason.endswith(("BackOff", "Error", "ErrImagePull"))
        ):
            words = {"CrashLoopBackOff": "Crash loop", "ImagePullBackOff": "No image"}
            return words.get(container.reason, container.reason), "red", "cross"
    if weights and weights.state == "running":
        return "Downloading", "azure", "turning"
    if engine and engine.state == "running":
        return "Starting", "azure", "turning"
    if engine and engine.state == "terminated":
        return "Ended with an error" if engine.exit_code else "Ended", "red", "cross"
    return "Getting ready", "azure", "turning"


def endpoint(row: Deployment) -> Endpoint:
    """The public address, and what the last question of Slipway itself came back with."""
    probe = row.probe or {}
    latency, at = probe.get("latency_ms"), probe.get("at")
    return Endpoint(
        url=f"{settings.GATEWAY_PUBLIC_URL.rstrip('/')}/{row.team.namespace}/{row.name}/v1",
        model=row.name,
        ok=bool(probe.get("ok")),
        at=parse_datetime(at) if isinstance(at, str) else None,
        seconds=latency / 1000 if isinstance(latency, int | float) else None,
        answer=str(probe.get("answer", "")),
        detail=str(probe.get("detail", "")),
    )


def tone_of(condition: ConditionView, *, wanted_running: bool) -> str:
    """What a condition of KServe means for people: "Stopped: False" is good news, and "Ready: False" of a stop none."""
    if condition.status not in {"True", "False"} or not wanted_running:
        return "grey"
    good = condition.status == ("False" if condition.type in BAD_WHEN_TRUE else "True")
    if good:
        return "green" if condition.type not in BAD_WHEN_TRUE else "grey"
    return "red"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """What two specs differ in, as (path, old, new); None where one lacks it."""
    before, after = _flat(old), _flat(new)
    keys = sorted(before.keys() | after.keys())
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
