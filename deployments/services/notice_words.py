"""What a notice says of its event: to those who decide also what is asked for, until when and for how much."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from deployments.models import Event, Flavor, QuotaRequest, Revision
from deployments.services import states
from deployments.services.inbox import HOURS_A_MONTH

MESSAGE_LENGTH = 500
# Of these the notice says team, size and cost: whoever reads it decides.
WANT_A_WORD = frozenset({"requested", "revised", "approval_void", "emergency_called", "quota_asked"})


def sentence_of(event: Event) -> str:
    """The words of a notice of this event, with what somebody who decides wants to know (two queries for those)."""
    text = f"{event.deployment.name}: {event.message}" if event.deployment else event.message
    if event.kind in WANT_A_WORD and event.team is not None:
        text = f"{event.team.name}, {text}"
    return cut(f"{text}{_terms(event)}")


def cut(text: str) -> str:
    """The text as far as a notice holds it."""
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"


def revision_of(event: Event) -> Revision | None:
    """The revision that an event of a deployment is about."""
    rows = Revision.objects.select_related("flavor", "deployment__team", "deployment__applied", "deployment__approved")
    rows = rows.defer(*states.HEAVY)
    return rows.filter(deployment=event.deployment_id, number=event.data.get("revision")).first()


def _terms(event: Event) -> str:
    if event.kind == "quota_asked":
        asked = QuotaRequest.objects.select_related("flavor").filter(pk=event.data.get("request")).first()
        if asked is None:
            return ""
        since = f"from {_day(asked.valid_from)}" if asked.valid_from else "from now"
        until = f"until {_day(asked.valid_until)}" if asked.valid_until else "without an end"
        return f" ({since}, {until}; {_a_month(asked.flavor, asked.gpus)})"
    revision = revision_of(event) if event.kind in WANT_A_WORD else None
    if revision is None:
        return ""
    return f" ({revision.gpus} × {revision.flavor.name}; {_a_month(revision.flavor, revision.gpus)})"


def _a_month(flavor: Flavor, gpus: int) -> str:
    return f"€ {round(float(flavor.price_per_hour) * gpus * HOURS_A_MONTH):,} a month at most"


def _day(moment: datetime) -> str:
    day = timezone.localtime(moment)
    return f"{day.day} {day:%b %Y}"
