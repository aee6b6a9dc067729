"""What concerns me: my notices, newest first, and whether they are mailed too."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from deployments.models import Notification
from deployments.services import notices as services
from deployments.services.errors import MissingError
from deployments.services.principals import principal_of
from portal.lib.htmx import PortalRequest, signed_in
from portal.lib.pages import keyset_page, query_with

ROWS = 30


@require_safe
@signed_in
def notices(request: PortalRequest) -> HttpResponse:
    """The page; `?show=unread` leaves out what was read."""
    rows = Notification.objects.visible_to(principal_of(request)).select_related("event__team", "event__actor")
    unread = request.GET.get("show") == "unread"
    if unread:
        rows = rows.unread()
    page = keyset_page(
        rows, order=("-pk",), after=request.GET.get("after", ""), before=request.GET.get("before", ""), size=ROWS
    )
    asked = {"show": "unread"} if unread else {}
    context = {
        "page": page,
        "unread": unread,
        "newest": max((row.pk for row in page.rows), default=0),
        "newer": query_with(asked, before=page.before),
        "older": query_with(asked, after=page.after),
    }
    return render(request, "pages/notices.html", context)


@require_safe
@signed_in
def bell(request: PortalRequest) -> HttpResponse:
    """The bell with its count, for the top bar."""
    return render(request, "parts/bell.html")


@require_POST
@signed_in
def read(request: PortalRequest, pk: int) -> HttpResponse:
    """Mark one as read, and with `open` go where it leads."""
    try:
        row = services.read(principal=principal_of(request), pk=pk)
    except MissingError:
        raise Http404 from None
    return redirect(row.link if row.link and "open" in request.POST else "notices")


@require_POST
@signed_in
def read_all(request: PortalRequest) -> HttpResponse:
    """Mark as read what the page showed and what is older: not what came since."""
    text = request.POST.get("upto", "")
    upto = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
    services.read_all(principal=principal_of(request), upto=upto)
    return redirect("notices")


@require_POST
@signed_in
def mail(request: PortalRequest) -> HttpResponse:
    """Switch mails on or off."""
    wanted = request.POST.get("mail_notices") == "on"
    services.set_mail(principal=principal_of(request), wanted=wanted)
    messages.success(request, "Notices are sent by e-mail too." if wanted else "Notices are no longer sent by e-mail.")
    return redirect("account")
