"""Asking for a model: the form, its live advice, and one-click fixes. Works as a plain form too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from deployments.findings import PASSING, Finding
from deployments.forms import engine_fields
from deployments.forms.request import STRATEGIES, DeploymentForm, initial_of, with_value
from deployments.forms.roles import PRESET, preset_within
from deployments.forms.usual import replicas_within, surge_words, usual_offer, usual_words
from deployments.models import CatalogEntry, Deployment, Flavor, Principal, Team
from deployments.preflight.request import proposed_name
from deployments.services import facts, holds, hub_search, requests
from deployments.services.capacity_now import flavors_now
from deployments.services.errors import DomainError, RefusedError, StaleError
from deployments.services.principals import principal_of
from deployments.sources.oci import FOLDER
from deployments.spec import MAX_URI
from deployments.views.advice import Advice, advice_of
from deployments.views.images import image_help
from deployments.views.once import once
from deployments.views.wish_files import SHOW, TAKE, WishFiles, filled_in, kept, shown, taken, unread
from portal.lib.htmx import PortalRequest, signed_in

MOST_SETS = 10
# Buttons that send the form without asking for anything.
ADVISING = frozenset({"set", "way", SHOW})
# The vLLM version whose settings the page offers, as the page itself says.
OFFERED = "offered"
DEFAULTS = {
    "strategy": "standard",
    "tensor_parallel_size": "1",
    "replicas_min": "1",
    "replicas_max": "1",
    "source_folder": FOLDER,
    **PRESET,
}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once
def create(request: PortalRequest) -> HttpResponse:
    """Ask for a new deployment."""
    principal = principal_of(request)
    if not Team.objects.writable_by(principal).exists():
        return render(request, "pages/no_team.html", {"is_admin": principal.is_admin})
    if request.method != "POST":
        values, usual = _first_values(request, principal)
        form = DeploymentForm(values, principal=principal)
        return _page(request, form, _look(form, principal, strict=False), status=200, usual=usual)
    data = _fixed(request.POST)
    if TAKE in request.POST:
        return _take(request, principal, data)
    form = DeploymentForm(data, principal=principal)
    if not ADVISING.isdisjoint(request.POST):
        return _advised(request, form, principal)
    if (left := unread(request, form)) is not None:
        return _page(request, form, _look(form, principal, strict=True), status=422, wish=left)
    spec = form.spec
    if spec is not None and form.is_valid():
        try:
            deployment = requests.submit(
                principal=principal,
                team=form.cleaned_data["team"],
                name=form.cleaned_data["name"],
                spec=spec,
                note=form.cleaned_data["note"],
            )
        except DomainError as error:
            _show(form, error)
        else:
            messages.success(request, f"“{deployment.name}” is asked for.")
            return redirect("deployment-detail", pk=deployment.pk)
    return _page(request, form, _look(form, principal, strict=True), status=422)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def edit(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask for a change: a new revision, which needs its own approval."""
    principal = principal_of(request)
    rows = Deployment.objects.writable_by(principal).select_related("team", "latest")
    deployment = get_object_or_404(rows, pk=pk)
    latest = deployment.latest
    assert latest is not None  # Every deployment is written with its first revision.
    if request.method != "POST":
        # `?from=2` begins with an older revision; `?set=dtype=half` sets a value (also several), `?set=dtype=`
        # leaves it out.
        older = deployment.revisions.filter(number=_number(request.GET.get("from"))).first()
        spec_of = older.spec if older else latest.spec
        values = {**initial_of(spec_of), "team": deployment.team.slug, "name": deployment.name}
        values = _set(values, request.GET.getlist("set")[:MOST_SETS])
        form = DeploymentForm(values, principal=principal, deployment=deployment)
        return _page(request, form, _look(form, principal, strict=False), status=200)
    if TAKE in request.POST:
        return _take(request, principal, _fixed(request.POST), deployment)
    form = DeploymentForm(_fixed(request.POST), principal=principal, deployment=deployment)
    if not ADVISING.isdisjoint(request.POST):
        return _advised(request, form, principal)
    if (left := unread(request, form)) is not None:
        return _page(request, form, _look(form, principal, strict=True), status=422, wish=left)
    spec = form.spec
    if spec is not None and form.is_valid():
        try:
            revision = requests.revise(
                principal=principal,
                deployment=deployment,
                spec=spec,
                base_revision=_number(request.POST.get("base_revision")),
                note=form.cleaned_data["note"],
            )
        except StaleError as error:
            newest = deployment.revisions.values_list("number", flat=True).first()
            form.data = {**form.data, "base_revision": str(newest)}
            form.add_error(None, f"{error.message} What you typed is kept below; send it again to put it on top.")
        except DomainError as error:
            _show(form, error)
        else:
            messages.success(request, f"Revision {revision.number} of “{deployment.name}” is asked for.")
            return redirect("deployment-detail", pk=deployment.pk)
    return _page(request, form, _look(form, principal, strict=True), status=422)


@require_POST
@signed_in
def preflight(request: PortalRequest, pk: int | None = None) -> HttpResponse:
    """What can be said about the form as it stands: the side panel, and a message box per field."""
    principal = principal_of(request)
    form = _form_of(request, principal, pk)
    context = _said(form, _look(form, principal, strict=False))
    # Another engine, GPU or model takes other values: its groups come along, in place of those on the page.
    regroup = request.POST.get(OFFERED, context["offered"]) != context["offered"]
    return render(request, "parts/advice.html", context | {"live": True, "regroup": regroup})


@require_POST
@signed_in
def preview(request: PortalRequest, pk: int | None = None) -> HttpResponse:
    """The form as it stands as YAML, and the objects that it would become: a part of the page."""
    principal = principal_of(request)
    form = _form_of(request, principal, pk)
    context = {"wish": shown(form, principal), "deployment": form.deployment, **_urls(form.deployment)}
    return render(request, "parts/wish_files.html", context)


def _form_of(request: PortalRequest, principal: Principal, pk: int | None) -> DeploymentForm:
    deployment = None
    if pk is not None:
        rows = Deployment.objects.writable_by(principal).select_related("team", "latest")
        deployment = get_object_or_404(rows, pk=pk)
    return DeploymentForm(_fixed(request.POST), principal=principal, deployment=deployment)


def _take(
    request: PortalRequest, principal: Principal, data: dict[str, str], deployment: Deployment | None = None
) -> HttpResponse:
    """The form filled in from YAML; where that is wrong, as it was, with the mistakes beside the text."""
    wish, values = taken(request, deployment)
    form = DeploymentForm({**data, **values}, principal=principal, deployment=deployment)
    advice = _look(form, principal, strict=False)
    return _page(request, form, advice, status=422 if wish.wrong else 200, wish=filled_in(wish, form))


def _advised(request: PortalRequest, form: DeploymentForm, principal: Principal) -> HttpResponse:
    """The form again, with advice, after a button that only changed it or looked at it."""
    advice = _look(form, principal, strict=False)
    wish = shown(form, principal) if SHOW in request.POST else None
    return _page(request, form, advice, status=200, wish=wish)


def _look(form: DeploymentForm, principal: Principal, *, strict: bool) -> Advice:
    """Ask preflight about the form; before somebody has sent it, empty fields are not called mistakes."""
    spec = form.usable
    form.sent = strict
    if not strict:
        for name in ("name", "source_uri", "team"):
            if not str(form.data.get(name, "") or form.initial.get(name, "")).strip():
                form.errors.pop(name, None)
    uri = form.spec_data["source"]["uri"]
    if spec is None and not uri:
        return Advice()
    team = form.cleaned_data.get("team") if hasattr(form, "cleaned_data") else None
    try:
        result = requests.preflight(
            principal=principal,
            team=form.deployment.team if form.deployment else team,
            name=form.deployment.name if form.deployment else str(form.data.get("name", "")).strip(),
            spec=spec if spec is not None else form.spec_data,
            deployment=form.deployment,
        )
    except DomainError as error:
        _show(form, error)
        return Advice()
    untouched = {"name", "team"} if not strict and not str(form.data.get("name", "")).strip() else set()
    if form.deployment:
        untouched = {"name", "team"}
    form.add_findings(
        [*form.findings, *(f for f in result.findings if f.field not in untouched and f not in form.findings)]
    )
    return advice_of(result, spec, wrong=form.wrong, typed=form.data)


def _show(form: DeploymentForm, error: DomainError) -> None:
    if isinstance(error, RefusedError) or error.findings:
        form.add_findings(error.findings)
        return
    form.add_error(error.field if error.field in form.fields else None, error.message)


def _page(
    request: PortalRequest,
    form: DeploymentForm,
    advice: Advice,
    *,
    status: int,
    wish: WishFiles | None = None,
    usual: str = "",
) -> HttpResponse:
    # What was typed as YAML stays, whatever became of the form.
    context = _context(form, advice) | {"refused": status == 422, "wish": wish or kept(form.data)}
    # `?hub=` is a search of the hub, which stands in the address as long as its hits stand on the page.
    words = request.GET.get("hub", "")[: hub_search.LONGEST]
    context |= {"words": words, "searching": bool(words) and request.method != "POST"}
    context["usual"] = context["usual"] or usual
    return render(request, "pages/ask.html", context, status=status)


def _said(form: DeploymentForm, advice: Advice) -> dict[str, Any]:
    """What can change with every key that is pressed: the live answer is made of it alone."""
    # A change has no boxes for team and name: both are fixed.
    said = {name: form.messages_of(name) for name in form.fields}
    values = {name: form.text(name) for name in form.fields}
    at, offer = (
        usual_offer(values, advice.quota, advice.gpus, roles=form.has_roles) if not form.deployment else ("", {})
    )
    if at and not said[at]:
        said[at] = [offer]
    fields = {name: {"messages": said[name], "shown": not field.disabled} for name, field in form.fields.items()}
    general: list[Finding] = [finding for finding in form.findings if not form.field_of(finding)]
    values = {name: form.kept(name) for name in form.fields}
    version = form.version
    flavor = getattr(form, "cleaned_data", {}).get("flavor")
    without = engine_fields.not_here(version, advice.model, float(flavor.compute_capability) if flavor else 0.0)
    return {
        "form": form,
        "fields": fields,
        "general": general,
        "advice": advice,
        "deployment": form.deployment,
        "values": values,
        "version": version,
        "offered": " ".join([version, *(f"-{value}" for values in without.values() for value in sorted(values))]),
        "groups": engine_fields.groups(
            version, values, said, form.plugins, per_replica=advice.per_replica, roles=form.has_roles, without=without
        ),
        "usual": usual_words(advice.quota, advice.gpus) if advice.gpus and not form.deployment else "",
        "surge_words": surge_words(advice.gpus),
        # What stands in the way may pass by itself: the page asks again, and keeps what is typed.
        "again": max((PASSING.get(finding.code, 0) for finding in form.findings), default=0),
        "preflight_url": _urls(form.deployment)["preflight_url"],
    }


def _context(form: DeploymentForm, advice: Advice) -> dict[str, Any]:
    latest = form.deployment.latest if form.deployment else None
    return {
        **_said(form, advice),
        **_urls(form.deployment),
        "serving": facts.serving_of(form.deployment),
        "base_revision": form.data.get("base_revision") or (latest.number if latest else ""),
        "strategies": STRATEGIES,
        "flavors": flavors_now(),
        "catalogue": CatalogEntry.objects.offered(),
        "images": image_help(),
        "gateway": settings.GATEWAY_PUBLIC_URL,
    }


def _urls(deployment: Deployment | None) -> dict[str, str]:
    return {
        "preflight_url": _url(deployment, "deployment-edit-preflight", "deployment-preflight"),
        "preview_url": _url(deployment, "deployment-edit-preview", "deployment-preview"),
        "back_url": _url(deployment, "deployment-detail", "deployment-list"),
    }


def _url(deployment: Deployment | None, of_one: str, of_all: str) -> str:
    return reverse(of_one, args=[deployment.pk]) if deployment else reverse(of_all)


def _first_values(request: PortalRequest, principal: Principal) -> tuple[dict[str, str], str]:
    """What an empty form begins with, and why with so many replicas.

    `?model=` takes a catalogue entry (`&flavor=` its preset), `?team=` a team, `?uri=` any model, and `?set=` sets a
    value as in an edit.
    """
    values = dict(DEFAULTS)
    teams = {team.slug: team for team in Team.objects.writable_by(principal).order_by("slug")}
    team = teams.get(request.GET.get("team", "")) or next(iter(teams.values()))
    flavors = list(Flavor.objects.filter(active=True).values_list("slug", flat=True))
    quota = {row.flavor.slug: row for row in holds.usage(team)}
    with_room = (slug for slug in flavors if slug in quota and quota[slug].free)
    values["flavor"] = next(with_room, flavors[0] if flavors else "")
    values["team"] = team.slug
    preset = None
    slug = request.GET.get("model", "")
    entry = CatalogEntry.objects.visible_to(principal).filter(slug=slug).first()
    if entry:
        presets = [preset for preset in entry.choices if preset.flavor in flavors]
        at = request.GET.get("flavor", "")
        preset = next((one for one in presets if one.flavor == at), presets[0] if presets else None)
        spec: dict[str, Any] = {
            "source": {"uri": entry.uri, "revision": entry.revision},
            "engine": {"args": entry.args},
        }
        if preset:
            counts = {"min": preset.replicas, "max": preset.replicas}
            spec |= {"engine": {"args": preset.args}, "flavor": preset.flavor, "replicas": counts}
        values |= {key: value for key, value in initial_of(spec).items() if value}
        values["name"] = proposed_name(entry.slug)
    uri = request.GET.get("uri", "")
    values |= {"source_uri": uri[: MAX_URI + 1]} if uri else {}
    values = _set(values, request.GET.getlist("set")[:MOST_SETS])
    usage, gpus = quota.get(values["flavor"]), engine_fields.gpus_per_replica(values)
    values |= preset_within(usage.free if usage else 0)
    if preset is None:
        least, most = replicas_within(usage.free if usage else 0, gpus)
        values |= {"replicas_min": str(least), "replicas_max": str(most)}
    return values, usual_words(usage, gpus)


def _fixed(posted: Any) -> dict[str, str]:
    """The posted form, with a pressed fix ("field=value") or other way (several, joined by "&") carried out.

    Of a way a part without a value empties its field.
    """
    data = {key: posted[key] for key in posted}
    name, _, value = str(posted.get("set", "")).partition("=")
    if value:
        data = with_value(data, name, value)
    return _set(data, str(posted.get("way", "")).split("&"))


def _set(values: dict[str, str], changes: Iterable[str]) -> dict[str, str]:
    """The form's values with each “field=value” set; nothing after the sign empties the field."""
    for change in changes:
        name, equals, value = change.partition("=")
        if name and equals:
            values = with_value(values, name, value)
    return values


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0
