"""The state of a deployment as a function of what is wanted, what was done, what is seen and the last probe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from deployments.kube.diagnose import diagnose
from deployments.kube.observe import FETCH, PREFILL, Observed, PodView
from deployments.kube.reasons import Code, Reason, Weight

# One lost probe is no outage, and an old one says nothing about now.
PROBE_FAILURES = 2
PROBE_AGE = timedelta(minutes=3)
# What KServe's Deployments of an LLMInferenceService are called after it; that of prefill has its role behind it.
LLM_WORKLOAD = "-kserve"
# Fewer replicas than wanted are no trouble while a revision comes up; past this they are.
ROLLOUT = timedelta(minutes=5)


class StateName(StrEnum):
    """The states of DESIGN §5; the values are what rows store."""

    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    AWAITING_QUOTA = "awaiting_quota"
    QUEUED = "queued"
    APPLYING = "applying"
    DOWNLOADING = "downloading"
    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    STALLED = "stalled"
    ASLEEP = "asleep"
    BLOCKED = "blocked"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    DELETED = "deleted"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Want(StrEnum):
    """What people and policy want of a deployment; services write it."""

    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    AWAITING_QUOTA = "awaiting_quota"
    QUEUED = "queued"
    RUN = "run"
    STOP = "stop"
    DELETE = "delete"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Wanted:
    """What services recorded: the wish, and the newest approved revision with its fewest replicas, by role if any."""

    want: Want
    revision: int | None = None
    replicas: int = 1
    roles: tuple[tuple[str, int], ...] = ()


class OutcomeKind(StrEnum):
    """How the reconciler's last pass over a deployment ended."""

    NONE = "none"
    APPLIED = "applied"
    RETRYING = "retrying"
    BLOCKED = "blocked"
    GONE = "gone"


@dataclass(frozen=True)
class Outcome:
    """What the reconciler did last: the revision it applied, or why it could not (words for people)."""

    kind: OutcomeKind = OutcomeKind.NONE
    revision: int | None = None
    title: str = ""
    remedy: str = ""
    code: str = ""


@dataclass(frozen=True)
class Probe:
    """The last request Slipway itself sent through the gateway."""

    ok: bool
    at: datetime
    detail: str = ""
    failures: int = 0


@dataclass(frozen=True)
class State:
    """One state with its cause. `failing_revision` is set while an old revision serves and a new one fails."""

    state: StateName
    reason: Reason | None = None
    detail: str = ""
    serving_revision: int | None = None
    failing_revision: int | None = None
    ready_replicas: int = 0


_SIMPLE: dict[Want, StateName] = {
    Want.DRAFT: StateName.DRAFT,
    Want.AWAITING_APPROVAL: StateName.AWAITING_APPROVAL,
    Want.AWAITING_QUOTA: StateName.AWAITING_QUOTA,
    Want.QUEUED: StateName.QUEUED,
    Want.REJECTED: StateName.REJECTED,
    Want.EXPIRED: StateName.EXPIRED,
}
_BY_WEIGHT: dict[Weight, StateName] = {
    Weight.FAILED: StateName.FAILED,
    Weight.BLOCKED: StateName.BLOCKED,
    Weight.STALLED: StateName.STALLED,
}
_PROGRESS: dict[Code, StateName] = {
    Code.DOWNLOADING: StateName.DOWNLOADING,
    Code.STARTING: StateName.STARTING,
    Code.PULLING: StateName.STARTING,
}


def state_of(wanted: Wanted, outcome: Outcome, observed: Observed | None, probe: Probe | None, now: datetime) -> State:
    """The one state of a deployment.

    `observed` is None while the cluster was never seen. Neither KServe's Ready nor its model status is asked:
    a deployment runs when enough of its own pods are ready and the last probe, if there is one, was answered.
    """
    seen = observed or Observed(complete=False)
    if wanted.want is Want.DELETE:
        gone = outcome.kind is OutcomeKind.GONE
        return State(StateName.DELETED if gone else StateName.DELETING, detail=_leaving(seen))
    if wanted.want is Want.STOP:
        still = any(pod.holds_gpus for pod in seen.pods) or not seen.complete
        applied = outcome.kind is OutcomeKind.APPLIED or seen.service is None or seen.service.stopped
        if still or not applied:
            return State(StateName.STOPPING, _blocked(outcome), _leaving(seen))
        return State(StateName.STOPPED)
    if wanted.want in _SIMPLE:
        return State(_SIMPLE[wanted.want])
    return _running(wanted, outcome, seen, probe, now)


def _running(wanted: Wanted, outcome: Outcome, seen: Observed, probe: Probe | None, now: datetime) -> State:
    ready = [pod for pod in seen.live_pods if pod.ready]
    if all(pod.role == PREFILL for pod in ready):
        ready = []  # without a pod that decodes nothing is served
    mine = [pod for pod in ready if _is_of(pod, wanted.revision)]
    serving = _oldest_serving(ready)
    reasons = diagnose(seen, wanted.revision)
    blocked = _blocked(outcome)
    trouble = next((reason for reason in reasons if reason.weight is not Weight.PROGRESS), None)
    if blocked is not None and blocked.code is Code.DOWNLOAD_FAILED:
        # No pod of the service is made before its weights are there; why they are not, those say that tried.
        trouble, blocked = trouble or replace(blocked, weight=Weight.FAILED), None
    trouble = blocked or trouble
    fetching = any(pod.role == FETCH and pod.phase != "Succeeded" for pod in seen.pods)
    if _enough(mine, wanted) and blocked is None:
        if probe is not None and _counts(probe, now):
            return State(StateName.DEGRADED, _unanswered(probe), "", serving, None, len(mine))
        return State(StateName.RUNNING, None, "", serving, None, len(mine))
    if _enough(ready, wanted) and trouble is None:
        coming = f"Revision {wanted.revision} is coming up while revision {serving} serves."
        return State(StateName.RUNNING, _first(reasons), coming, serving, None, len(ready))
    if ready and trouble is None and _comes_up(wanted, outcome, seen, now):
        coming = f"Revision {wanted.revision} is coming up"
        coming += (
            f" while revision {serving} serves." if not mine else f": {len(mine)} of {wanted.replicas} replicas serve."
        )
        return State(StateName.RUNNING, _first(reasons), coming, serving, None, len(ready))
    if ready:
        failing = wanted.revision if trouble and len(mine) < len(ready) else None
        missing = f"{len(mine)} of {wanted.replicas} replicas of the newest revision serve."
        cause = trouble or _unscaled(wanted, seen) or _first(reasons)
        return State(StateName.DEGRADED, cause, missing, serving, failing, len(ready))
    if blocked is not None:
        return State(StateName.BLOCKED, blocked)
    if outcome.kind is OutcomeKind.RETRYING:
        return State(StateName.APPLYING, _retrying(outcome), outcome.title)
    if outcome.code == Code.DOWNLOAD_FAILED and trouble is not None:
        return State(_BY_WEIGHT[trouble.weight], trouble)
    if fetching and outcome.revision != wanted.revision:
        return _fetching(trouble, reasons, seen)
    if outcome.kind is not OutcomeKind.APPLIED or outcome.revision != wanted.revision:
        return State(StateName.APPLYING)
    if trouble is not None:
        return State(_BY_WEIGHT[trouble.weight], trouble)
    return _on_its_way(reasons, seen)


def _fetching(trouble: Reason | None, reasons: list[Reason], seen: Observed) -> State:
    """The state while weights are fetched ahead of the pods that serve."""
    if trouble is not None:
        return State(_BY_WEIGHT[trouble.weight], trouble)
    return _on_its_way(reasons, seen)


def _enough(pods: list[PodView], wanted: Wanted) -> bool:
    """True when no role lacks a replica; pods of a strategy without roles count for any."""
    if not wanted.roles or not any(pod.role for pod in pods):
        return len(pods) >= wanted.replicas
    return all(sum(pod.role == role for pod in pods) >= least for role, least in wanted.roles)


def _unscaled(wanted: Wanted, seen: Observed) -> Reason | None:
    """Of a role fewer replicas are asked for than its fewest: what should have asked for more does not work."""
    asked = {
        work.name.rpartition(LLM_WORKLOAD)[2]: work.desired for work in seen.workloads if work.kind == "Deployment"
    }
    for role, least in wanted.roles:
        count = asked.get(f"-{PREFILL}" if role == PREFILL else "", least)
        if count < least:
            return Reason(
                Code.NO_REPLICAS_YET,
                Weight.STALLED,
                f"Of {role} {count:,} of at least {least:,} replicas are asked for.",
                "The autoscaler of this role does not raise them: an admin can look at its events on the cluster.",
                field=f"{role}_replicas_min",
                numbers={"asked": count, "fewest": least},
            )
    return None


def _on_its_way(reasons: list[Reason], seen: Observed) -> State:
    first = _first(reasons)
    if first is None:
        return State(StateName.APPLYING, detail="" if seen.pods else "The cluster has made no pods yet.")
    return State(_PROGRESS.get(first.code, StateName.STARTING), first, first.title)


def _comes_up(wanted: Wanted, outcome: Outcome, seen: Observed, now: datetime) -> bool:
    """True while the newest revision is on its way, which is not yet a replica that was lost."""
    if outcome.revision != wanted.revision:
        return True
    mine = [pod for pod in seen.live_pods if _is_of(pod, wanted.revision)]
    # From its first serving pod on, or from its first pod: later ones may come and go by themselves.
    served = [pod.ready_since for pod in mine if pod.ready and pod.ready_since is not None]
    made = [pod.created for pod in mine if pod.created is not None]
    began = min(served or made, default=None)
    return not mine or (began is not None and now - began <= ROLLOUT)


def _first(reasons: list[Reason]) -> Reason | None:
    return reasons[0] if reasons else None


def _counts(probe: Probe, now: datetime) -> bool:
    """True for a failure that is recent and not the only one."""
    return not probe.ok and probe.failures >= PROBE_FAILURES and now - probe.at <= PROBE_AGE


def _is_of(pod: PodView, revision: int | None) -> bool:
    return revision is None or pod.revision is None or pod.revision == revision


def _oldest_serving(ready: list[PodView]) -> int | None:
    revisions = [pod.revision for pod in ready if pod.revision is not None]
    return min(revisions) if revisions else None


def _blocked(outcome: Outcome) -> Reason | None:
    if outcome.kind is not OutcomeKind.BLOCKED:
        return None
    return Reason(
        _code(outcome.code),
        Weight.BLOCKED,
        outcome.title or "The cluster refuses this deployment.",
        outcome.remedy or "An admin has to look at it.",
    )


def _retrying(outcome: Outcome) -> Reason | None:
    if not outcome.title:
        return None
    return Reason(_code(outcome.code), Weight.PROGRESS, outcome.title, outcome.remedy or "It is tried again.")


def _code(text: str) -> Code:
    return Code(text) if text in set(Code) else Code.RECONCILE


def _unanswered(probe: Probe) -> Reason:
    return Reason(
        Code.PROBE_FAILED,
        Weight.STALLED,
        "The pods are ready, but the endpoint does not answer.",
        "Look at the last answer and at the log of the engine.",
        numbers={"failures": probe.failures},
        evidence=probe.detail[:600],
    )


def _leaving(seen: Observed) -> str:
    left = sum(1 for pod in seen.pods if pod.holds_gpus)
    if not left:
        return ""
    return f"{left} pod{'s' if left > 1 else ''} still hold{'' if left > 1 else 's'} GPUs."
