"""The cluster as people see it: capacity for everyone, its parts for admins."""

from __future__ import annotations

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from deployments.models import Cluster, Deployment, Intent
from deployments.services.capacity_now import flavors_now, nodes_now
from deployments.services.principals import principal_of
from deployments.views.parts import parts_of
from portal.lib.htmx import PortalRequest, page_or_partial, signed_in


@require_safe
@signed_in
@vary_on_headers("HX-Request")
def capacity(request: PortalRequest) -> HttpResponse:
    """Nodes, GPUs and who holds them; the names of other teams stay with them."""
    context = {"flavors": flavors_now(), "nodes": nodes_now(principal_of(request))}
    return render(request, page_or_partial(request, "pages/capacity.html#live"), context)


@require_safe
@signed_in
def cluster(request: PortalRequest) -> HttpResponse:
    """What the watcher knows of the cluster; for admins."""
    principal = principal_of(request)
    if not principal.is_admin:
        raise Http404
    row = Cluster.objects.order_by("pk").first()
    capabilities = row.capabilities if row and isinstance(row.capabilities, dict) else {}
    stuck = Deployment.objects.alive().filter(failures__gt=0).select_related("team").order_by("-failures")[:20]
    context = {
        "cluster": row,
        "parts": parts_of(capabilities.get("groups")),
        "nodes": nodes_now(principal),
        "stuck": stuck,
        "open_intents": Intent.objects.filter(closed_at=None).count(),
    }
    return render(request, "pages/cluster.html", context)
