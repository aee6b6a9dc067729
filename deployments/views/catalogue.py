"""Models that are known to run here: what they are good at, what the quota takes now, and for admins what is shown."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from deployments.models import CatalogEntry, Principal, Team
from deployments.services import catalogue as entries
from deployments.services import catalogue_edits
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from deployments.views.once import once
from portal.lib.htmx import PortalRequest, signed_in

FIELDS = ("uri", "revision", "name", "summary")
LONGEST = 1000
# What the buttons of a card ask for, as arguments of the service.
ACTS = {
    "hide": {"active": False},
    "show": {"active": True},
    "pin": {"pinned": True},
    "unpin": {"pinned": False},
}


@require_safe
@signed_in
def catalogue(request: PortalRequest) -> HttpResponse:
    """A card per model; `?fits=1` those that the quota takes now, `?can=tools` by capability, `?team=` one team's."""
    principal = principal_of(request)
    teams = list(Team.objects.writable_by(principal).order_by("slug"))
    chosen = next((team for team in teams if team.slug == request.GET.get("team")), None)
    can = request.GET.get("can", "")
    can = can if can in entries.CAPABILITIES else ""
    fits = request.GET.get("fits") == "1" and bool(teams)
    found = entries.offers(CatalogEntry.objects.visible_to(principal), [chosen] if chosen else teams)
    shown = [offer for offer in found if (not can or can in offer.entry.capabilities) and (not fits or offer.covered)]
    known = {name for offer in found for name in offer.entry.capabilities}
    context = {
        "offers": shown,
        "any": bool(found),
        "may_ask": bool(teams),
        "may_edit": entries.may_edit(principal),
        "seeded": catalogue_edits.seeded(),
        "teams": teams,
        "wish": {"team": chosen.slug if chosen else "", "can": can, "fits": fits},
        "capabilities": [(name, words) for name, words in entries.CAPABILITIES.items() if name in known],
        "words": entries.CAPABILITIES,
    }
    return render(request, "pages/catalogue.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once
def add(request: PortalRequest) -> HttpResponse:
    """Recommend another model of the hub; `?uri=` begins with its address."""
    principal = _admin(request)
    if request.method != "POST":
        return _form(request, {"uri": request.GET.get("uri", "")[:LONGEST]}, [])
    text = {name: str(request.POST.get(name, "")).strip()[:LONGEST] for name in FIELDS}
    can = request.POST.getlist("capabilities")[: len(entries.CAPABILITIES)]
    try:
        row = entries.add(principal=principal, **text, capabilities=can)
    except DomainError as error:
        return _form(request, text, can, error.by_field((*FIELDS, "capabilities")))
    if row.presets:
        messages.success(request, f"{row.name} is in the catalogue.")
    else:
        messages.warning(
            request,
            f"{row.name} is in the catalogue without settings: its shape is not known, or no GPU here holds it.",
        )
    return redirect("catalogue")


@require_POST
@signed_in
def change(request: PortalRequest, pk: int) -> HttpResponse:
    """Hide, show, pin or unpin one."""
    principal = _admin(request)
    row = get_object_or_404(CatalogEntry.objects.editable_by(principal), pk=pk)
    act = ACTS.get(request.POST.get("do", ""))
    if act is None:
        messages.error(request, "Say whether to pin, unpin, hide or show it.")
        return redirect("catalogue")
    row = entries.change(principal=principal, slug=row.slug, **act)
    place = "pinned to the top" if row.pinned else "in its place"
    messages.success(request, f"{row.name} is {place if row.active else 'hidden'}.")
    return redirect("catalogue")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once
def edit(request: PortalRequest, pk: int) -> HttpResponse:
    """Say something else of a model that an admin added; another version is looked up."""
    principal = _admin(request)
    row = _own(principal, pk)
    if request.method != "POST":
        text = {name: getattr(row, name) for name in ("revision", "name", "summary")}
        return _form(request, text, row.capabilities, entry=row)
    text = {name: str(request.POST.get(name, "")).strip()[:LONGEST] for name in ("revision", "name", "summary")}
    can = request.POST.getlist("capabilities")[: len(entries.CAPABILITIES)]
    told = {name: value for name, value in text.items() if name != "revision" or value != row.revision}
    try:
        row = catalogue_edits.edit(principal=principal, slug=row.slug, **told, capabilities=can)
    except DomainError as error:
        return _form(request, text, can, error.by_field((*FIELDS, "capabilities")), entry=row)
    messages.success(request, f"{row.name} is changed.")
    return redirect("catalogue")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def remove(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask, then take a model that an admin added out of the catalogue."""
    principal = _admin(request)
    row = _own(principal, pk)
    if request.method != "POST":
        return render(request, "pages/catalogue_remove.html", {"entry": row})
    catalogue_edits.delete(principal=principal, slug=row.slug)
    messages.success(request, f"{row.name} is no longer in the catalogue.")
    return redirect("catalogue")


def _own(principal: Principal, pk: int) -> CatalogEntry:
    """A model that somebody added here; of those that come with Slipway there are no such pages."""
    row = get_object_or_404(CatalogEntry.objects.editable_by(principal), pk=pk)
    if not catalogue_edits.is_own(row):
        raise Http404
    return row


def _form(
    request: PortalRequest,
    text: dict[str, str],
    chosen: list[str],
    errors: dict[str, str] | None = None,
    entry: CatalogEntry | None = None,
) -> HttpResponse:
    context: dict[str, Any] = {
        "entry": entry,
        "text": text,
        "errors": errors or {},
        "capabilities": [(name, words, name in chosen) for name, words in entries.CAPABILITIES.items()],
    }
    return render(request, "pages/catalogue_add.html", context, status=422 if errors else 200)


def _admin(request: PortalRequest) -> Principal:
    """The admin who asks; to others these pages do not exist."""
    principal = principal_of(request)
    if not entries.may_edit(principal):
        raise Http404
    return principal
