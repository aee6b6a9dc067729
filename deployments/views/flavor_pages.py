"""Kinds of GPU, for admins: what is offered, what nodes propose, and the form for one."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from deployments.forms.flavor import read, text_of, typed
from deployments.models import Flavor, Principal
from deployments.services import flavor_proposals, flavors
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from deployments.views.once import once
from portal.lib.htmx import PortalRequest, signed_in


@require_safe
@signed_in
def flavor_list(request: PortalRequest) -> HttpResponse:
    """What is offered, and what nodes have that nobody offers yet."""
    _admin(request)
    rows = list(Flavor.objects.all())
    seen = flavors.capacities_of(rows)
    context = {"rows": [seen[row.pk] for row in rows], "proposals": flavor_proposals.proposals()}
    return render(request, "pages/flavors.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once
def create(request: PortalRequest) -> HttpResponse:
    """Offer a kind of GPU; `?product=…&resource=…` begins with what nodes propose."""
    principal = _admin(request)
    if request.method != "POST":
        product, resource = request.GET.get("product", ""), request.GET.get("resource", "")
        known = {(item.values["product"], item.values["resource_name"]): item for item in flavor_proposals.proposals()}
        found = known.get((product, resource))
        values: dict[str, Any] = {"resource_name": "nvidia.com/gpu", "gpus_per_node": 8, "price_per_hour": 0}
        return _form(request, None, text_of(found.values if found else values))
    return _save(request, principal, None)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def edit(request: PortalRequest, slug: str) -> HttpResponse:
    """Change what a flavor says."""
    principal = _admin(request)
    row = get_object_or_404(Flavor, slug=slug)
    if request.method != "POST":
        return _form(request, row, text_of(flavors.as_json(row)))
    return _save(request, principal, row)


def _save(request: PortalRequest, principal: Principal, row: Flavor | None) -> HttpResponse:
    text = typed(request.POST)
    values, errors = read(text, row)
    if errors:
        return _form(request, row, text, errors)
    try:
        if row is None:
            saved = flavors.create(principal=principal, **values)
        else:
            saved = flavors.change(principal=principal, slug=row.slug, **values)
    except DomainError as error:
        return _form(request, row, text, error.by_field(text))
    messages.success(request, f"{saved.name} is saved. Later revisions follow; what runs stays as it was signed.")
    return redirect("flavors")


def _form(
    request: PortalRequest, row: Flavor | None, text: dict[str, str], errors: dict[str, str] | None = None
) -> HttpResponse:
    context = {"row": row, "text": text, "errors": errors or {}}
    return render(request, "pages/flavor_form.html", context, status=422 if errors else 200)


def _admin(request: PortalRequest) -> Principal:
    """The admin who asks; to others these pages do not exist."""
    principal = principal_of(request)
    if not flavors.may_edit(principal):
        raise Http404
    return principal
