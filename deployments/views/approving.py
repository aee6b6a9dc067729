"""The inbox of those who decide: what, who, why, what it takes, and a yes or no to exactly that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import trigger_client_event

from deployments.models import Principal, Revision
from deployments.services import approvals, facts
from deployments.services.errors import DomainError, MissingError
from deployments.services.principals import principal_of
from deployments.views import present
from deployments.views.capacity_now import flavors_now
from deployments.views.inbox import decided_for, pending_for, undecided
from portal.lib.htmx import PortalRequest, is_htmx, signed_in
from portal.lib.pages import keyset_page

INBOX = 30
# What preflight said of the moment at which somebody asked: once that is over it helps nobody to decide.
OF_THE_MOMENT = frozenset({"cluster_unseen"})


@dataclass(frozen=True)
class Refused:
    """Why a decision was not taken, with the comment that goes on standing in its field."""

    message: str
    comment: str
    about_comment: bool


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
        context |= _inbox(principal)
    return render(request, "pages/approvals.html", context)


@require_POST
@signed_in
def decide(request: PortalRequest, pk: int) -> HttpResponse:
    """Approve or reject the digest that the page showed; htmx gets only that card again, and keeps the others."""
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
        said = {revision.pk: Refused(error.message, request.POST.get("comment", "")[:500], error.field == "comment")}
        if is_htmx(request):
            return _card_again(request, principal, revision.pk, said)
        if error.field == "comment":
            return render(request, "pages/approvals.html", {"history": False, **_inbox(principal, said)}, status=422)
        messages.error(request, f"{revision.deployment.name}: {error.message}")
    else:
        word = "approved" if approve else "rejected"
        if is_htmx(request):
            done = render(request, "parts/approval_done.html", {"revision": revision, "word": word})
            return _with_count(done, principal)
        messages.success(request, f"Revision {revision.number} of “{revision.deployment.name}” is {word}.")
    if request.POST.get("next") == "deployment":
        return redirect("deployment-detail", pk=revision.deployment_id)
    return redirect("approvals")


@require_safe
@signed_in
def waiting(request: PortalRequest) -> HttpResponse:
    """How many requests wait for the person, for the places of an open page that say so."""
    return _with_count(HttpResponse(status=204), principal_of(request))


def _with_count(response: HttpResponse, principal: Principal) -> HttpResponse:
    """The script writes the count wherever the page shows it."""
    trigger_client_event(response, "slipway:waiting", {"count": undecided(principal).count()})
    return response


def _inbox(principal: Principal, said: Mapping[int, Refused] | None = None) -> dict[str, Any]:
    """The cards: first those that wait for this person, then those that others decide."""
    waiting = list(_waiting(principal)[: INBOX + 1])
    cards = [_card(principal, revision, said) for revision in waiting[:INBOX]]
    mine = [card for card in cards if card["standing"].approve]
    admins = [card for card in cards if not card["standing"].approve and not card["mine"]]
    own = [card for card in cards if not card["standing"].approve and card["mine"]]
    groups = [("", mine), ("An admin decides", admins), ("You asked: somebody else decides", own)]
    return {"cards": cards, "groups": groups, "more": len(waiting) > INBOX}


def _card_again(request: PortalRequest, principal: Principal, pk: int, said: Mapping[int, Refused]) -> HttpResponse:
    """The card with why it was refused; in its place a line, where it does not wait any more."""
    revision = _waiting(principal).filter(pk=pk).first()
    if revision is None:
        return render(request, "parts/approval_gone.html", {"pk": pk, "why": said[pk].message}, status=422)
    card = _card(principal, revision, said)
    return render(request, "parts/approval_card.html", {"card": card}, status=422)


def _waiting(principal: Principal) -> QuerySet[Revision]:
    rows = pending_for(principal).select_related(
        "deployment__team", "deployment__applied", "deployment__approved", "flavor", "author"
    )
    return rows.defer(
        "objects_json", "deployment__applied__objects_json", "deployment__approved__objects_json"
    ).order_by("created_at")


def _card(principal: Principal, revision: Revision, said: Mapping[int, Refused] | None = None) -> dict[str, Any]:
    """One request with what somebody needs to know to decide."""
    cost = approvals.cost_of(revision)
    approved = revision.deployment.approved
    flavor = next((row for row in flavors_now() if row.slug == revision.flavor.slug), None)
    cluster = facts.main_cluster()
    over = OF_THE_MOMENT if cluster is not None and facts.is_seen(cluster) else frozenset()
    return {
        "findings": [finding for finding in revision.findings if finding.get("code") not in over],
        "revision": revision,
        "standing": approvals.standing_of(principal, revision),
        "cost": cost,
        "leaves": cost.free - cost.more,
        "changes": present.differences(approved.spec, revision.spec) if approved else None,
        "flavor": flavor,
        "month": float(revision.flavor.price_per_hour) * revision.gpus * 730,
        "mine": principal.user.pk in approvals.authors_of(revision),
        "refused": (said or {}).get(revision.pk),
    }
