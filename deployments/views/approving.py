"""Deciding: a yes or no to exactly what the page showed, one thing at a time or several at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import trigger_client_event

from deployments.forms.quota_decision import DecisionError, QuotaDecision
from deployments.models import Principal, QuotaRequest, Revision
from deployments.services import approvals, deciding, emergencies, quota_requests
from deployments.services import waiting as waits_in_line
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
from deployments.views.granted import granted_words
from deployments.views.inbox import Refused, cards_of, history_page, inbox_page
from portal.lib.htmx import PortalRequest, is_htmx, signed_in

LONGEST = 600
# Refusals whose words stand in the card (`static/app.js`); others are told beside the page.
SWAPPED = frozenset({409, 412, 422})


@dataclass(frozen=True)
class Done:
    """What became of a thing that was decided: a word with colour and shape, and what else is to be said."""

    word: str
    tone: str = "green"
    shape: str = "dot"
    more: str = ""

    @property
    def words(self) -> str:
        """The word and the rest, as they stand in a sentence."""
        return f"{self.word}, {self.more}" if self.more else self.word


def _rejected(word: str) -> Done:
    return Done(word, "red", "cross")


def _approved(revision: Revision, word: str = "approved") -> Done:
    """Approved, and where it waits: approved is not yet reserved."""
    place = waits_in_line.place_of(revision.deployment_id)
    return Done(word, "purple", "diamond", place.words) if place else Done(word)


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

    def act() -> Done:
        approvals.decide(
            principal=principal,
            revision=revision,
            digest=request.POST.get("digest", ""),
            approve=approve,
            comment=request.POST.get("comment", ""),
        )
        return _approved(revision) if approve else _rejected("rejected")

    return _answered(request, principal, revision, act, _called(revision))


@require_POST
@signed_in
def decide_quota(request: PortalRequest, pk: int) -> HttpResponse:
    """Grant a request for quota as it was asked for, in part or otherwise, or deny it."""
    principal = principal_of(request)
    asked = QuotaRequest.objects.visible_to(principal).select_related("team", "flavor").filter(pk=pk).first()
    if asked is None:
        raise Http404
    grant = request.POST.get("verdict") == "approve"

    def act() -> Done:
        given = QuotaDecision.read(request.POST, asked) if grant else QuotaDecision()
        row = quota_requests.decide(
            principal=principal,
            request_id=asked.pk,
            grant=grant,
            comment=request.POST.get("comment", ""),
            flavor=given.flavor,
            gpus=given.gpus,
            valid_from=given.valid_from,
            valid_until=given.valid_until,
            beyond=given.beyond,
        )
        return Done("granted", more=granted_words(row)) if grant else _rejected("denied")

    return _answered(request, principal, asked, act, f"Quota of {asked.team.name}")


@require_POST
@signed_in
def call_emergency(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask a second admin to let through what its author cannot approve."""
    principal = principal_of(request)
    revision = _revision(principal, pk)

    def act() -> Done:
        emergencies.call(
            principal=principal,
            revision=revision,
            digest=request.POST.get("digest", ""),
            reason=request.POST.get("reason", ""),
        )
        return Done("called", "red", "triangle", "a second admin has an hour to sign it")

    name = f"An emergency for “{revision.deployment.name}”"
    return _answered(request, principal, revision, act, name, stays=True)


@require_POST
@signed_in
def withdraw_emergency(request: PortalRequest, pk: int) -> HttpResponse:
    """Take back an emergency that one called, while nobody has signed it."""
    principal = principal_of(request)
    row = emergencies.visible_to(principal).select_related("revision__deployment").filter(pk=pk).first()
    if row is None:
        raise Http404

    def act() -> Done:
        emergencies.withdraw(principal=principal, emergency_id=row.pk)
        return Done("withdrawn", "grey", "ring")

    name = f"The emergency for “{row.revision.deployment.name}”"
    return _answered(request, principal, row.revision, act, name, stays=True)


@require_POST
@signed_in
def sign_emergency(request: PortalRequest, pk: int) -> HttpResponse:
    """Approve with the admin who called it."""
    principal = principal_of(request)
    row = emergencies.visible_to(principal).select_related("revision__deployment").filter(pk=pk).first()
    if row is None:
        raise Http404

    def act() -> Done:
        emergencies.sign(principal=principal, emergency_id=row.pk, digest=request.POST.get("digest", ""))
        return _approved(row.revision, "approved in an emergency")

    return _answered(request, principal, row.revision, act, _called(row.revision))


@require_POST
@signed_in
def decide_all(request: PortalRequest) -> HttpResponse:
    """One word for everything that was selected: the page says what became of each."""
    principal = principal_of(request)
    approve = request.POST.get("verdict") == "approve"
    comment = request.POST.get("comment", "")[:LONGEST]
    error, results = "", []
    items = [item for text in request.POST.getlist("item")[:200] if (item := _item(text)) is not None]
    try:
        results = deciding.decide_all(
            principal=principal,
            items=items,
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
        "chosen": {_key(item) for item in items} if error else {_key(one.item) for one in results if not one.decided},
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
    act: Callable[[], Done],
    name: str,
    *,
    stays: bool = False,
) -> HttpResponse:
    """Do it; answer htmx with the card as it is then, and others with the page. A refusal stands at its field.

    The card of what `stays` waits on: it is shown again, as it is now.
    """
    key = f"r{row.pk}" if isinstance(row, Revision) else f"q{row.pk}"
    try:
        done = act()
    except MissingError:
        raise Http404 from None
    except DomainError as error:
        values = {name: str(value)[:LONGEST] for name, value in request.POST.items()}
        errors = error.errors if isinstance(error, DecisionError) else {error.field: error.message}
        said = {key: Refused(error.message, error.field, values, errors)}
        if is_htmx(request):
            status = error.status if error.status in SWAPPED else 422
            return _card_again(request, principal, row, said, status)
        if isinstance(error, InvalidError):
            page = inbox_page(principal, request.GET, said)
            return render(request, "pages/approvals.html", {"view": "waiting", **page}, status=422)
        return _refused(request, principal, row, name, said[key], error.status)
    if is_htmx(request) and stays:
        return _card_again(request, principal, row, {}, status=200)
    if is_htmx(request):
        context = {"row": row, "key": key, "done": done, "name": name}
        return _with_count(render(request, "parts/approval_done.html", context), principal)
    messages.success(request, f"{name} is {done.words}.")
    if request.POST.get("next") == "deployment" and isinstance(row, Revision):
        return redirect("deployment-detail", pk=row.deployment_id)
    return redirect("approvals")


def _card_again(
    request: PortalRequest,
    principal: Principal,
    row: Revision | QuotaRequest,
    said: dict[str, Refused],
    status: int = 422,
) -> HttpResponse:
    """The card with why it was refused; in its place a line, where it does not wait any more."""
    card = _card_now(principal, row, said)
    if card is None:
        key = f"r{row.pk}" if isinstance(row, Revision) else f"q{row.pk}"
        why = said[key].message if key in said else "This waits no more."
        return render(request, "parts/approval_gone.html", {"key": key, "why": why}, status=status)
    return render(request, "parts/approval_card.html", {"card": card}, status=status)


def _refused(
    request: PortalRequest,
    principal: Principal,
    row: Revision | QuotaRequest,
    name: str,
    refused: Refused,
    status: int,
) -> HttpResponse:
    """A page of its own: why, what waits in its place now, and what was typed."""
    newest = _newest_of(principal, row)
    key = f"r{newest.pk}" if isinstance(newest, Revision) else f"q{newest.pk}"
    card = _card_now(principal, newest, {key: refused})
    context = {"view": "waiting", "name": name, "refused": refused, "card": card}
    return render(request, "pages/approval_refused.html", context, status=status)


def _newest_of(principal: Principal, row: Revision | QuotaRequest) -> Revision | QuotaRequest:
    """The revision that waits in the place of this one; itself where none does."""
    if not isinstance(row, Revision):
        return row
    rows = pending_for(principal).filter(deployment=row.deployment_id)
    return rows.order_by("-number").first() or row


def _card_now(principal: Principal, row: Revision | QuotaRequest, said: dict[str, Refused]) -> dict[str, Any] | None:
    """The card of what waits; None where it waits no more for anybody whom this person could tell."""
    now: Any
    if isinstance(row, Revision):
        now = known(principal, pending_for(principal)).filter(pk=row.pk).first()
    else:
        now = quota_known(principal, row.pk)
    if now is None:
        return None
    (card,) = cards_of(principal, list(cases_of(principal, [now])), said)
    return card


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
