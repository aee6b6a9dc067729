"""Deciding: a yes or no to exactly what the page showed, one thing at a time or several at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import trigger_client_event

from deployments.forms.quota_decision import QuotaDecision
from deployments.models import Principal, QuotaRequest, Revision
from deployments.services import approvals, deciding, emergencies, quota_requests
from deployments.services.deciding import Item
from deployments.services.errors import DomainError, InvalidError, MissingError
from deployments.services.inbox import (
    DEPLOYMENT,
    QUOTA,
    cases_of,
    known,
    pending_for,
    quota_known,
    quota_undecided,
    undecided,
)
from deployments.services.principals import principal_of
from deployments.views.inbox import Refused, cards_of, history_page, inbox_page
from portal.lib.htmx import PortalRequest, is_htmx, signed_in

LONGEST = 600


@require_safe
@signed_in
def inbox(request: PortalRequest) -> HttpResponse:
    """What waits, and with `?show=history` what was decided."""
    principal = principal_of(request)
    history = request.GET.get("show") == "history"
    context = history_page(principal, request.GET) if history else inbox_page(principal, request.GET)
    template = "pages/approvals_history.html" if history else "pages/approvals.html"
    return render(request, template, {"view": "history" if history else "waiting", **context})


@require_POST
@signed_in
def decide(request: PortalRequest, pk: int) -> HttpResponse:
    """Approve or reject the digest that the page showed; htmx gets only that card again, and keeps the others."""
    principal = principal_of(request)
    revision = _revision(principal, pk)
    approve = request.POST.get("verdict") == "approve"
    word = "approved" if approve else "rejected"

    def act() -> None:
        approvals.decide(
            principal=principal,
            revision=revision,
            digest=request.POST.get("digest", ""),
            approve=approve,
            comment=request.POST.get("comment", ""),
        )

    return _answered(
        request, principal, revision, act, word, f"Revision {revision.number} of “{revision.deployment.name}”"
    )


@require_POST
@signed_in
def decide_quota(request: PortalRequest, pk: int) -> HttpResponse:
    """Grant a request for quota as it was asked for, in part or otherwise, or deny it."""
    principal = principal_of(request)
    asked = QuotaRequest.objects.visible_to(principal).select_related("team", "flavor").filter(pk=pk).first()
    if asked is None:
        raise Http404
    grant = request.POST.get("verdict") == "approve"

    def act() -> None:
        given = QuotaDecision.read(request.POST, asked) if grant else QuotaDecision()
        quota_requests.decide(
            principal=principal,
            request_id=asked.pk,
            grant=grant,
            comment=request.POST.get("comment", ""),
            flavor=given.flavor,
            gpus=given.gpus,
            valid_from=given.valid_from,
            valid_until=given.valid_until,
        )

    name = f"Quota of {asked.team.name}"
    return _answered(request, principal, asked, act, "granted" if grant else "denied", name)


@require_POST
@signed_in
def call_emergency(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask a second admin to let through what its author cannot approve."""
    principal = principal_of(request)
    revision = _revision(principal, pk)

    def act() -> None:
        emergencies.call(
            principal=principal,
            revision=revision,
            digest=request.POST.get("digest", ""),
            reason=request.POST.get("reason", ""),
        )

    name = f"An emergency for “{revision.deployment.name}”"
    return _answered(request, principal, revision, act, "called: a second admin has an hour to sign it", name)


@require_POST
@signed_in
def sign_emergency(request: PortalRequest, pk: int) -> HttpResponse:
    """Approve with the admin who called it."""
    principal = principal_of(request)
    row = emergencies.visible_to(principal).select_related("revision__deployment").filter(pk=pk).first()
    if row is None:
        raise Http404

    def act() -> None:
        emergencies.sign(principal=principal, emergency_id=row.pk, digest=request.POST.get("digest", ""))

    return _answered(request, principal, row.revision, act, "approved in an emergency", _called(row.revision))


@require_POST
@signed_in
def decide_all(request: PortalRequest) -> HttpResponse:
    """One word for everything that was selected: the page says what became of each."""
    principal = principal_of(request)
    approve = request.POST.get("verdict") == "approve"
    comment = request.POST.get("comment", "")[:LONGEST]
    error, results = "", []
    try:
        results = deciding.decide_all(
            principal=principal,
            items=[item for text in request.POST.getlist("item")[:200] if (item := _item(text)) is not None],
            approve=approve,
            comment=comment,
        )
    except DomainError as refused:
        error = refused.message
    left = any(not result.decided for result in results) or error
    context = {
        "results": results,
        "word": "approved" if approve else "rejected",
        "bulk_error": error,
        # What was typed stays while something is left to decide.
        "bulk_comment": comment if left else "",
        "chosen": {_key(result.item) for result in results if not result.decided},
    }
    page = {"view": "waiting", **inbox_page(principal, request.GET), **context}
    return render(request, "pages/approvals.html", page, status=422 if error else 200)


@require_safe
@signed_in
def waiting(request: PortalRequest) -> HttpResponse:
    """How many requests wait for the person, for the places of an open page that say so."""
    return _with_count(HttpResponse(status=204), principal_of(request))


def _answered(
    request: PortalRequest,
    principal: Principal,
    row: Revision | QuotaRequest,
    act: Callable[[], None],
    word: str,
    name: str,
) -> HttpResponse:
    """Do it; answer htmx with the card as it is then, and others with the page. A refusal stands at its field."""
    key = f"r{row.pk}" if isinstance(row, Revision) else f"q{row.pk}"
    try:
        act()
    except MissingError:
        raise Http404 from None
    except DomainError as error:
        values = {name: str(value)[:LONGEST] for name, value in request.POST.items()}
        said = {key: Refused(error.message, error.field, values)}
        if is_htmx(request):
            return _card_again(request, principal, row, said)
        if isinstance(error, InvalidError):
            page = inbox_page(principal, request.GET, said)
            return render(request, "pages/approvals.html", {"view": "waiting", **page}, status=422)
        messages.error(request, f"{name}: {error.message}")
    else:
        if is_htmx(request):
            context = {"row": row, "key": key, "word": word, "name": name}
            return _with_count(render(request, "parts/approval_done.html", context), principal)
        messages.success(request, f"{name} is {word}.")
    if request.POST.get("next") == "deployment" and isinstance(row, Revision):
        return redirect("deployment-detail", pk=row.deployment_id)
    return redirect("approvals")


def _card_again(
    request: PortalRequest, principal: Principal, row: Revision | QuotaRequest, said: dict[str, Refused]
) -> HttpResponse:
    """The card with why it was refused; in its place a line, where it does not wait any more."""
    now: Any
    if isinstance(row, Revision):
        now = known(principal, pending_for(principal)).filter(pk=row.pk).first()
    else:
        now = quota_known(principal, row.pk)
    if now is None:
        (key, refused), *_ = said.items()
        return render(request, "parts/approval_gone.html", {"key": key, "why": refused.message}, status=422)
    (card,) = cards_of(principal, list(cases_of(principal, [now])), said)
    return render(request, "parts/approval_card.html", {"card": card}, status=422)


def _with_count(response: HttpResponse, principal: Principal) -> HttpResponse:
    """The script writes the count wherever the page shows it."""
    count = undecided(principal).count() + quota_undecided(principal).count()
    trigger_client_event(response, "slipway:waiting", {"count": count})
    return response


def _revision(principal: Principal, pk: int) -> Revision:
    return get_object_or_404(Revision.objects.visible_to(principal).select_related("deployment__team"), pk=pk)


def _called(revision: Revision) -> str:
    return f"Revision {revision.number} of “{revision.deployment.name}”"


def _item(text: str) -> Item | None:
    """`r12:digest` of a card's box, or `q3`; None for what no box holds."""
    key, _, digest = text.partition(":")
    number = key[1:]
    if key[:1] not in {"r", "q"} or not (number.isascii() and number.isdecimal() and len(number) < 18):
        return None
    return Item(DEPLOYMENT if key[0] == "r" else QUOTA, int(number), digest[:64])


def _key(item: Item) -> str:
    return f"{'r' if item.kind == DEPLOYMENT else 'q'}{item.pk}"
