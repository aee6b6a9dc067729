"""Quota of each team and flavor, in tabs: who may hold and holds how much, who asked, what ends, and the ledger."""

from __future__ import annotations

from typing import Any

from django.db.models import Case, QuerySet, When
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from deployments.models import (
    Flavor,
    Membership,
    Principal,
    QuotaHold,
    QuotaRequest,
    Team,
    User,
    admins_now,
)
from deployments.services import holds
from deployments.services.principals import principal_of
from deployments.services.quota_outlook import SOON, ending, holds_since
from deployments.services.quota_outlook import in_use as pods_use
from deployments.views.granted import granted_words
from deployments.views.quota_ends import ends_of
from deployments.views.quota_grants import GRANTS, grants_of, holders_over
from deployments.views.quota_history import export, page_of_ledger
from portal.lib.htmx import PortalRequest, signed_in
from portal.lib.pages import query_with

REQUESTS, HOLDERS = 20, 100
PREFILLED = ("team", "flavor", "gpus", "valid_from", "valid_until", "why")
# Colour and shape of a request's state.
LOOKS: dict[str, tuple[str, str]] = {
    QuotaRequest.State.PENDING: ("purple", "diamond"),
    QuotaRequest.State.GRANTED: ("green", "dot"),
    QuotaRequest.State.PARTLY: ("green", "dot"),
    QuotaRequest.State.OTHERWISE: ("green", "dot"),
    QuotaRequest.State.DENIED: ("red", "cross"),
    QuotaRequest.State.WITHDRAWN: ("grey", "ring"),
    QuotaRequest.State.EXPIRED: ("grey", "ring"),
}
TABS = (("grants", "Grants"), ("requests", "Requests"), ("ends", "Ends soon"), ("history", "History"))


@require_safe
@signed_in
def quotas(request: PortalRequest) -> HttpResponse:
    """What teams may hold, hold and use; what was asked for; what ends; and the ledger."""
    principal = principal_of(request)
    if request.GET.get("format") == "csv":
        return export(request, principal, request.GET.get("team", ""))
    page = page_of(request, principal)
    return render(request, "pages/quotas.html", page, status=404 if page["unknown"] else 200)


def page_of(request: PortalRequest, principal: Principal, show: str = "") -> dict[str, Any]:
    """What one tab of the page shows to this person: of a team that is chosen, or that is the only one, else of all.

    `show` is the tab; without, the address says which.
    """
    show = show or _asked_tab(request)
    teams = list(Team.objects.visible_to(principal).active())
    asked = request.GET.get("team", "")
    chosen = next((team for team in teams if team.slug == asked), None)
    unknown = bool(asked) and chosen is None
    if not asked and len(teams) == 1:
        chosen = teams[0]
    shown = [] if unknown else [chosen] if asked and chosen else teams
    led = list(Team.objects.active().led_by(principal)) if principal.may("write") else []
    return {
        "show": show,
        "tabs": _tabs(principal, show, asked, shown),
        "unknown": unknown,
        "teams": teams,
        "team": asked,
        "chosen": chosen,
        "led": led,
        "flavors": Flavor.objects.filter(active=True),
        "most": {"requests": REQUESTS, "grants": GRANTS, "holders": HOLDERS},
        "admins": "" if principal.is_admin or led else one_of(_admins()),
        "leads": leads_of(chosen) if chosen and not led and not principal.is_admin else "",
        "ask": {name: request.GET.get(name, "")[:600] for name in PREFILLED},
        "asks_now": "gpus" in request.GET,
        **({"rows": [], "grants": []} if unknown else _tab(request, principal, show, shown, chosen)),
    }


def _tab(
    request: PortalRequest, principal: Principal, show: str, shown: list[Team], chosen: Team | None
) -> dict[str, Any]:
    """What one tab shows beside what all do."""
    if show == "history":
        query = request.GET
        asked = query.get("team", "")
        page = page_of_ledger(principal, asked, query.get("after", ""), query.get("before", ""))
        return {"page": page}
    if show == "requests":
        return {"requests": _requests(principal, chosen)}
    usages = holds.usage_of(shown)
    if show == "ends":
        return {"ends": ends_of(shown, usages), "soon": SOON.days}
    return {
        "rows": _rows(shown, usages),
        "grants": grants_of(chosen, shown),
        "holders": _holders(chosen) if chosen else [],
    }


def _asked_tab(request: PortalRequest) -> str:
    """The tab that the address asks for; that of requests for who comes with GPUs to ask for."""
    asked = request.GET.get("show", "")
    if asked in dict(TABS):
        return asked
    return "requests" if "gpus" in request.GET else TABS[0][0]


def _tabs(principal: Principal, show: str, team: str, shown: list[Team]) -> list[dict[str, Any]]:
    """The tabs with what waits and what ends in them (two queries)."""
    counts = {
        "requests": QuotaRequest.objects.visible_to(principal).pending().filter(team__in=shown).count(),
        "ends": ending(shown).count(),
    }
    return [
        {
            "key": key,
            "label": "Waiting" if key == "requests" and principal.is_admin else label,
            "href": reverse("quotas") + query_with({}, show="" if key == TABS[0][0] else key, team=team).rstrip("?"),
            "current": key == show,
            "count": counts.get(key, 0),
            "tone": "purple" if key == "requests" else "yellow",
        }
        for key, label in TABS
    ]


def _rows(teams: list[Team], usages: dict[int, list[holds.Usage]]) -> list[dict[str, Any]]:
    in_use = pods_use(team.pk for team in teams)
    rows: list[dict[str, Any]] = []
    for team in teams:
        for usage in usages[team.pk]:
            used = min(usage.reserved, in_use.get((team.pk, usage.flavor.product), 0))
            rows.append({"team": team, "usage": usage, "in_use": used, "parts": _parts(usage, used)})
    over = holders_over((row["team"].pk, row["usage"].flavor.pk) for row in rows if row["usage"].over)
    for row in rows:
        row["holders"] = over.get((row["team"].pk, row["usage"].flavor.pk), "")
    return rows


def _requests(principal: Principal, team: Team | None) -> list[dict[str, Any]]:
    """The newest requests for quota, those that wait first."""
    rows = QuotaRequest.objects.visible_to(principal).select_related(
        "team", "flavor", "author", "decided_by", "granted__flavor"
    )
    rows = rows.filter(team=team) if team else rows
    waits = Case(When(state=QuotaRequest.State.PENDING, then=0), default=1)
    led = set(Team.objects.led_by(principal).values_list("pk", flat=True)) if principal.may("write") else set()
    return [
        {
            "row": row,
            "look": LOOKS[row.state],
            "granted": granted_words(row),
            "may_withdraw": row.state == QuotaRequest.State.PENDING and row.team_id in led,
        }
        for row in rows.order_by(waits, "-pk")[:REQUESTS]
    ]


def _holders(team: Team) -> QuerySet[QuotaHold]:
    """Who holds most of the team's quota, since when."""
    rows = holds_since([team]).select_related("account__flavor", "deployment")
    return rows.order_by("-gpus", "deployment__name")[:HOLDERS]


def leads_of(team: Team) -> str:
    """Who of a team may ask for quota, in words; empty for nobody."""
    leads = Membership.objects.in_force().filter(team=team, role=Membership.Role.LEAD)
    rows = User.objects.filter(pk__in=leads.values("user"), is_active=True).order_by("first_name", "username")
    return one_of([person.get_full_name() or person.username for person in rows[:5]])


def one_of(names: list[str]) -> str:
    """Ann, Bob or Carol."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _admins() -> list[str]:
    """Whom to ask for more: the platform's admins, the first few by name."""
    rows = User.objects.filter(admins_now()).order_by("first_name", "username")
    return [person.get_full_name() or person.username for person in rows[:5]]


def _parts(usage: holds.Usage, used: int) -> list[dict[str, Any]]:
    idle = usage.reserved - used
    return [
        {"kind": "use", "value": used, "label": f"{used} in use"},
        {"kind": "idle", "value": idle, "label": f"{idle} reserved, idle"},
        {"kind": "free", "value": usage.free, "label": f"{usage.free} free"},
    ]
