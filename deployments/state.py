"""The state of a deployment as a function of what is wanted, what was done, what is seen and the last probe."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from deployments.kube.observe import Observed
from deployments.kube.reasons import Reason


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
    """What services recorded: the wish, and the newest approved revision with its fewest replicas."""

    want: Want
    revision: int | None = None
    replicas: int = 1


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
