"""Engines, for admins: which are offered, who runs on them, and the form for what their images have besides vLLM."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from deployments.engine.flags import release, versions
from deployments.engine.plugins import LABELS, PURPOSES, Plugin
from deployments.engine.profiles import seeded_profiles
from deployments.engine.quantization import needed_since
from deployments.models import Principal
from deployments.services import engines
from deployments.services.errors import DomainError, MissingError
from deployments.services.principals import principal_of
from portal.lib.htmx import PortalRequest, signed_in


@dataclass(frozen=True)
class Choice:
    """A plugin as the form offers it; `builtin` where this version of vLLM does by itself what it brings."""

    plugin: Plugin
    label: str
    purpose: str
    since: str
    builtin: bool
    chosen: bool


@require_safe
@signed_in
def engine_list(request: PortalRequest) -> HttpResponse:
    """What is offered, by which image, and how many deployments run on it."""
    *older, newest = versions()
    context = {
        "rows": engines.engines(_admin(request)),
        "versions": [newest, *reversed(older)],
        "newest": newest,
        "older": older[-1] if older else newest,
        # What `--image` is for: the engine that comes with Slipway.
        "seeded": list(seeded_profiles().values())[-1].version,
    }
    return render(request, "pages/engines.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def edit(request: PortalRequest, slug: str) -> HttpResponse:
    """Say what the image of an engine has besides vLLM."""
    principal = _admin(request)
    try:
        found = engines.engine(principal, slug)
    except MissingError:
        raise Http404 from None
    if request.method != "POST":
        return _form(request, found, found.profile.plugins)
    typed = request.POST.getlist("plugins")[: len(Plugin) + 1]
    try:
        saved = engines.change(
            principal=principal, slug=slug, plugins=typed, seen=request.POST.get("seen", "")[:64] or None
        )
    except DomainError as error:
        return _form(request, found, typed, error.by_field(("plugins",)))
    messages.success(request, f"{saved.title} is saved. Later revisions follow; what runs stays as it was signed.")
    return redirect("engines")


def _form(
    request: PortalRequest, found: engines.Engine, chosen: list[str], errors: dict[str, str] | None = None
) -> HttpResponse:
    row = found.profile
    context = {
        "engine": found,
        "row": row,
        "choices": [_choice(plugin, row.version, chosen) for plugin in Plugin],
        "packages": [plugin.package for plugin in Plugin if release(row.version) >= release(needed_since(plugin))],
        "seen": engines.tag_of(row),
        "errors": errors or {},
    }
    return render(request, "pages/engine_form.html", context, status=422 if errors else 200)


def _choice(plugin: Plugin, version: str, chosen: list[str]) -> Choice:
    since = needed_since(plugin)
    builtin = release(version) < release(since)
    return Choice(plugin, LABELS[plugin], PURPOSES[plugin], since, builtin, plugin in chosen)


def _admin(request: PortalRequest) -> Principal:
    """The admin who asks; to others these pages do not exist."""
    principal = principal_of(request)
    if not engines.may_edit(principal):
        raise Http404
    return principal
