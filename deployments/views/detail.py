"""The page of one deployment and its tabs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from django.db.models import Sum
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from deployments.kube.observe import HELPERS
from deployments.labels import ENGINE_CONTAINERS
from deployments.manifests.text import as_yaml
from deployments.models import Approval, Deployment, Event, Principal, QuotaHold, Wanted
from deployments.services import files, lifecycle, states, waits
from deployments.services.principals import principal_of
from deployments.views import keys, present
from deployments.views.inbox import decider_of
from deployments.views.standing import fix_of, heading, stopped_by, up_after, waits_for_quota
from deployments.views.steps import steps
from deployments.views.timeline import READ, SHOWN_FIRST, said, told
from deployments.views.waiting_links import links_of
from portal.lib.htmx import PortalRequest, page_or_partial, signed_in
from portal.lib.pages import keyset_page


def visible(principal: Principal, pk: int) -> Deployment:
    """The deployment with the rows its page needs; 404 for strangers and for what is gone for good."""
    rows = Deployment.objects.visible_to(principal).select_related(
        "team", "cluster", "status", "created_by", "latest__flavor", "latest__author", "approved__flavor", "applied"
    )
    heavy = [f"{name}__objects_json" for name in ("latest", "approved", "applied")]
    return get_object_or_404(rows.defer(*heavy), pk=pk)


def header(principal: Principal, row: Deployment, tab: str) -> dict[str, Any]:
    """What stands above every tab."""
    approval = None
    if row.latest_id:
        approval = Approval.objects.filter(revision=row.latest_id).select_related("actor").order_by("-pk").first()
    operable = lifecycle.may_operate(principal, row)
    member = Deployment.objects.writable_by(principal).filter(pk=row.pk).exists()
    started = row.approved_id is not None or row.state == Deployment.State.AWAITING_QUOTA
    return {
        "d": row,
        "tab": tab,
        "approval": approval,
        "endpoint": present.endpoint(row),
        "may_edit": member and row.wanted != Wanted.DELETED,
        "awaits_quota": row.approved_id is not None and waits_for_quota(row),
        "coming_up": row.state == Deployment.State.RUNNING and bool(row.detail.get("text")),
        "may_stop": operable and row.wanted == Wanted.RUNNING and started,
        "may_start": operable and row.wanted == Wanted.STOPPED,
        "may_delete": operable and row.wanted != Wanted.DELETED,
        "may_prompt": row.state in {Deployment.State.RUNNING, Deployment.State.DEGRADED},
    }


@require_safe
@signed_in
@vary_on_headers("HX-Request")
def detail(request: PortalRequest, pk: int) -> HttpResponse:
    """Is it serving, if not why, what do I press."""
    principal = principal_of(request)
    row = visible(principal, pk)
    observed = states.observed_of(row)
    context = header(principal, row, "overview")
    way = steps(row, observed, context["approval"])
    holds = QuotaHold.objects.filter(deployment=row, gpus__gt=0).select_related("account__flavor")
    lines = told(Event.objects.filter(deployment=row).select_related("actor")[:READ])
    quota = list(holds.annotate(team_reserved=Sum("account__reserved")))
    waiting = waits.waiting_of(row) if waits_for_quota(row) else None
    context |= {
        "steps": way,
        "heading": heading(row),
        "stopped": stopped_by(row),
        "up_after": up_after(row, way, context["approval"]) if row.wanted == Wanted.RUNNING else None,
        "replicas": present.replicas(observed),
        "serving": sum(1 for pod in observed.live_pods if pod.ready) if observed else 0,
        "fix": fix_of(row),
        "decider": decider_of(row.latest),
        "holds": quota,
        "waits": waiting,
        "quota_links": links_of(principal, row, waiting),
        "keys": keys.of_deployment(principal, row),
        "keys_shown": f":{keys.ON_A_CARD}",
        "events": lines[:SHOWN_FIRST],
        "older": lines[SHOWN_FIRST:],
        "older_count": max(0, len(lines) - SHOWN_FIRST),
        "observed_at": present.known_at(row),
    }
    return render(request, page_or_partial(request, "deployments/detail.html#live"), context)


@require_safe
@signed_in
def logs(request: PortalRequest, pk: int) -> HttpResponse:
    """Logs of its pods, and what the cluster said about them."""
    principal = principal_of(request)
    row = visible(principal, pk)
    observed = states.observed_of(row)
    pods = present.replicas(observed)
    newest = next((pod for pod in reversed(pods) if pod.role not in HELPERS.values()), None)
    chosen = next((pod for pod in pods if pod.name == request.GET.get("pod")), newest)
    asked = request.GET.get("container", "")
    containers = chosen.containers if chosen else []
    fallback = next((name for name in containers if name in ENGINE_CONTAINERS), containers[0] if containers else "")
    container = asked if asked in containers else fallback
    restarts = chosen.restarted.get(container, 0) if chosen else 0
    previous = restarts > 0 and request.GET.get("previous") == "1"
    again = {"previous": "1"} if previous else {}
    context = header(principal, row, "logs") | {
        "pods": pods,
        "pod": chosen,
        "container": container,
        "restarts": restarts,
        "ended": bool(chosen and container in chosen.ended),
        "previous": previous,
        "query": urlencode({"pod": chosen.name if chosen else "", "container": container, **again}),
        "said": said(observed.events[:400] if observed else ()),
        "observed_at": present.known_at(row),
    }
    return render(request, "deployments/logs.html", context)


@require_safe
@signed_in
def revisions(request: PortalRequest, pk: int) -> HttpResponse:
    """Every revision with what it changed, who asked and who approved."""
    principal = principal_of(request)
    row = visible(principal, pk)
    rows = row.revisions.select_related("author", "flavor").prefetch_related("approvals__actor").defer("objects_json")
    page = keyset_page(
        rows, order=("-number",), after=request.GET.get("after", ""), before=request.GET.get("before", ""), size=20
    )
    listed = []
    for index, revision in enumerate(page.rows):
        older = page.rows[index + 1] if index + 1 < len(page.rows) else None
        if older is None and revision.number > 1:
            older = row.revisions.filter(number=revision.number - 1).defer("objects_json").first()
        changes = present.differences(older.spec, revision.spec) if older else None
        listed.append({"revision": revision, "changes": changes, "older": older})
    return render(
        request, "deployments/revisions.html", header(principal, row, "revisions") | {"page": page, "listed": listed}
    )


@require_safe
@signed_in
def manifests(request: PortalRequest, pk: int) -> HttpResponse:
    """What is wanted on the cluster, how it differs from what runs, and what the cluster says of it.

    `?revision=2` chooses a revision, `&against=1` with which one it is compared, `&format=yaml` downloads it.
    """
    principal = principal_of(request)
    row = visible(principal, pk)
    revision = files.revision_of(row, _number(request.GET.get("revision"))) or files.revision_of(row, 0)
    observed = states.observed_of(row)
    context = header(principal, row, "manifests") | {
        "revision": revision,
        "numbers": list(row.revisions.values_list("number", flat=True)[:50]),
        "inventory": row.inventory.select_related("revision").defer("revision__objects_json").order_by("kind", "name"),
        "conditions": [
            (condition, present.tone_of(condition, wanted_running=row.wanted == Wanted.RUNNING))
            for condition in (observed.service.conditions if observed and observed.service else ())
        ],
        "observed_at": present.known_at(row),
    }
    if revision is not None:
        asked = _number(request.GET.get("against"))
        number = asked or (row.applied.number if row.applied else 0)
        other = files.revision_of(row, number) if number else None
        shown = files.of_revision(row, revision, other)
        if request.GET.get("format") == "yaml":
            response = HttpResponse(shown.yaml, content_type="application/yaml; charset=utf-8")
            response["Content-Disposition"] = f'attachment; filename="{shown.file}"'
            return response
        context |= {"files": shown, "against": other, "asked": asked, "objects": as_texts(shown.all)}
    return render(request, "deployments/manifests.html", context)


def as_texts(objects: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Objects as a page shows them, each with its YAML."""
    return [{"kind": item["kind"], "name": item["metadata"]["name"], "yaml": as_yaml(item)} for item in objects]


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else 0
