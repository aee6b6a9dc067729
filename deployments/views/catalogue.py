"""Models that are known to run here."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from deployments.models import CatalogEntry, Flavor, Team
from deployments.services import holds
from deployments.services.principals import principal_of
from portal.lib.htmx import PortalRequest, signed_in


@require_safe
@signed_in
def catalogue(request: PortalRequest) -> HttpResponse:
    """A card per model: what it is, its licence, where it runs, and whether my quota covers it now."""
    principal = principal_of(request)
    teams = list(Team.objects.writable_by(principal))
    usages = holds.usage_of(teams)
    left: dict[str, int] = {}
    for rows in usages.values():
        for usage in rows:
            left[usage.flavor.slug] = max(left.get(usage.flavor.slug, 0), usage.free)
    names = dict(Flavor.objects.values_list("slug", "name"))
    cards = []
    for entry in CatalogEntry.objects.filter(active=True):
        gpus = int(entry.args.get("tensor-parallel-size", 1) or 1)
        cards.append(
            {
                "entry": entry,
                "gpus": gpus,
                "flavor": names.get(entry.flavor, entry.flavor),
                "covered": left.get(entry.flavor, 0) >= gpus,
                "left": left.get(entry.flavor, 0),
            }
        )
    return render(request, "pages/catalogue.html", {"cards": cards, "may_ask": bool(teams)})
