"""Quota of each team and flavor, and the ledger behind it; admins grant here."""

from __future__ import annotations

import csv
from datetime import datetime, time
from typing import Any

from django.contrib import messages
from django.db.models import Q
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.views.decorators.http import require_POST, require_safe

from deployments.models import Deployment, Flavor, Node, Principal, Reservation, Team
from deployments.services import holds
from deployments.services import teams as team_services
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from portal.lib.htmx import PortalRequest, signed_in
from portal.lib.pages import keyset_page

CSV_ROWS = 10_000


@require_safe
@signed_in
def quotas(request: PortalRequest) -> HttpResponse:
    """What teams may hold, hold and use; below it the ledger."""
    principal = principal_of(request)
    teams = list(Team.objects.visible_to(principal).active())
    ledger = _ledger(principal, request.GET.get("team", ""))
    if request.GET.get("format") == "csv":
        return _csv(ledger)
    in_use = _in_use([team.pk for team in teams])
    usages = holds.usage_of(teams)
    rows: list[dict[str, Any]] = []
    for team in teams:
        for usage in usages[team.pk]:
            used = min(usage.reserved, in_use.get((team.pk, usage.flavor.product), 0))
            rows.append({"team": team, "usage": usage, "in_use": used, "parts": _parts(usage, used)})
    page = keyset_page(
        ledger, order=("-pk",), after=request.GET.get("after", ""), before=request.GET.get("before", ""), size=30
    )
    context = {
        "rows": rows,
        "page": page,
        "teams": teams,
        "team": request.GET.get("team", ""),
        "flavors": Flavor.objects.filter(active=True),
    }
    return render(request, "pages/quotas.html", context)


@require_POST
@signed_in
def grant(request: PortalRequest) -> HttpResponse:
    """An admin grants a team GPUs; to others this address does not exist."""
    principal = principal_of(request)
    if not principal.is_admin:
        raise Http404
    team = _called(Team.objects.active(), request.POST.get("team", ""))
    flavor = _called(Flavor.objects.all(), request.POST.get("flavor", ""))
    text = request.POST.get("gpus", "").strip()
    if team is None or flavor is None or not (text.isascii() and text.isdigit() and len(text) < 6):
        messages.error(request, "Choose a team, a GPU and a whole number of GPUs.")
        return redirect("quotas")
    ends = request.POST.get("until", "").strip()
    until = parse_date_or_none(ends)
    if ends and until is None:
        messages.error(request, "There is no such day to end on.")
        return redirect("quotas")
    try:
        team_services.grant(
            principal=principal,
            team=team,
            flavor=flavor,
            gpus=int(text),
            until=until,
            comment=request.POST.get("comment", ""),
        )
    except DomainError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{team.name} may hold {int(text)} more GPUs of {flavor.name}.")
    return redirect("quotas")


def _called(rows: Any, slug: str) -> Any:
    # PostgreSQL takes no NUL, not even to compare with.
    return rows.filter(slug=slug).first() if "\0" not in slug else None


def parse_date_or_none(text: str) -> datetime | None:
    """The end of that day; None for no day or one that does not exist."""
    try:
        day = parse_date(text.strip())
    except ValueError:
        return None
    return timezone.make_aware(datetime.combine(day, time(23, 59, 59))) if day else None


def _ledger(principal: Principal, team: str) -> Any:
    rows = Reservation.objects.visible_to(principal).select_related(
        "account__team", "account__flavor", "deployment", "actor"
    )
    return rows.filter(account__team__slug=team) if team else rows


def _in_use(teams: list[int]) -> dict[tuple[int, str], int]:
    """GPUs that pods of each team hold, by product."""
    owners = dict(Deployment.objects.filter(Q(team__in=teams)).values_list("pk", "team_id"))
    used: dict[tuple[int, str], int] = {}
    for product, holders in Node.objects.values_list("product", "holders"):
        for holder in holders:
            team = owners.get(holder.get("deployment") or 0)
            if team is not None:
                used[(team, product)] = used.get((team, product), 0) + int(holder.get("gpus", 0))
    return used


def _parts(usage: holds.Usage, used: int) -> list[dict[str, Any]]:
    idle = usage.reserved - used
    return [
        {"kind": "use", "value": used, "label": f"{used} in use"},
        {"kind": "idle", "value": idle, "label": f"{idle} reserved, idle"},
        {"kind": "free", "value": usage.free, "label": f"{usage.free} free"},
    ]


def _csv(ledger: Any) -> HttpResponse:
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="ledger.csv"'
    writer = csv.writer(response)
    writer.writerow(["time", "team", "flavor", "deployment", "change", "balance", "kind", "reason", "by"])
    for row in ledger[:CSV_ROWS]:
        who = row.actor.username if row.actor else ""
        line = [
            row.created_at.isoformat(),
            row.account.team.slug,
            row.account.flavor.slug,
            row.deployment.name,
            row.delta,
            row.balance_before + row.delta,
            row.kind,
            row.reason,
            who,
        ]
        writer.writerow([_plain(cell) for cell in line])
    return response


def _plain(cell: Any) -> Any:
    """A spreadsheet must not take text for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t"} else cell
