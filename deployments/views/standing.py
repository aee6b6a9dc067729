"""Where one deployment stands, in words: the head of its steps, who stopped or rejected it, what one press mends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deployments.forms.values import shown, text_of
from deployments.models import Approval, Deployment, Event, Revision, Wanted
from deployments.views.steps import Step

State = Deployment.State

WORDS = {
    State.AWAITING_APPROVAL: "waits for approval",
    State.AWAITING_QUOTA: "waits for quota",
    State.REJECTED: "was rejected",
    State.EXPIRED: "expired without a decision",
    State.STALLED: "is stuck",
    State.BLOCKED: "is held up",
    State.FAILED: "does not start",
    State.STOPPING: "is stopping",
    State.STOPPED: "is stopped",
    State.DELETING: "is being deleted",
    State.DELETED: "is deleted",
    State.DEGRADED: "serves in part",
}
# Causes whose flag has to go: any other value of it would fail as well.
GOES = frozenset({"unknown_flag", "quantization"})
NOT_FLAGS = frozenset({"flavor", "source_uri", "credential", "profile"})


@dataclass(frozen=True)
class Stop:
    """Who had it stopped, and when."""

    who: str
    at: datetime
    why: str = ""


def heading(row: Deployment) -> str:
    """How the newest revision stands, as it follows "Revision 2"."""
    latest = row.latest
    if latest is not None and row.wanted == Wanted.RUNNING:
        if latest.verdict == Revision.Verdict.REJECTED:
            return WORDS[State.REJECTED]
        if latest.verdict == Revision.Verdict.PENDING:
            return WORDS[State.AWAITING_APPROVAL]
        if row.detail.get("failing_revision") == latest.number:
            return WORDS[State.FAILED]
        if waits_for_quota(row):
            return WORDS[State.AWAITING_QUOTA]
    if row.state == State.RUNNING:
        return "is coming up" if row.detail.get("text") else "serves"
    return WORDS.get(State(row.state), "on its way")


def waits_for_quota(row: Deployment) -> bool:
    """True where the newest revision is approved and not yet the one that runs, also while the one before it does."""
    newest = row.latest
    approved = newest is not None and newest.verdict == Revision.Verdict.APPROVED
    return approved and row.approved_id != row.latest_id and row.wanted == Wanted.RUNNING


def stopped_by(row: Deployment) -> Stop | None:
    """The last stop of a deployment that is to be stopped."""
    if row.wanted != Wanted.STOPPED:
        return None
    event = Event.objects.filter(deployment=row, kind="stopped").select_related("actor").order_by("-pk").first()
    if event is None:
        return None
    who = (event.actor.get_full_name() or event.actor.username) if event.actor else "Slipway"
    return Stop(who, event.created_at, event.message.partition(": ")[2])


@dataclass(frozen=True)
class Took:
    """How long the newest revision took to serve, and since what: its approval or its last start."""

    span: timedelta
    since: str


def up_after(row: Deployment, found: list[Step], approval: Approval | None) -> Took | None:
    """None while it is on its way, and where the moments are not known."""
    if not found or any(step.mark != "done" for step in found) or approval is None:
        return None
    restarted = restarted_at(row)
    again = restarted is not None and restarted > approval.created_at
    began = restarted if again and restarted else approval.created_at
    told = Event.objects.filter(deployment=row, kind="state", data__to=State.RUNNING, created_at__gte=began)
    moments = [told.order_by("pk").values_list("created_at", flat=True).first(), found[-2].at]
    ended = min((at for at in moments if at and at > began), default=None)
    return Took(ended - began, "last start" if again else "approval") if ended else None


def restarted_at(row: Deployment) -> datetime | None:
    """When somebody last had it started again; None when it was never stopped."""
    events = Event.objects.filter(deployment=row, kind="started").order_by("-pk")
    return events.values_list("created_at", flat=True).first()


def fix_of(row: Deployment) -> dict[str, Any] | None:
    """The one-click fix of the reason: which field to set to what, or which flag to leave out."""
    reason = row.reason or {}
    field, value = str(reason.get("field") or ""), reason.get("value")
    if not field:
        return None
    label = field.replace("_", "-")
    if reason.get("code") in GOES and field not in NOT_FLAGS:
        return {"set": f"{field}=", "text": f"Remove {label}"}
    if value is None:
        return None
    return {"set": f"{field}={text_of(value)}", "text": f"Set {label} to {shown(value)}"}
