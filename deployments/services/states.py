"""Materialises the state of deployments: one pure function decides, here its inputs are read and its answer stored."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from django.db import transaction
from django.db.models import Expression
from django.utils import timezone

from deployments import state as rules
from deployments.kube.observe import Observed
from deployments.models import Deployment, DeploymentQuerySet, Event, Revision, Status, Wanted
from deployments.services import telling
from portal.lib.hints import PROBE, hint

logger = logging.getLogger(__name__)

PROBE_AGAIN = timedelta(seconds=5)
# What this module stores of a deployment, and nobody else does.
COMPUTED = "state", "state_since", "reason", "detail"
# What pages never need when a state is computed, and what weighs most in a row.
HEAVY = ("objects_json", "findings", "resolution")
# What is left out of `computable` rows: each column costs Django time, however little it weighs.
_UNUSED = {
    "": ("cluster", "created_by", "created_at", "updated_at", "lease_token", "lease_until", "failures"),
    "latest__": (*HEAVY, "note", "created_at"),
    "approved__": (*HEAVY, "note", "created_at", "author", "digest", "guarded", "verdict"),
    "applied__": (*HEAVY, "note", "created_at", "author", "digest", "guarded", "verdict", "spec"),
    "status__": ("observed_at", "listed_at", "live_pods"),
}

_LEVELS = {
    Deployment.State.RUNNING: Event.Level.GOOD,
    Deployment.State.FAILED: Event.Level.BAD,
    Deployment.State.BLOCKED: Event.Level.BAD,
    Deployment.State.DEGRADED: Event.Level.WARNING,
    Deployment.State.STALLED: Event.Level.WARNING,
    Deployment.State.REJECTED: Event.Level.WARNING,
    Deployment.State.EXPIRED: Event.Level.WARNING,
    Deployment.State.AWAITING_QUOTA: Event.Level.WARNING,
}


def refresh(pk: int) -> None:
    """Recompute one deployment's state; a change is stored, written to its timeline and announced."""
    refresh_many([pk])


def refresh_many(pks: Iterable[int]) -> int:
    """Recompute many states with a fixed number of queries; returns how many changed.

    The rows are locked first and read after, so the last refresh has seen everything committed before it.
    """
    wanted = sorted(set(pks))
    if not wanted:
        return 0
    # What goes wrong here goes wrong for the caller: where one is at work, a savepoint would serve nobody.
    with transaction.atomic(savepoint=False):
        list(Deployment.objects.select_for_update(no_key=True).filter(pk__in=wanted).order_by("pk").values_list("pk"))
        now = timezone.now()
        rows = list(computable(Deployment.objects.filter(pk__in=wanted)))
        news = {row.pk: lines for row in rows if (lines := _recompute(row, now)) is not None}
        changed = [row for row in rows if row.pk in news]
        if changed:
            _store(changed)
            lines = [line for each in news.values() for line in each]
            telling.tell(lines, [f"deployment:{row.pk}" for row in changed])
        for row in rows:
            if _wants_probe(row, now):
                hint(PROBE, row.pk)
    return len(changed)


def move(row: Deployment, **values: Any) -> None:
    """Write columns of a deployment and the state that follows from them, in one statement.

    For who holds the row's lock and has read it since, best by `computable`: what is on it is taken for what is stored.
    """
    for name, value in values.items():
        if not isinstance(value, Expression):
            setattr(row, name, value)
    now = timezone.now()
    news = _recompute(row, now)
    if news is not None:
        values |= {name: getattr(row, name) for name in COMPUTED}
    if values:
        # Not save(): the reconciler writes other columns of this row meanwhile.
        Deployment.objects.filter(pk=row.pk).update(**values)
    if news is not None:
        telling.tell(news, [f"deployment:{row.pk}"])
    if _wants_probe(row, now):
        hint(PROBE, row.pk)


def computable(rows: DeploymentQuerySet, *more: str) -> DeploymentQuerySet:
    """These rows with all that their state follows from, and `more` of what they refer to; the rest is left out."""
    joined = ("latest", "approved", "status", *more)
    unused = [path + name for path, names in _UNUSED.items() if path[:-2] in ("", *joined) for name in names]
    return rows.select_related(*joined).defer(*unused)


def _store(changed: Sequence[Deployment]) -> None:
    """Write the computed columns; a single row without the CASE that many need, which Django takes long to write."""
    if len(changed) > 1:
        Deployment.objects.bulk_update(changed, COMPUTED, batch_size=200)
        return
    [row] = changed
    Deployment.objects.filter(pk=row.pk).update(**{name: getattr(row, name) for name in COMPUTED})


def observed_of(row: Deployment) -> Observed | None:
    """What the watcher last saw of a deployment; None before it has looked."""
    try:
        return observed_in(row.status)
    except Status.DoesNotExist:
        return None


def observed_in(status: Status) -> Observed | None:
    """The observation of a status row; None while there is none."""
    if not status.observed:
        return None
    try:
        return read_observed(status.observed)
    except msgspec.ValidationError as error:
        # Written by another version of Slipway: as good as never seen, until the watcher writes it again.
        logger.warning("status of deployment %s: %s", status.deployment_id, error)
        return None


def read_observed(stored: Mapping[str, Any]) -> Observed:
    """An observation from its stored JSON."""
    return msgspec.convert(stored, Observed, strict=False)


def write_observed(observed: Observed) -> dict[str, Any]:
    """An observation as JSON to store; NUL, which PostgreSQL does not take, is left out of the cluster's texts."""
    plain: dict[str, Any] = msgspec.to_builtins(observed)
    if b"\\u0000" in msgspec.json.encode(plain):
        plain = _without_nul(plain)
    return plain


def wanted_of(row: Deployment) -> rules.Wanted:
    """What services recorded for a deployment, as the state function takes it."""
    approved, latest = row.approved, row.latest
    number = approved.number if approved else None
    replicas, roles = _least_replicas(approved)
    if row.wanted == Wanted.DELETED or row.deleted_at:
        return rules.Wanted(rules.Want.DELETE, number, replicas, roles)
    if row.wanted == Wanted.STOPPED:
        return rules.Wanted(rules.Want.STOP, number, replicas, roles)
    if approved is not None:
        return rules.Wanted(rules.Want.RUN, number, replicas, roles)
    return rules.Wanted(_undecided(latest), number, replicas, roles)


def outcome_of(row: Deployment) -> rules.Outcome:
    """The reconciler's last word on a deployment."""
    stored = row.outcome or {}
    if row.deleted_at:
        return rules.Outcome(rules.OutcomeKind.GONE)
    return rules.Outcome(
        kind=rules.OutcomeKind(stored.get("phase", "none")),
        revision=stored.get("revision"),
        title=stored.get("message", ""),
        remedy=stored.get("remedy", ""),
        code=stored.get("code", ""),
    )


def probe_of(row: Deployment) -> rules.Probe | None:
    """The last answer of a deployment's endpoint to Slipway's own question."""
    stored = row.probe or {}
    if not stored or row.probed_at is None:
        return None
    return rules.Probe(
        ok=bool(stored.get("ok")),
        at=row.probed_at,
        detail=str(stored.get("detail", "")),
        failures=int(stored.get("failures", 0)),
    )


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nul(item) for item in value]
    return value


def _recompute(row: Deployment, now: datetime) -> list[Event] | None:
    """Put the computed state on the row; returns the lines for its timeline, None when nothing changed."""
    result = rules.state_of(wanted_of(row), outcome_of(row), observed_of(row), probe_of(row), now)
    state = Deployment.State[result.state.name]
    reason = result.reason.as_json() if result.reason else {}
    detail = {
        "text": result.detail,
        "serving_revision": result.serving_revision,
        "failing_revision": result.failing_revision,
        "ready_replicas": result.ready_replicas,
    }
    if (row.state, row.reason, row.detail) == (state, reason, detail):
        return None
    moved = row.state != state
    news = [_news(row, state, reason, result.detail)] if moved or _worse(row, reason) else []
    if moved:
        row.state, row.state_since = state, now
    row.reason, row.detail = reason, detail
    return news


def _worse(row: Deployment, reason: Mapping[str, Any]) -> bool:
    """True when the same state has another cause than before, and one that weighs."""
    return bool(reason) and reason.get("weight") != "progress" and reason["code"] != (row.reason or {}).get("code")


def _news(row: Deployment, state: Deployment.State, reason: Mapping[str, Any], detail: str) -> Event:
    cause = str(reason.get("title") or detail or "")
    message = f"{state.label}: {cause}" if cause else str(state.label)
    return Event(
        kind="state",
        level=_LEVELS.get(state, Event.Level.INFO),
        message=message.replace("\x00", "")[:500],
        team_id=row.team_id,
        deployment=row,
        data={"from": row.state, "to": state.value, "reason": reason.get("code", "")},
    )


def _least_replicas(revision: Revision | None) -> tuple[int, tuple[tuple[str, int], ...]]:
    """The fewest replicas of a revision, and how many of them each role has where roles are apart."""
    spec = revision.spec if revision is not None and isinstance(revision.spec, dict) else {}
    roles = tuple((role, _least(spec[role])) for role in ("prefill", "decode") if isinstance(spec.get(role), dict))
    return (sum(least for _, least in roles), roles) if roles else (_least(spec), ())


def _least(part: Mapping[str, Any]) -> int:
    replicas = part.get("replicas")
    return int(replicas.get("min", 1)) if isinstance(replicas, dict) else 1


def _undecided(latest: Revision | None) -> rules.Want:
    if latest is None:
        return rules.Want.DRAFT
    return {
        Revision.Verdict.PENDING: rules.Want.AWAITING_APPROVAL,
        Revision.Verdict.APPROVED: rules.Want.AWAITING_QUOTA,
        Revision.Verdict.REJECTED: rules.Want.REJECTED,
        Revision.Verdict.SUPERSEDED: rules.Want.AWAITING_APPROVAL,
        Revision.Verdict.EXPIRED: rules.Want.EXPIRED,
    }[Revision.Verdict(latest.verdict)]


def _wants_probe(row: Deployment, now: datetime) -> bool:
    """True when pods became ready and nobody has asked the endpoint since."""
    if row.wanted != Wanted.RUNNING or (row.probed_at is not None and now - row.probed_at < PROBE_AGAIN):
        return False
    observed = observed_of(row)
    ready = [pod for pod in observed.live_pods if pod.ready] if observed else []
    since = [pod.ready_since for pod in ready if pod.ready_since is not None]
    return bool(ready) and (row.probed_at is None or any(row.probed_at < moment for moment in since))
