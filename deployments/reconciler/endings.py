"""How a pass ends: what the row says about it, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from deployments.kube.errors import ClusterError, ErrorClass
from deployments.reconciler.plan import Block, Wait
from deployments.services.convergence import POISON, RESYNC, SLOW_RETRY, Outcome, backoff, spread

APPLIED, RETRYING, BLOCKED, GONE, NONE = "applied", "retrying", "blocked", "gone", "none"
PASSING_TRIES = 6
SOONEST, LATEST = timedelta(seconds=2), timedelta(seconds=60)
# After the API server comes back nobody waits longer than this for the worker to notice.
UNREACHABLE_MOST = timedelta(seconds=20)
# What a person has to put right, but also what an API server says for a moment while it starts or learns of a new role.
PASSING = frozenset({"permission", "unauthorized", "kind_missing"})
UNREACHABLE = frozenset(
    {"unreachable", "timeout", "starting", "server_error", "too_many_requests", "webhook_unreachable"}
)

_TITLES = {
    "unreachable": "The cluster cannot be reached.",
    "timeout": "The cluster does not answer in time.",
    "starting": "The cluster is starting.",
    "too_many_requests": "The cluster is overloaded.",
    "server_error": "The cluster had an internal error.",
    "bad_answer": "The cluster's answer could not be read.",
    "webhook_unreachable": "A webhook of the cluster does not answer.",
    "unauthorized": "The cluster does not accept Slipway's token.",
    "permission": "Slipway's account may not do this on the cluster.",
    "quota_exceeded": "The namespace's quota does not allow it.",
    "pod_security": "The namespace's pod security does not allow it.",
    "namespace_terminating": "The team's namespace is being deleted.",
    "namespace_missing": "The team's namespace is missing.",
    "kind_missing": "The cluster does not know a kind that is needed: KServe, Gateway API or the monitoring CRDs.",
    "invalid": "The cluster refused the objects as invalid.",
    "denied": "An admission rule of the cluster refused the objects.",
}
_REMEDIES = {
    "unauthorized": "An admin must give the worker a new token.",
    "permission": "An admin must install Slipway's roles (k8s/portal).",
    "quota_exceeded": "Free GPUs, or ask an admin for more quota.",
    "kind_missing": "An admin must install what is missing; Slipway then goes on by itself.",
    "namespace_terminating": "Slipway goes on when it is gone.",
    "invalid": "Change the field that the message names, or tell an admin.",
    "denied": "Change what the message names, or tell an admin.",
}


@dataclass(frozen=True)
class Ending:
    """What a pass leaves on its row."""

    outcome: Outcome
    again: timedelta | None
    failures: int = 0
    columns: dict[str, Any] = field(default_factory=dict)


def converged(revision: int | None) -> Ending:
    """Everything is as wanted; the next look is a precaution."""
    return Ending(Outcome(APPLIED if revision else NONE, revision=revision), spread(RESYNC))


def waiting(step: Wait, *, revision: int | None, before: dict[str, Any], now: datetime) -> Ending:
    """Something on the cluster has to end first: look again soon, less often the longer it takes."""
    since = _since(before, now)
    pause = min(max((now - since) / 4, SOONEST), LATEST)
    outcome = Outcome(APPLIED if revision else NONE, "waiting", step.why, revision=revision, since=since.isoformat())
    return Ending(outcome, spread(pause))


def blocked(step: Block, *, revision: int | None) -> Ending:
    """Only a person can go on; look again slowly, in case one did."""
    return Ending(Outcome(BLOCKED, step.code, step.message, step.remedy, revision=revision), spread(SLOW_RETRY))


def failed(error: ClusterError, *, failures: int, revision: int | None) -> Ending:
    """A cluster call failed: retried with backoff, or left to a person."""
    title = _TITLES.get(error.code, "")
    message = f"{title} {error.message}".strip()
    outcome = Outcome(RETRYING, error.code, message, _REMEDIES.get(error.code, ""), error.field, revision)
    if error.kind is ErrorClass.WAIT:
        soon = error.code in PASSING and failures < PASSING_TRIES
        return Ending(_as_blocked(outcome), backoff(failures) if soon else spread(SLOW_RETRY), failures + 1)
    if error.kind is ErrorClass.BUG:
        return Ending(_as_blocked(outcome), spread(RESYNC), failures + 1)
    pause = backoff(failures, most=UNREACHABLE_MOST) if error.code in UNREACHABLE else backoff(failures)
    if error.retry_after is not None:
        pause = max(pause, timedelta(seconds=min(error.retry_after, 300)))
    return Ending(outcome, pause, failures + 1)


def namespace_goes() -> Outcome:
    """Somebody deleted the team's namespace: it is made again when it is gone."""
    code = "namespace_terminating"
    return Outcome(RETRYING, code, _TITLES[code], _REMEDIES[code])


def broken(error: Exception, *, failures: int, revision: int | None) -> Ending:
    """Our own mistake: this row alone is set aside, after some tries nearly for good."""
    message = f"Slipway could not work on this: an internal error ({type(error).__name__})."
    outcome = Outcome(BLOCKED, "bug", message, "Tell an admin; the worker's log has the details.", revision=revision)
    pause = backoff(failures) if failures < POISON else spread(RESYNC)
    return Ending(outcome, pause, failures + 1)


def _as_blocked(outcome: Outcome) -> Outcome:
    return Outcome(BLOCKED, outcome.code, outcome.message, outcome.remedy, outcome.field, outcome.revision)


def _since(before: dict[str, Any], now: datetime) -> datetime:
    if before.get("code") == "waiting" and before.get("since"):
        return min(now, datetime.fromisoformat(before["since"]))
    return now
