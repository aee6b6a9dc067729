"""Stopping several deployments of the list: first what ends and which GPUs come back, then what became of each."""

from __future__ import annotations

from typing import Any

from django.db.models import IntegerField, OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from deployments.models import Deployment, Principal, QuotaHold, Wanted
from deployments.services import lifecycle, stopping
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from portal.lib.htmx import PortalRequest, is_htmx, page_or_partial, signed_in

# Word, colour and shape of what became of one.
LOOKS = {
    stopping.STOPPING: ("green", "dot", "stopping"),
    stopping.UNCHANGED: ("grey", "ring", "unchanged"),
    "not_allowed": ("red", "cross", "not allowed"),
}
REFUSED = ("red", "cross", "not stopped")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def stop_many(request: PortalRequest) -> HttpResponse:
    """Ask, naming each; then stop them, and say what became of each."""
    principal = principal_of(request)
    asked = _numbers((request.POST if request.method == "POST" else request.GET).getlist("d"))
    if request.method != "POST":
        return _ask(request, principal, asked)
    reason = request.POST.get("reason", "")
    try:
        results = stopping.stop_all(principal=principal, pks=asked, reason=reason)
    except DomainError as error:
        return _ask(request, principal, asked, reason=reason, error=error.message)
    rows = [(result, LOOKS.get(result.outcome, REFUSED)) for result in results]
    done = sum(result.outcome == stopping.STOPPING for result in results)
    return render(request, "pages/stopped_many.html", {"results": rows, "done": done})


def _ask(
    request: PortalRequest, principal: Principal, asked: list[int], *, reason: str = "", error: str = ""
) -> HttpResponse:
    context: dict[str, Any] = {
        "rows": _listed(principal, asked),
        "left_out": 0,
        "reason": reason,
        "error": error,
        "most": stopping.MOST,
    }
    context["left_out"] = len(asked) - len(context["rows"])
    template = page_or_partial(request, "pages/stop_many.html#box")
    return render(request, template, context, status=422 if error and not is_htmx(request) else 200)


def _listed(principal: Principal, asked: list[int]) -> list[Deployment]:
    """Those of the asked that run and that the person may stop, with what they hold (one query)."""
    held = QuotaHold.objects.filter(deployment=OuterRef("pk")).order_by().values("deployment")
    gpus = Subquery(held.annotate(n=Sum("gpus")).values("n"), output_field=IntegerField())
    rows = lifecycle.operable_by(principal).filter(pk__in=asked[: stopping.MOST], wanted=Wanted.RUNNING)
    return list(
        rows.select_related("team", "latest__flavor").annotate(held=Coalesce(gpus, 0)).order_by("team__slug", "name")
    )


def _numbers(texts: list[str]) -> list[int]:
    found = [int(text) for text in texts[:500] if text.isascii() and text.isdecimal() and len(text) < 18]
    return list(dict.fromkeys(found))
