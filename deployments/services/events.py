"""The audit and the timeline: written in the transaction of the change that they tell of."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from deployments.models import Deployment, Event, Team, User
from deployments.services import telling

MESSAGE_LENGTH = 500

# Set by `RequestIdMiddleware` for the request in hand, so that every service call of it carries the id.
request_id: ContextVar[str] = ContextVar("slipway_request_id", default="")
# Likewise where the request came from.
address: ContextVar[str] = ContextVar("slipway_address", default="")
# Likewise the beginning of the API token that speaks for the actor; empty where they speak for themselves.
acting_token: ContextVar[str] = ContextVar("slipway_acting_token", default="")


def record(
    *,
    kind: str,
    message: str,
    team: Team | None = None,
    deployment: Deployment | None = None,
    actor: User | None = None,
    level: str = Event.Level.INFO,
    data: Mapping[str, Any] | None = None,
) -> Event:
    """Append one line; the deployment's team is taken where none is named, text longer than 500 characters is cut.

    Where a token speaks for the actor, `data` names it as `by_token`. Pages that show the deployment are told: what
    happened to it is on them, also where its state stays the same. So are the people whom it concerns (`notices`).
    Inside `telling.together` all of that is done at its end, and the line has no key before.
    """
    clean = message.replace("\x00", "")
    if len(clean) > MESSAGE_LENGTH:
        clean = clean[: MESSAGE_LENGTH - 1] + "…"
    event = Event(
        kind=kind,
        level=level,
        message=clean,
        team_id=team.pk if team else (deployment.team_id if deployment else None),
        deployment=deployment,
        actor=actor,
        data={**(data or {}), **_by_token(actor)},
        request_id=request_id.get(),
        address=address.get(),
    )
    telling.tell([event])
    return event


def _by_token(actor: User | None) -> dict[str, str]:
    prefix = acting_token.get()
    return {"by_token": prefix} if prefix and actor is not None else {}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The keys whose values differ, as {"before": …, "after": …}: what an audit line stores of a change."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {
        "before": {name: before.get(name) for name in names},
        "after": {name: after.get(name) for name in names},
    }
