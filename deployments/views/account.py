"""The account page: who I am, my API tokens, my theme."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from deployments.models import ApiToken, Membership
from deployments.services import tokens
from deployments.services.errors import DomainError
from deployments.services.principals import ALL_SCOPES, principal_of
from portal.lib.htmx import PortalRequest, page_or_partial, signed_in

SCOPES = {
    "read": "See deployments, quotas and logs",
    "write": "Ask for models, edit, stop and delete them",
    "approve": "Approve and reject requests",
    "invoke": "Call endpoints",
}

JUST_MADE = "token_just_made"


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def account(request: PortalRequest) -> HttpResponse:
    """The page; a POST makes a token, which the page behind it shows this once: loading it again makes no second."""
    principal = principal_of(request)
    context: dict[str, object] = {"scopes": SCOPES, "chosen": {"read"}, "errors": {}, "values": {"days": "90"}}
    context |= {"most_days": tokens.MOST_DAYS, "sends_mail": settings.SENDS_MAIL}
    status = 200
    if request.method == "POST":
        chosen = [scope for scope in request.POST.getlist("scopes") if scope in ALL_SCOPES]
        days = request.POST.get("days", "").strip()
        context |= {"chosen": set(chosen), "values": {"name": request.POST.get("name", ""), "days": days}}
        try:
            number = int(days) if days.isascii() and days.isdigit() and len(days) < 6 else 0
            token, text = tokens.create(
                principal=principal, name=request.POST.get("name", ""), scopes=chosen, days=number
            )
        except DomainError as error:
            context["errors"] = {error.field or "form": error.message}
            status = 422
        else:
            request.session[JUST_MADE] = {"name": token.name, "text": text}
            return redirect("account")
    elif request.method == "GET":
        context["made"] = request.session.pop(JUST_MADE, None)
    context["tokens"] = ApiToken.objects.filter(user=principal.user).order_by("-pk")[:100]
    context["memberships"] = (
        Membership.objects.filter(user=principal.user).select_related("team").order_by("team__slug")
    )
    return render(request, "pages/account.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def revoke(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask, saying who notices, then end the token at once."""
    if request.method != "POST":
        own = get_object_or_404(ApiToken.objects.live(), pk=pk, user=principal_of(request).user)
        return render(request, page_or_partial(request, "pages/account_revoke.html#box"), {"token": own})
    try:
        token = tokens.revoke(principal=principal_of(request), token_id=pk)
    except DomainError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"Token “{token.name}” is revoked.")
    return redirect("account")
