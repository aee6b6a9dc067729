"""What people do on the page of quotas: leads ask and take back, admins grant and change what they granted."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from deployments.forms.quota import QuotaForm
from deployments.models import Deployment, Flavor, Principal, QuotaGrant, Team
from deployments.services import flavors, grants, quota_requests
from deployments.services.errors import DomainError, MissingError
from deployments.services.grants import KEPT, Kept
from deployments.services.principals import principal_of
from deployments.services.text import gpus_in_words
from deployments.views.once import once
from deployments.views.quotas import page_of
from portal.lib.htmx import PortalRequest, signed_in

ASK_FIELDS = ("team", "flavor", "gpus", "valid_from", "valid_until", "why")
GRANT_FIELDS = ("team", "flavor", "gpus", "valid_from", "until", "comment")
CHANGE_FIELDS = ("gpus", "until", "comment")
# What the services call a field that these forms call otherwise.
CALLED = {"valid_until": "until"}


@require_POST
@signed_in
@once
def ask(request: PortalRequest) -> HttpResponse:
    """A lead asks admins for GPUs."""
    principal = principal_of(request)
    form = QuotaForm(request.POST, ASK_FIELDS)
    team = form.team(Team.objects.active().visible_to(principal))
    flavor, gpus = form.flavor(), form.gpus()
    since, until = _beginning(form), form.day("valid_until")
    # Of a field that could not be read something stands in that is right, so that the others are looked at too.
    form.also(lambda: quota_requests.checked(gpus=gpus or 1, why=form.text["why"], valid_from=since, valid_until=until))
    if not form.errors and team is not None and flavor is not None and gpus is not None:
        try:
            quota_requests.ask(
                principal=principal,
                team=team,
                flavor=flavor,
                gpus=gpus,
                why=form.text["why"],
                valid_from=since,
                valid_until=until,
            )
        except DomainError as error:
            form.add(error)
        else:
            messages.success(request, f"{gpus_in_words(gpus)} of {flavor.name} asked for. An admin decides.")
            return _back(request, principal, f"{reverse('quotas')}?show=requests&team={team.slug}")
    return _again(request, principal, "requests", ask=form.text, ask_errors=form.errors)


@require_POST
@signed_in
def withdraw(request: PortalRequest, pk: int) -> HttpResponse:
    """Take a request back."""
    principal = principal_of(request)
    try:
        row = quota_requests.withdraw(principal=principal, request_id=pk)
    except MissingError:
        raise Http404 from None
    except DomainError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"The request for {row.gpus} × {row.flavor.name} is withdrawn.")
    return _back(request, principal, f"{reverse('quotas')}?show=requests")


@require_POST
@signed_in
@once
def grant(request: PortalRequest) -> HttpResponse:
    """An admin grants a team GPUs; to others this address does not exist."""
    principal = principal_of(request)
    if not principal.is_admin:
        raise Http404
    form = QuotaForm(request.POST, GRANT_FIELDS)
    team, flavor = form.team(Team.objects.active()), form.flavor()
    gpus, since, until = form.gpus(), _beginning(form), form.day("until")
    comment = form.text["comment"]
    form.also(lambda: grants.checked(gpus=gpus or 1, since=since, until=until, comment=comment), CALLED)
    if not form.errors and team is not None and flavor is not None and gpus is not None:
        try:
            grants.grant(
                principal=principal, team=team, flavor=flavor, gpus=gpus, since=since, until=until, comment=comment
            )
        except DomainError as error:
            form.add(error, CALLED)
        else:
            when = f" from {since:%-d %b %Y} on" if since else ""
            messages.success(request, f"{team.name} may hold {gpus_in_words(gpus)} of {flavor.name} more{when}.")
            _warn(request, flavor)
            return redirect("quotas")
    return _again(request, principal, "grants", grant=form.text, errors=form.errors)


@require_POST
@signed_in
def change(request: PortalRequest, pk: int) -> HttpResponse:
    """An admin cuts, raises, ends or prolongs a grant; to others this address does not exist."""
    principal = principal_of(request)
    row = QuotaGrant.objects.writable_by(principal).select_related("team", "flavor").filter(pk=pk).first()
    if row is None:
        raise Http404
    form = QuotaForm(request.POST, CHANGE_FIELDS)
    gpus = form.gpus(least=0)
    # Emptied: the grant has no end any more.
    until: datetime | Kept | None = form.day("until") if "until" in request.POST else KEPT
    if isinstance(until, datetime) and row.valid_until and until.date() == timezone.localdate(row.valid_until):
        until = KEPT  # The day stays as it is, to the second.
    comment, end = form.text["comment"], until
    form.also(lambda: grants.checked(gpus=gpus or 1, since=None, until=None, comment=comment))
    if isinstance(end, datetime):
        form.also(lambda: grants.check_end(row, end), CALLED)
    if not form.errors:
        try:
            grants.change_grant(
                principal=principal,
                grant_id=pk,
                gpus=gpus,
                until=until,
                comment=comment,
                # As the page showed it: who looks at an old page changes nothing that they have not seen.
                seen=request.POST.get("seen") or None,
            )
        except DomainError as error:
            form.add(error, CALLED)
        else:
            messages.success(request, f"The grant of {row.team.name} is changed. What runs goes on.")
            _warn(request, row.flavor)
            ends = "show=ends&" if request.POST.get("show") == "ends" else ""
            return redirect(f"{reverse('quotas')}?{ends}team={row.team.slug}")
    return _again(request, principal, "grants", changing=pk, change=form.text, change_errors=form.errors)


def _beginning(form: QuotaForm) -> datetime | None:
    """The first moment of the day that was typed; None for today: as soon as it is granted."""
    since = form.day("valid_from", time.min)
    return None if since is not None and since.date() == timezone.localdate() else since


def _warn(request: PortalRequest, flavor: Flavor) -> None:
    """Say where more is promised by now than there is: hardware may be on its way, so it is no reason to refuse."""
    if words := flavors.capacity_of(flavor).beyond_words:
        messages.warning(request, words)


def _back(request: PortalRequest, principal: Principal, otherwise: str) -> HttpResponse:
    """To the deployment on whose page the button was, where it was on one; else to `otherwise`."""
    text = request.POST.get("deployment", "")
    pk = int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else 0
    if pk and Deployment.objects.visible_to(principal).filter(pk=pk).exists():
        return redirect("deployment-detail", pk=pk)
    return redirect(otherwise)


def _again(request: PortalRequest, principal: Principal, show: str, **more: Any) -> HttpResponse:
    """The tab with what was typed, and what is wrong beside it."""
    return render(request, "pages/quotas.html", page_of(request, principal, show) | more, status=422)
