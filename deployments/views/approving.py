"""The inbox of those who decide: what, who, why, what it takes, and a yes or no to exactly that."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from deployments.models import Principal, Revision
from deployments.services import approvals
from deployments.services.errors import DomainError, MissingError
from deployments.services.principals import principal_of
from deployments.views import present
from deployments.views.capacity_now import flavors_now
from deployments.views.inbox import decided_for, pending_for
from portal.lib.htmx import PortalRequest, signed_in
from portal.lib.pages import keyset_page

INBOX = 30


@require_safe
@signed_in
def inbox(request: PortalRequest) -> HttpResponse:
    """What waits, and with `?show=history` what was decided."""
    principal = principal_of(request)
    history = request.GET.get("show") == "history"
    context: dict[str, Any] = {"history": history}
    if history:
        rows = (
            decided_for(principal)
            .select_related("deployment__team", "flavor", "author")
            .prefetch_related("approvals__actor")
        )
        context["page"] = keyset_page(
            rows.defer("objects_json"),
            order=("-pk",),
            after=request.GET.get("after", ""),
            before=request.GET.get("before", ""),
            size=30,
        )
    else:
        waiting = _waiting(principal)
        context["cards"] = [_card(principal, revision) for revision in waiting[:INBOX]]
        context["more"] = len(waiting) > INBOX
    return render(request, "pages/approvals.html", context)


@require_POST
@signed_in
def decide(request: PortalRequest, pk: int) -> HttpResponse:
    """Approve or reject the digest that the page showed."""
    principal = principal_of(request)
    revision = get_object_or_404(Revision.objects.visible_to(principal).select_related("deployment__team"), pk=pk)
    approve = request.POST.get("verdict") == "approve"
    try:
        approvals.decide(
            principal=principal,
            revision=revision,
            digest=request.POST.get("digest", ""),
            approve=approve,
            comment=request.POST.get("comment", ""),
        )
    except MissingError:
        raise Http404 from None
    except DomainError as error:
        messages.error(request, f"{revision.deployment.name}: {error.message}")
    else:
        word = "approved" if approve else "rejected"
        messages.success(request, f"Revision {revision.number} of “{revision.deployment.name}” is {word}.")
    if request.POST.get("next") == "deployment":
        return redirect("deployment-detail", pk=revision.deployment_id)
    return redirect("approvals")


def _waiting(principal: Principal) -> list[Revision]:
    rows = pending_for(principal).select_related(
        "deployment__team", "deployment__applied", "deployment__approved", "flavor", "author"
    )
    return list(
        rows.defer("objects_json", "deployment__applied__objects_json", "deployment__approved__objects_json").order_by(
            "created_at"
        )[: INBOX + 1]
    )


def _card(principal: Principal, revision: Revision) -> dict[str, Any]:
    """One request with what somebody needs to know to decide."""
    cost = approvals.cost_of(revision)
    approved = revision.deployment.approved
    flavor = next((row for row in flavors_now() if row.slug == revision.flavor.slug), None)
    return {
        "revision": revision,
        "standing": approvals.standing_of(principal, revision),
        "cost": cost,
        "leaves": cost.free - cost.more,
        "changes": present.differences(approved.spec, revision.spec) if approved else None,
        "flavor": flavor,
        "month": float(revision.flavor.price_per_hour) * revision.gpus * 730,
        "mine": revision.author_id == principal.user.pk,
    }
