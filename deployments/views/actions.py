"""Stop, start and delete: each first says what ends and which GPUs come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import Sum
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from deployments.models import Deployment, Principal, QuotaHold
from deployments.services import lifecycle
from deployments.services.errors import DomainError, MissingError
from deployments.services.principals import principal_of
from portal.lib.htmx import PortalRequest, go_to, is_htmx, page_or_partial, signed_in


@dataclass(frozen=True)
class Action:
    """One action in words."""

    name: str
    title: str
    text: str
    button: str
    tone: str
    done: str
    names: bool = False


ACTIONS = {
    "stop": Action(
        "stop",
        "Stop",
        "Its pods end and the endpoint stops answering: whoever uses it gets errors until it is started again. "
        "Everything about it is kept.",
        "Stop it",
        "danger",
        "is stopping. Its GPUs come back when the pods are gone.",
    ),
    "start": Action(
        "start",
        "Start",
        "The approved revision runs again. Its GPUs are reserved now, and it takes about as long as the first start.",
        "Start it",
        "primary",
        "is starting.",
    ),
    "delete": Action(
        "delete",
        "Delete",
        "Its pods end, the endpoint and everything Slipway made for it on the cluster go away. This cannot be undone; "
        "its history stays in the audit log.",
        "Delete it",
        "danger",
        "is being deleted. Its GPUs come back when the pods are gone.",
        names=True,
    ),
}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def act(request: PortalRequest, pk: int, action: str) -> HttpResponse:
    """Ask, then do it through the service."""
    chosen = ACTIONS[action]
    principal = principal_of(request)
    row = _operable(principal, pk)
    error = ""
    if request.method == "POST":
        try:
            _services()[action](principal, row, request)
        except MissingError:
            raise Http404 from None
        except DomainError as refused:
            error = refused.message
        else:
            messages.success(request, f"“{row.name}” {chosen.done}")
            return go_to(request, reverse("deployment-detail", args=[row.pk]))
    held = (
        QuotaHold.objects.filter(deployment=row, gpus__gt=0).values("account__flavor__name").annotate(gpus=Sum("gpus"))
    )
    context = {"d": row, "action": chosen, "held": held, "error": error, "typed": request.POST.get("confirm", "")}
    template = page_or_partial(request, "deployments/confirm.html#box")
    # Inside a dialog the refusal is the content that was asked for.
    return render(request, template, context, status=422 if error and not is_htmx(request) else 200)


def _operable(principal: Principal, pk: int) -> Deployment:
    row = get_object_or_404(
        Deployment.objects.alive().visible_to(principal).select_related("team", "latest__flavor"), pk=pk
    )
    if not lifecycle.may_operate(principal, row):
        raise Http404
    return row


def _services() -> dict[str, Callable[[Principal, Deployment, PortalRequest], Any]]:
    return {
        "stop": lambda principal, row, request: lifecycle.stop(
            principal=principal, deployment=row, reason=request.POST.get("reason", "")
        ),
        "start": lambda principal, row, request: lifecycle.start(principal=principal, deployment=row),
        "delete": lambda principal, row, request: lifecycle.delete(
            principal=principal, deployment=row, confirm=request.POST.get("confirm", "").strip()
        ),
    }
