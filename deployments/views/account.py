"""The account page: who I am, my API tokens, my theme."""

from __future__ import annotations

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import messages
from django.db.models import Exists, OuterRef
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from deployments.models import ApiToken, Membership, Principal
from deployments.services import tokens
from deployments.services.errors import DomainError
from deployments.services.principals import ALL_SCOPES, principal_of
from deployments.views.once import Submission, once_showing, submission_of
from portal.lib.htmx import PortalRequest, page_or_partial, signed_in

SCOPES = {
    "read": "See deployments, quotas and logs",
    "write": "Ask for models, edit, stop and delete them; brings read",
    "approve": "Approve and reject requests; brings read",
    "invoke": "Call endpoints",
}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once_showing
def account(request: PortalRequest) -> HttpResponse:
    """The page; a POST makes a token, and its own answer alone shows it: nothing of it is stored on the way."""
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
            made = _made(submission_of(request), principal, request.POST.get("name", ""), chosen, number)
        except DomainError as error:
            context["errors"] = {error.field or "form": error.message}
            status = 422
        else:
            if made is None:
                messages.warning(request, "This form was sent already. What it made was shown then.")
                return redirect("account")
            context |= {"made": made, "chosen": {"read"}, "values": {"days": "90"}}
            status = 201
    alive = Exists(ApiToken.objects.live().filter(pk=OuterRef("pk")))
    context["tokens"] = ApiToken.objects.filter(user=principal.user).annotate(alive=alive).order_by("-pk")[:100]
    context["memberships"] = (
        Membership.objects.filter(user=principal.user).select_related("team").order_by("team__slug")
    )
    context["links"] = SocialAccount.objects.filter(user=principal.user).order_by("pk")
    context["lapsed"] = not principal.user.keeps_groups and (
        principal.user.admin_by_group or any(row.by_group for row in context["memberships"])  # type: ignore[attr-defined]
    )
    return render(request, "pages/account.html", context, status=status)


def _made(
    submission: Submission, principal: Principal, name: str, scopes: list[str], days: int
) -> dict[str, str] | None:
    """The new token and its text; the same for the same form sent twice. None when it cannot be shown any more."""
    text = submission.secret(tokens.PREFIX)
    if not submission.again:
        token, text = tokens.create(principal=principal, name=name, scopes=scopes, days=days, text=text)
        return {"name": token.name, "text": text}
    if text is None:
        return None
    mine = ApiToken.objects.live().filter(user=principal.user, digest=tokens.digest_of(text)).first()
    return {"name": mine.name, "text": text} if mine is not None else None


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
