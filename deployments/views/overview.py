"""The first page: what the cluster has, what runs, what waits for me."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from deployments.services.capacity_now import flavors_now, nodes_now
from deployments.services.principals import principal_of
from deployments.views.listing import Wish, listing
from portal.lib.htmx import PortalRequest, page_or_partial, signed_in
from portal.lib.pages import query_with

OVERVIEW_ROWS = 15


@require_safe
@signed_in
@vary_on_headers("HX-Request")
def overview(request: PortalRequest) -> HttpResponse:
    """The overview, or its live part."""
    wish = Wish.from_query(request.GET, sort="urgent")
    context = {
        "flavors": flavors_now(),
        "listing": listing(principal_of(request), wish, size=OVERVIEW_ROWS),
        "wish": wish,
        "query": query_with(request.GET, after=None, before=None),
    }
    return render(request, page_or_partial(request, "pages/overview.html#live"), context)


@require_safe
@signed_in
def heat(request: PortalRequest) -> HttpResponse:
    """The GPUs of every node, loaded after the page: its size follows the cluster, not the page."""
    return render(request, "parts/heat.html", {"nodes": nodes_now(principal_of(request))})


@require_safe
@signed_in
@vary_on_headers("HX-Request")
def deployment_list(request: PortalRequest) -> HttpResponse:
    """Every deployment that the person may see, filtered, sorted and paged by the address."""
    wish = Wish.from_query(request.GET)
    context = {
        "listing": listing(principal_of(request), wish),
        "wish": wish,
        "query": query_with(request.GET),
        "sorts": _sorts(request, wish),
    }
    return render(request, page_or_partial(request, "pages/deployments.html#live"), context)


def _sorts(request: PortalRequest, wish: Wish) -> dict[str, dict[str, str]]:
    """For each column its link and what it says to a screen reader."""
    columns = {}
    for key in ("name", "team", "state", "gpus", "changed"):
        down = wish.sort == key
        columns[key] = {
            "href": query_with(request.GET, sort=f"-{key}" if down else key, after=None, before=None),
            "aria": ("ascending" if down else "descending") if wish.sort.lstrip("-") == key else "",
            "icon": "arrow-up" if down else "arrow-down",
        }
    return columns
