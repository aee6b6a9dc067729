"""Chart pages and fragments. They read Prometheus alone; who may see what is decided by the querysets."""

from __future__ import annotations

import csv
from datetime import UTC, datetime

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from deployments.models import Deployment, Team
from deployments.services.principals import principal_of
from deployments.views.detail import header, visible
from portal.lib.broker import away_since
from portal.lib.htmx import PortalRequest, signed_in

from . import pages
from .charts import Mark, show, sparkline
from .panels import BY_ID, DEPLOYMENT_LABEL, OVERVIEW_IDS, PANELS, Scope, columns
from .prometheus import PrometheusUnreachableError, QueryRefusedError, Range, prometheus
from .readings import Display, read_health, read_panel

# While a deployment comes up there is nothing to scrape, and nothing wrong with that.
COMING_UP = {
    Deployment.State.QUEUED,
    Deployment.State.APPLYING,
    Deployment.State.DOWNLOADING,
    Deployment.State.STARTING,
}
# From these on an engine that says nothing is not on its way any more.
SETTLED = {Deployment.State.RUNNING, Deployment.State.DEGRADED, Deployment.State.FAILED}
TROUBLE = {Display.UNREACHABLE, Display.REFUSED}
MOST_MARKS = 10  # revisions marked in one chart
MOST_COLUMNS = 100  # deployments whose figures one request may ask for


def _deployment(request: PortalRequest, pk: int) -> Deployment:
    return visible(principal_of(request), pk)


def _scope(deployment: Deployment) -> Scope:
    return Scope.deployment(deployment.pk, deployment.team.namespace)


def _began(deployment: Deployment) -> datetime | None:
    """When its first revision went to the cluster: before that there is nothing to draw."""
    events = deployment.events.filter(kind="applied").order_by("pk")
    return events.values_list("created_at", flat=True).first()


def _applied(deployment: Deployment, over: Range) -> list[Mark]:
    """When which revision went to the cluster, within a range: what a change of the figures may come from."""
    since, until = datetime.fromtimestamp(over.start, UTC), datetime.fromtimestamp(over.end, UTC)
    events = deployment.events.filter(kind="applied", created_at__range=(since, until)).order_by("-pk")[:MOST_MARKS]
    return [Mark(int(event.created_at.timestamp()), f"rev {event.data.get('revision', '?')}") for event in events]


def _fleet_scope(request: PortalRequest) -> Scope:
    principal = principal_of(request)
    namespaces = Team.objects.visible_to(principal).values_list("namespace", flat=True)
    return Scope.fleet(tuple(namespaces), everything=principal.is_admin and principal.team_ids is None)


@require_safe
@signed_in
def deployment_metrics(request: PortalRequest, pk: int) -> HttpResponse:
    """The tab with all panels; the charts come by themselves."""
    principal = principal_of(request)
    row = visible(principal, pk)
    chosen = pages.chosen_range(request.GET.get("range"))
    context = header(principal, row, "metrics") | {"range": chosen, "ranges": pages.RANGES}
    return render(request, "monitoring/deployment.html", context)


@require_safe
@signed_in
def deployment_charts(request: PortalRequest, pk: int) -> HttpResponse:
    """Charts of one deployment: four for its overview, all with ?set=all."""
    deployment = _deployment(request, pk)
    chosen = pages.chosen_range(request.GET.get("range"))
    every = request.GET.get("set") == "all"
    panels = PANELS if every else tuple(BY_ID[panel] for panel in OVERVIEW_IDS)
    over = pages.span(chosen, _began(deployment))
    expected_since = deployment.state_since if deployment.state in SETTLED else None
    found = pages.cards(
        prometheus(), _scope(deployment), over, panels, _applied(deployment, over), expected_since=expected_since
    )
    if deployment.state in COMING_UP and not any(card.drawn or card.reading.display in TROUBLE for card in found):
        return render(request, "monitoring/_soon.html")
    context = {
        "cards": found,
        "range": chosen,
        "every": every,
        "deployment": deployment,
        "away_since": prometheus().away_since,
        "soon": any(card.soon for card in found),
    }
    return render(request, "monitoring/_charts.html", context)


@require_safe
@signed_in
def panel_csv(request: PortalRequest, pk: int, panel: str) -> HttpResponse:
    """One panel's values, for a spreadsheet. Times in UTC, values in the panel's base unit."""
    if panel not in BY_ID:
        raise Http404
    deployment = _deployment(request, pk)
    over = pages.span(pages.chosen_range(request.GET.get("range")), _began(deployment))
    scope = _scope(deployment)
    reading = read_panel(prometheus(), BY_ID[panel], scope, over, read_health(prometheus(), scope, over))
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{deployment.name}-{panel}.csv"'
    writer = csv.writer(response)
    writer.writerow(["time", "series", f"value ({BY_ID[panel].unit})"])
    for line in reading.series:
        for at, value in line.points:
            writer.writerow([datetime.fromtimestamp(at, UTC).isoformat(), line.name, value])
    return response


@require_safe
@signed_in
def fleet(request: PortalRequest) -> HttpResponse:
    chosen = pages.chosen_range(request.GET.get("range"))
    principal = principal_of(request)
    context = {"range": chosen, "ranges": pages.RANGES, "everything": principal.is_admin, "section": "fleet"}
    return render(request, "monitoring/fleet.html", context)


@require_safe
@signed_in
def fleet_charts(request: PortalRequest) -> HttpResponse:
    """Charts over every deployment one may see; with ?set=overview only throughput and failures."""
    chosen = pages.chosen_range(request.GET.get("range"))
    few = request.GET.get("set") == "overview"
    panels = (BY_ID["throughput"], BY_ID["failures"]) if few else PANELS
    found = pages.cards(prometheus(), _fleet_scope(request), pages.span(chosen), panels)
    context = {
        "cards": found,
        "range": chosen,
        "every": not few,
        "away_since": prometheus().away_since,
        "soon": any(card.soon for card in found),
    }
    return render(request, "monitoring/_charts.html", context)


@require_safe
@signed_in
def fleet_columns(request: PortalRequest) -> HttpResponse:
    """Figures for the rows of a deployment table, swapped into their cells: four queries for any number of rows."""
    given = request.GET.get("ids", "").split(",")
    asked = [int(pk) for pk in given if pk.isascii() and pk.isdigit() and len(pk) < 19][:MOST_COLUMNS]
    visible = Deployment.objects.visible_to(principal_of(request)).filter(pk__in=asked)
    rows: dict[str, dict[str, object]] = {str(pk): {"pk": pk} for pk in visible.values_list("pk", flat=True)}
    return render(request, "monitoring/_columns.html", {"rows": _columns(_fleet_scope(request), rows)})


def _columns(scope: Scope, rows: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    door, over = prometheus(), Range.last(3600, points=120)
    queries = columns(scope, over.window)
    try:
        for name, unit in (("ttft", "s"), ("tokens", "tok/s"), ("kv", "ratio")):
            for line in door.instant(queries[name], ttl=10):
                if row := rows.get(line.labels.get(DEPLOYMENT_LABEL, "")):
                    row[name], row[f"{name}_unit"] = show(line.last, unit)
                    if name == "kv":  # a little of the bar shows as soon as anything is in the cache
                        row["kv_bar"] = f"{max(line.last or 0, 0.03 if line.last else 0):.3f}"
        for line in door.range(queries["ttft"], over):
            if row := rows.get(line.labels.get(DEPLOYMENT_LABEL, "")):
                row["spark"] = sparkline(line, over.start, over.end, over.step)
    except (PrometheusUnreachableError, QueryRefusedError):
        return [{"pk": row["pk"], "unknown": True} for row in rows.values()]
    return list(rows.values())


@require_safe
@signed_in
def badge(request: PortalRequest) -> HttpResponse:
    """Whether Prometheus and the queue answer, for the top bar."""
    context = {"reachable": prometheus().reachable(), "since": prometheus().away_since, "queue_since": away_since()}
    return render(request, "monitoring/_badge.html", context)
