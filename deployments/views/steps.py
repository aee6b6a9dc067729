"""How far the newest revision of a deployment has come, step by step, and how long each step took."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.utils.dateparse import parse_datetime

from deployments.kube.moments import Moments, moments_of
from deployments.kube.observe import Observed, PodView
from deployments.manifests import SERVICES
from deployments.models import AppliedObject, Approval, Deployment, Revision, Wanted
from deployments.reconciler.plan import FETCHED, JOB

State = Deployment.State


MARKS = {
    "done": ("done", "check"),
    "now": ("under way", "loader-2"),
    "wait": ("waits", "hourglass"),
    "bad": ("failed", "x"),
    "later": ("not yet", ""),
}


@dataclass(frozen=True)
class Step:
    """One step; `mark` is done, now, wait, bad or later. `took` is the time since the step before it that is known."""

    label: str
    mark: str
    note: str = ""
    at: datetime | None = None
    took: timedelta | None = None

    @property
    def word(self) -> str:
        """The mark, for those who do not see it."""
        return MARKS[self.mark][0]

    @property
    def icon(self) -> str:
        """What stands in the circle."""
        return MARKS[self.mark][1]

    @property
    def current(self) -> bool:
        """True for the step that everything else waits for."""
        return self.mark in {"now", "bad", "wait"}


def steps(row: Deployment, observed: Observed | None, approval: Approval | None) -> list[Step]:
    """Requested → Approved → Applied → Scheduled → Image → Weights → Engine → Ready → Answering. One query.

    Weights that are fetched ahead are a step of their own before Applied.
    """
    revision = row.latest
    if revision is None:
        return []
    found = [Step("Requested", "done", at=revision.created_at), _approved(row, revision, approval)]
    ours = _inventory(row) if revision.verdict == Revision.Verdict.APPROVED else []
    if revision.spec.get("source", {}).get("cache"):
        found.append(_fetched(row, ours))
    found.append(_applied(row, revision, ours))
    pod = _newest_pod(observed, revision.number) if found[-1].mark == "done" else None
    known = observed.moments.get(str(revision.number), {}) if observed else {}
    found += _pod_steps(pod, known)
    serving = row.state in {State.RUNNING, State.DEGRADED} and found[-1].mark == "done"
    answering = serving and bool(row.probe.get("ok"))
    at = answered_at(row, revision.number) if answering else None
    found.append(Step("Answering", "done" if answering else "later", at=at))
    return _timed(_marked(row, found))


def _approved(row: Deployment, revision: Revision, approval: Approval | None) -> Step:
    if revision.verdict == Revision.Verdict.APPROVED:
        by_policy = approval is not None and approval.kind == Approval.Kind.POLICY
        at = approval.created_at if approval else None
        return Step("Approved", "done", note="by policy" if by_policy else "", at=at)
    if revision.verdict == Revision.Verdict.PENDING:
        return Step("Approved", "wait", note="waits")
    return Step("Approved", "bad", note=revision.get_verdict_display().lower())


def _inventory(row: Deployment) -> list[AppliedObject]:
    """The service of a deployment, and the Jobs that fetched its weights."""
    return list(AppliedObject.objects.filter(deployment=row, kind__in=(*SERVICES, JOB)))


def _fetched(row: Deployment, ours: list[AppliedObject]) -> Step:
    """Whether the weights are in their claim. A Job of other weights is removed first of all."""
    jobs = [each for each in ours if each.kind == JOB]
    if jobs and all(each.managed == FETCHED for each in jobs):
        return Step("Fetched", "done", at=max(each.applied_at for each in jobs))
    percent = (row.reason.get("numbers") or {}).get("percent")
    return Step("Fetched", "later", note=f"{percent} %" if isinstance(percent, int) else "")


def _applied(row: Deployment, revision: Revision, ours: list[AppliedObject]) -> Step:
    if revision.verdict == Revision.Verdict.APPROVED and row.approved_id != revision.pk:
        return Step("Applied", "wait", note="waits for quota")
    if row.applied_id != revision.pk or row.wanted != Wanted.RUNNING:
        return Step("Applied", "later")
    made = (each.applied_at for each in ours if each.kind in SERVICES and each.revision_id == revision.pk)
    return Step("Applied", "done", at=next(made, None))


def answered_at(row: Deployment, number: int) -> datetime | None:
    """When the endpoint first answered while a pod of that revision was ready."""
    first = row.probe.get("answered") or {}
    return parse_datetime(str(first.get("at", ""))) if first.get("revision") == number else None


def _pod_steps(pod: PodView | None, known: Moments) -> list[Step]:
    """The steps of a revision's pod; `known` are the first times, which later ones of the same pod do not change."""
    labels = ("Scheduled", "Image", "Weights", "Engine", "Ready")
    if pod is None:
        return [Step(label, "later") for label in labels]
    placed = bool(pod.scheduled) or bool(pod.node)
    weights, engine = pod.initializer, pod.engine
    loaded = placed and (weights is None or (weights.state == "terminated" and weights.exit_code == 0))
    pulled = loaded or (weights is not None and (weights.state == "running" or weights.restarts > 0))
    running = engine is not None and engine.state == "running"
    started = running and engine is not None and (engine.started or engine.ready)
    first = {**moments_of(pod, known), **known}
    # A step ends where the next begins; an engine that is loaded says so by being ready.
    times = (
        first.get("created"),
        first.get("download", first.get("engine")),
        first.get("engine"),
        first.get("ready"),
        first.get("ready"),
    )
    done = (placed, pulled, loaded, started, pod.ready)
    return [
        Step(label, "done" if is_done else "later", at=at if is_done else None)
        for label, is_done, at in zip(labels, done, times, strict=True)
    ]


def _marked(row: Deployment, found: list[Step]) -> list[Step]:
    """The first step that is not done gets what the state says: under way, stuck, or waiting for somebody."""
    if row.wanted != Wanted.RUNNING:
        return found
    at = next((index for index, step in enumerate(found) if step.mark != "done"), None)
    if at is None:
        return found
    step = found[at]
    failing = row.state in {State.FAILED, State.BLOCKED} or bool(row.detail.get("failing_revision"))
    mark = step.mark if step.mark in {"wait", "bad"} else ("bad" if failing else "now")
    note = step.note or ("fails" if mark == "bad" else "")
    return [
        *found[:at],
        replace(step, mark=mark, note=note),
        *(Step(later.label, "later") for later in found[at + 1 :]),
    ]


def _timed(found: list[Step]) -> list[Step]:
    """Each step with the time since the last one whose moment is known; clocks of nodes may differ a little."""
    timed: list[Step] = []
    last: datetime | None = None
    for step in found:
        took = step.at - last if step.at and last else None
        timed.append(replace(step, took=max(took, timedelta())) if took is not None else step)
        last = step.at or last
    return timed


def _newest_pod(observed: Observed | None, number: int) -> PodView | None:
    """The pod of this revision that has come furthest."""
    if observed is None:
        return None
    pods = [pod for pod in observed.live_pods if pod.revision in (None, number)]
    return max(pods, key=_progress, default=None)


def _progress(pod: PodView) -> tuple[bool, bool, float]:
    return pod.ready, bool(pod.node), pod.created.timestamp() if pod.created else 0.0
