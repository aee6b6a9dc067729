"""What a newer Slipway would render differently, and asking for it in waves: a page for admins."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from deployments.models import Deployment
from deployments.services.principals import principal_of
from deployments.services.renderings import FIRST_WAVE, MOST_OF_A_WAVE, changes, wave
from portal.lib.htmx import PortalRequest, signed_in

WAVES = (1, FIRST_WAVE, 10, MOST_OF_A_WAVE)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def renderings(request: PortalRequest) -> HttpResponse:
    """What would change; a POST asks for the next wave. To others than admins this address does not exist."""
    principal = principal_of(request)
    if not principal.is_admin:
        raise Http404
    context: dict[str, Any] = {}
    size = _whole(request.POST.get("wave", ""))
    size = size if size in WAVES else FIRST_WAVE
    if request.method == "POST":
        chosen = [item for text in request.POST.getlist("item")[:200] if (item := _item(text)) is not None]
        if chosen:
            done = wave(principal=principal, chosen=chosen, size=size)
            visible = Deployment.objects.visible_to(principal).filter(pk__in=[pk for pk, *_ in done])
            names = dict(visible.values_list("pk", "name"))
            context["results"] = [(names.get(pk, ""), pk, revision, message) for pk, revision, message in done]
        else:
            context["error"] = "Choose at least one."
    page = changes(principal, after=_whole(request.GET.get("after", "")))
    context |= {
        "view": "renderings",
        "rows": page.rows,
        "looked": page.looked,
        "after": page.after,
        "paged": bool(request.GET.get("after")),
        "waves": WAVES,
        "wave": size,
    }
    return render(request, "pages/approvals_renderings.html", context, status=422 if "error" in context else 200)


def _item(text: str) -> tuple[int, str] | None:
    pk, _, digest = text.partition(":")
    return (_whole(pk), digest[:64]) if _whole(pk) else None


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else 0
