"""Who approves what, team by team: a page for admins."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from deployments.models import Principal, Team
from deployments.services.errors import DomainError, InvalidError, MissingError
from deployments.services.policies import set_policy
from deployments.services.principals import principal_of
from portal.lib.htmx import PortalRequest, signed_in

FIELDS = ("policy", "ask_above", "at_expiry")
# Short enough to be told apart in a list on a phone; what they mean in full stands on the page of each team.
POLICIES = {
    Team.Policy.ASK: "An admin, always",
    Team.Policy.LEAD: "A lead, within quota",
    Team.Policy.AUTO: "Nobody, within quota",
}
AT_EXPIRY = {
    Team.AtExpiry.KEEP: "Goes on, cannot grow",
    Team.AtExpiry.STOP: "Is stopped, newest first",
}


@require_safe
@signed_in
def policies(request: PortalRequest) -> HttpResponse:
    """Every team with its policy; to others than admins this address does not exist."""
    return render(request, "pages/approvals_policies.html", _page(_admin(request)))


@require_POST
@signed_in
def change(request: PortalRequest, pk: int) -> HttpResponse:
    """Save one team's policy."""
    principal = _admin(request)
    team = get_object_or_404(Team.objects.active().governed_by(principal), pk=pk)
    values = {name: request.POST.get(name, "")[:40] for name in FIELDS}
    try:
        set_policy(
            principal=principal,
            team=team,
            policy=values["policy"],
            ask_above=_number(values["ask_above"]),
            at_expiry=values["at_expiry"],
        )
    except MissingError:
        raise Http404 from None
    except DomainError as error:
        return render(request, "pages/approvals_policies.html", _page(principal, team, values, error), status=422)
    messages.success(request, f"Saved who approves for {team.name}.")
    return redirect("approvals-policies")


def _page(
    principal: Principal,
    team: Team | None = None,
    values: dict[str, str] | None = None,
    error: DomainError | None = None,
) -> dict[str, Any]:
    entries = []
    for row in Team.objects.active().governed_by(principal):
        wrong = error if team is not None and row.pk == team.pk else None
        known = {
            "policy": row.policy,
            "ask_above": "" if row.ask_above is None else str(row.ask_above),
            "at_expiry": row.at_expiry,
        }
        entries.append(
            {
                "team": row,
                "values": values if wrong and values else known,
                "error": wrong.message if wrong else "",
                "field": wrong.field if wrong else "",
            }
        )
    return {
        "view": "policies",
        "entries": entries,
        "policies": list(POLICIES.items()),
        "at_expiry": list(AT_EXPIRY.items()),
    }


def _number(text: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        words = "Above how many GPUs? A whole number, or nothing for however many."
        raise InvalidError(words, field="ask_above", pointer="/ask_above")
    return int(text)


def _admin(request: PortalRequest) -> Principal:
    principal = principal_of(request)
    if not principal.is_admin:
        raise Http404
    return principal
