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

from deployments.models import Deployment, Flavor, Node, Principal, Reservation, Team, User
from deployments.services import grants, holds
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from portal.lib.htmx import PortalRequest, signed_in
from portal.lib.pages import keyset_page

CSV_ROWS = 10_000
GRANT_FIELDS = ("team", "flavor", "gpus", "until", "comment")


@require_safe
@signed_in
def quotas(request: PortalRequest) -> HttpResponse:
    """What teams may hold, hold and use; below it the ledger."""
    principal = principal_of(request)
    if request.GET.get("format") == "csv":
        return _csv(_ledger(principal, request.GET.get("team", "")))
    return render(request, "pages/quotas.html", _page(request, principal))


def _page(request: PortalRequest, principal: Principal) -> dict[str, Any]:
    """What the page shows to this person."""
    teams = list(Team.objects.visible_to(principal).active())
    ledger = _ledger(principal, request.GET.get("team", ""))
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
    return {
        "rows": rows,
        "page": page,
        "teams": teams,
        "team": request.GET.get("team", ""),
        "flavors": Flavor.objects.filter(active=True),
        "admins": "" if principal.is_admin else one_of(_admins()),
    }


def one_of(names: list[str]) -> str:
    """Ann, Bob or Carol."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _admins() -> list[str]:
    """Whom to ask for more: the platform's admins, the first few by name."""
    rows = User.objects.filter(is_platform_admin=True, is_active=True).order_by("first_name", "username")
    return [person.get_full_name() or person.username for person in rows[:5]]


@require_POST
@signed_in
def grant(request: PortalRequest) -> HttpResponse:
    """An admin grants a team GPUs; to others this address does not exist."""
    principal = principal_of(request)
    if not principal.is_admin:
        raise Http404
    values = {name: request.POST.get(name, "").strip()[:600] for name in GRANT_FIELDS}
    team = _called(Team.objects.active(), values["team"])
    flavor = _called(Flavor.objects.filter(active=True), values["flavor"])
    until = parse_date_or_none(values["until"])
    errors = _grant_errors(values, team, flavor, until)
    if not errors:
        gpus = int(values["gpus"])
        try:
            grants.grant(
                principal=principal, team=team, flavor=flavor, gpus=gpus, until=until, comment=values["comment"]
            )
        except DomainError as error:
            errors = {error.field if error.field in GRANT_FIELDS else "form": error.message}
        else:
            messages.success(request, f"{team.name} may hold {gpus} more GPU{'s'[: gpus != 1]} of {flavor.name}.")
            return redirect("quotas")
    context = _page(request, principal) | {"grant": values, "errors": errors}
    return render(request, "pages/quotas.html", context, status=422)


def _grant_errors(values: dict[str, str], team: Any, flavor: Any, until: datetime | None) -> dict[str, str]:
    """What is wrong with the form of a grant, by field."""
    errors = {}
    if team is None:
        errors["team"] = "Choose a team."
    if flavor is None:
        errors["flavor"] = "Choose a GPU."
    text = values["gpus"]
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text)):
        errors["gpus"] = "How many GPUs? A whole number from 1."
    if values["until"] and until is None:
        errors["until"] = "There is no such day to end on."
    return errors


def _called(rows: Any, slug: str) -> Any:
    # PostgreSQL takes no NUL, not even to compare with.
    return rows.filter(slug=slug).first() if "\0" not in slug else None


def parse_date_or_none(text: str) -> datetime | None:
    """The end of that day; None for no day or one that does not exist."""
    try:
        # In ASCII: it reads the digits of any script.
        day = parse_date(text.strip()) if text.isascii() else None
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
