"""Searching the hub beside the request form: hits with licence, size, fit and quota. Works as a page of its own too."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from deployments.models import Flavor, Team
from deployments.services import holds, hub_search
from deployments.services.errors import InvalidError
from deployments.services.principals import principal_of
from portal.lib.htmx import PortalRequest, is_htmx, signed_in


@require_safe
@signed_in
@vary_on_headers("HX-Request")
def search(request: PortalRequest) -> HttpResponse:
    """`?hub=words`, with `flavor` and `team` as they stand in the form."""
    principal = principal_of(request)
    words = request.GET.get("hub", "")
    flavors = Flavor.objects.filter(active=True)
    flavor = next((row for row in flavors if row.slug == request.GET.get("flavor")), None)
    asked = request.GET.get("team", "")
    team = Team.objects.writable_by(principal).filter(slug=asked).first() if asked else None
    try:
        answer = hub_search.search(words)
    except InvalidError as error:
        answer = hub_search.Answer(trouble=error.message)
    left = None
    if team is not None and flavor is not None:
        left = next((row.free for row in holds.usage(team) if row.flavor.pk == flavor.pk), 0)
    context = {
        "words": words[: hub_search.LONGEST],
        "searched": len(words.strip()) >= hub_search.SHORTEST,
        "trouble": answer.trouble,
        "hits": hub_search.judged(answer.hits, flavor, left) if answer.hits else [],
        "flavor": flavor,
        "team": team,
        # Beside the form a hit is put into it, and all that was typed stays.
        "beside": is_htmx(request),
    }
    return render(request, "parts/hub_hits.html" if is_htmx(request) else "pages/hub.html", context)
