"""Turns one deployment's rows into what its page says: reason, steps, replicas, endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from deployments.forms.request import shown, text_of
from deployments.kube.observe import Observed, PodView
from deployments.models import Approval, Deployment, Revision, Wanted

State = Deployment.State


@dataclass(frozen=True)
class Step:
    """One step of the newest revision on its way to answering; `mark` is done, now, wait, bad or later."""

    label: str
    mark: str
    note: str = ""
    at: datetime | None = None


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


@dataclass(frozen=True)
class Endpoint:
    """Where the deployment answers."""

    url: str
    model: str
    ok: bool
    at: datetime | None
    seconds: float | None
    detail: str


def steps(row: Deployment, observed: Observed | None, approval: Approval | None) -> list[Step]:
    """Requested → Approved → Applied → Scheduled → Image → Weights → Engine → Ready → Answering, newest revision."""
    revision = row.latest
    if revision is None:
        return []
    marks: list[Step] = [Step("Requested", "done", at=revision.created_at), _approved(row, revision, approval)]
    applied = _applied(row, revision)
    marks.append(applied)
    pod = _newest_pod(observed, revision.number) if applied.mark == "done" else None
    marks += _pod_steps(pod)
    answering = bool(row.probe.get("ok")) and row.state in {State.RUNNING, State.DEGRADED} and marks[-1].mark == "done"
    marks.append(Step("Answering", "done" if answering else "later", at=row.probed_at if answering else None))
    return _marked(row, marks)


def _approved(row: Deployment, revision: Revision, approval: Approval | None) -> Step:
    if revision.verdict == Revision.Verdict.APPROVED:
        if row.approved_id != revision.pk:
            return Step("Approved", "wait", note="waits for quota")
        by_policy = approval is not None and approval.kind == Approval.Kind.POLICY
        return Step(
            "Approved", "done", note="policy" if by_policy else "", at=approval.created_at if approval else None
        )
    if revision.verdict == Revision.Verdict.PENDING:
        return Step("Approved", "wait", note="waits")
    return Step("Approved", "bad", note=revision.get_verdict_display().lower())


def _applied(row: Deployment, revision: Revision) -> Step:
    if row.applied_id == revision.pk and row.wanted == Wanted.RUNNING:
        return Step("Applied", "done")
    return Step("Applied", "later")


def _pod_steps(pod: PodView | None) -> list[Step]:
    labels = ("Scheduled", "Image", "Weights", "Engine", "Ready")
    if pod is None:
        return [Step(label, "later") for label in labels]
    weights, engine = pod.initializer, pod.engine
    loaded = weights is None or (weights.state == "terminated" and weights.exit_code == 0)
    fetching = weights is not None and weights.state == "running"
    image = loaded or fetching or bool(weights and weights.restarts)
    running = engine is not None and engine.state == "running"
    done = [
        bool(pod.scheduled) or bool(pod.node),
        image and (bool(pod.node)),
        loaded and bool(pod.node),
        running and bool(engine and (engine.started or engine.ready)),
        pod.ready,
    ]
    times = [
        None,
        None,
        weights.since if weights and loaded else None,
        engine.since if running and engine else None,
        pod.ready_since,
    ]
    return [
        Step(label, "done" if ok else "later", at=at if ok else None)
        for label, ok, at in zip(labels, done, times, strict=True)
    ]


def _marked(row: Deployment, found: list[Step]) -> list[Step]:
    """The first step that is not done gets what the state says: under way, stuck, or waiting for somebody."""
    if row.wanted != Wanted.RUNNING:
        return found
    result: list[Step] = []
    open_step = False
    for step in found:
        if not open_step and step.mark != "done":
            open_step = True
            failing = row.state in {State.FAILED, State.BLOCKED} or bool(row.detail.get("failing_revision"))
            mark = step.mark if step.mark in {"wait", "bad"} else ("bad" if failing else "now")
            step = Step(step.label, mark, step.note or ("fails" if mark == "bad" else ""), step.at)
        elif open_step:
            step = Step(step.label, "later")
        result.append(step)
    return result


def _newest_pod(observed: Observed | None, number: int) -> PodView | None:
    """The pod of this revision that has come furthest."""
    if observed is None:
        return None
    pods = [pod for pod in observed.live_pods if pod.revision in (None, number)]
    return max(
        pods, key=lambda pod: (pod.ready, bool(pod.node), pod.created.timestamp() if pod.created else 0), default=None
    )


def replicas(observed: Observed | None) -> list[Replica]:
    """The pods, each in a word."""
    return [_replica(pod) for pod in observed.pods] if observed else []


def _replica(pod: PodView) -> Replica:
    word, tone, shape = _pod_word(pod)
    since = pod.ready_since if pod.ready else (pod.engine.since if pod.engine and pod.engine.since else pod.created)
    return Replica(
        name=pod.name,
        revision=pod.revision,
        node=pod.node,
        word=word,
        tone=tone,
        shape=shape,
        since=since or pod.created,
        restarts=sum(container.restarts for container in pod.containers),
        gpus=pod.gpus,
        containers=[container.name for container in pod.containers],
    )


def _pod_word(pod: PodView) -> tuple[str, str, str]:
    engine, weights = pod.engine, pod.initializer
    if pod.terminating:
        return "Ending", "grey", "square"
    if pod.phase == "Failed":
        return pod.reason or "Failed", "red", "cross"
    if pod.ready:
        return "Serving", "green", "dot"
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
    seconds = probe.get("seconds")
    return Endpoint(
        url=f"{settings.GATEWAY_PUBLIC_URL.rstrip('/')}/{row.team.namespace}/{row.name}/v1",
        model=row.name,
        ok=bool(probe.get("ok")),
        at=row.probed_at,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        detail=str(probe.get("detail", "")),
    )


def fix_of(row: Deployment) -> dict[str, Any] | None:
    """The one-click fix of the reason: which field to set to what."""
    reason = row.reason or {}
    field, value = reason.get("field"), reason.get("value")
    if not field or value is None:
        return None
    return {"field": field, "label": str(field).replace("_", "-"), "value": text_of(value), "shown": shown(value)}


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
