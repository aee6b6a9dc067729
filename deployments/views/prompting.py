"""The prompt page: a conversation with one deployment, and the same as curl and Python."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from deployments.services.principals import principal_of
from deployments.views.detail import header, visible
from portal.lib.htmx import PortalRequest, signed_in


@require_safe
@signed_in
def prompt(request: PortalRequest, pk: int) -> HttpResponse:
    """The page; answers stream through /live/prompt/."""
    principal = principal_of(request)
    row = visible(principal, pk)
    return render(request, "deployments/prompt.html", header(principal, row, "prompt"))
