"""Accounts, for admins: who has one, and what is done when somebody leaves or an account is in wrong hands."""

from __future__ import annotations

from django.contrib import messages
from django.db.models import Q
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from deployments.models import Principal, User
from deployments.services import accounts
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from deployments.views.people import typed
from portal.lib.htmx import PortalRequest, page_or_partial, signed_in
from portal.lib.pages import keyset_page, query_with


@require_safe
@signed_in
def listed(request: PortalRequest) -> HttpResponse:
    """All accounts by name; to others than admins this address does not exist."""
    rows = accounts.listed(_admin(request))
    words = " ".join(request.GET.get("q", "").split())[:80]
    for word in words.split():
        named = Q(username__icontains=word) | Q(first_name__icontains=word) | Q(last_name__icontains=word)
        rows = rows.filter(named | Q(email__icontains=word))
    page = keyset_page(
        rows, order=("username",), after=request.GET.get("after", ""), before=request.GET.get("before", "")
    )
    keep = query_with({"q": words}).removeprefix("?") + "&" if words else ""
    context = {"page": page, "words": words, "keep": keep}
    return render(request, page_or_partial(request, "pages/people_accounts.html#rows"), context)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def account(request: PortalRequest, pk: int) -> HttpResponse:
    """One account and what can be done to it; a POST says what in `do`."""
    principal = _admin(request)
    row = get_object_or_404(accounts.listed(principal), pk=pk)
    errors, values = {}, typed(request, "do", "reason")
    if request.method == "POST":
        try:
            messages.success(request, _done(principal, row, **values))
        except DomainError as refused:
            errors = refused.by_field(values)
        else:
            return redirect("people-account", pk)
    context = {"row": row, "own": row.pk == principal.user.pk, "errors": errors, "values": values}
    return render(request, "pages/people_account.html", context, status=422 if errors else 200)


def _done(principal: Principal, row: User, *, do: str, reason: str) -> str:
    """Do it, and say so; Http404 for what there is not."""
    if do == "switch-off":
        accounts.switch_off(principal=principal, user=row, reason=reason)
        return f"{row.username} is switched off."
    if do == "switch-on":
        accounts.switch_on(principal=principal, user=row)
        return f"{row.username} is switched on again."
    if do == "end-sessions":
        accounts.end_sessions(principal=principal, user=row)
        return f"Sessions, tokens and keys of {row.username} are ended."
    if do == "take-admin":
        accounts.take_admin(principal=principal, user=row)
        return f"{row.username} is no platform admin any more."
    raise Http404


def _admin(request: PortalRequest) -> Principal:
    principal = principal_of(request)
    if not principal.is_admin:
        raise Http404
    return principal
