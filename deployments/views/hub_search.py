"""Searching the hub beside the request form: hits with licence, size, fit and quota. Works as a page of its own too."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import Resolver404, resolve, reverse
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from deployments.forms import engine_fields, presets
from deployments.forms.usual import replicas_within
from deployments.forms.values import as_value
from deployments.models import EngineProfile, Flavor, Team
from deployments.services import holds, hub_search
from deployments.services.errors import InvalidError
from deployments.services.hub_search import Judged
from deployments.services.principals import principal_of
from deployments.spec import Strategy
from deployments.views.ask import DEFAULTS
from portal.lib.htmx import PortalRequest, is_htmx, signed_in

# Pages that the search stands on.
FORMS = frozenset({"deployment-create", "deployment-edit"})


@dataclass(frozen=True)
class Row:
    """One hit: what is said of it, what its button sets in the form, and the address of a form that begins so."""

    judged: Judged
    way: str
    href: str


@require_safe
@signed_in
@vary_on_headers("HX-Request")
def search(request: PortalRequest) -> HttpResponse:
    """`?hub=words`, with `flavor`, `team`, `strategy`, `profile` and `replicas_max` as they stand in the form."""
    principal = principal_of(request)
    typed = request.GET.get("hub", "")
    words = typed[: hub_search.LONGEST]
    flavors = Flavor.objects.filter(active=True)
    flavor = next((row for row in flavors if row.slug == request.GET.get("flavor")), None)
    asked, strategy = request.GET.get("team", ""), request.GET.get("strategy", "")
    team = Team.objects.writable_by(principal).filter(slug=asked).first() if asked else None
    try:
        answer = hub_search.search(typed)
    except InvalidError as error:
        answer = hub_search.Answer(trouble=error.message)
    left = None
    if team is not None and flavor is not None:
        left = next((row.free for row in holds.usage(team) if row.flavor.pk == flavor.pk), 0)
    judged = []
    if answer.hits:
        beside = presets.beside(strategy)
        judged = hub_search.judged(answer.hits, flavor, left, version=_version(request), beside=beside)
    context = {
        "words": words,
        "searched": len(words.strip()) >= hub_search.SHORTEST,
        "trouble": answer.trouble,
        "hits": [_row(item, strategy, request) for item in judged],
        "flavor": flavor,
        "team": team,
        "roles": strategy == Strategy.DISAGGREGATED,
        # Beside the form a hit is put into it, and all that was typed about other things stays.
        "beside": is_htmx(request),
    }
    response = render(request, "parts/hub_hits.html" if is_htmx(request) else "pages/hub.html", context)
    if address := _address(request.headers.get("hx-current-url", ""), words):
        response["HX-Replace-Url"] = address
    return response


def _row(item: Judged, strategy: str, request: HttpRequest) -> Row:
    """A hit that is said to fit brings along everything with which it does, so that the form says the same."""
    sets = {"source_uri": item.uri, "source_revision": ""}
    if item.preset is not None:
        sets |= presets.sets_of(item.preset, strategy)
        replicas = as_value(int, request.GET.get("replicas_max", "").strip())
        if item.covered and strategy != Strategy.DISAGGREGATED and isinstance(replicas, int):
            sets |= _replicas(replicas, item.preset.gpus, item.left or 0)
    begins = {name: value for name, value in sets.items() if DEFAULTS.get(name, "") != value and name != "source_uri"}
    team = [("team", request.GET["team"])] if request.GET.get("team") else []
    query = [("uri", item.uri), *team, *(("set", f"{name}={value}") for name, value in begins.items())]
    way = "&".join(f"{name}={value}" for name, value in sets.items())
    return Row(item, way, f"{reverse('deployment-create')}?{urlencode(query, safe='/')}")


def _address(current: str, words: str) -> str:
    """The address of the form on the page, with the search in it; empty for any other page."""
    try:
        parts = urlsplit(current)
        form = resolve(parts.path).url_name in FORMS
    except (ValueError, Resolver404):
        return ""
    if not form:
        return ""
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "hub"]
    text = urlencode([*query, *([("hub", words)] if words else [])])
    return f"{parts.path}?{text}" if text else parts.path


def _replicas(asked: int, gpus: int, left: int) -> dict[str, str]:
    """Fewer replicas, where as many as are asked for are more than the quota has left."""
    if asked * gpus <= left:
        return {}
    least, most = replicas_within(left, gpus)
    return {"replicas_min": str(least), "replicas_max": str(most)}


def _version(request: HttpRequest) -> str:
    """The vLLM version of the engine that is chosen; without one that of the newest."""
    rows = EngineProfile.objects.offered().newest_first()
    chosen = next((row for row in rows if row.slug == request.GET.get("profile")), rows[0] if rows else None)
    return engine_fields.version_of(chosen.slug, chosen.version) if chosen else ""
