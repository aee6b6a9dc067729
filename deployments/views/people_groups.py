"""Rules about groups of the identity provider: which of them make members, leads and platform admins."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from deployments.models import GroupRule, Membership, Principal, Team
from deployments.services import groups
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from deployments.views.once import once
from deployments.views.people import at_field, typed
from portal.lib.htmx import PortalRequest, go_to, page_or_partial, signed_in
from portal.lib.pages import keyset_page

# What the form sends for a rule that makes platform admins: no slug looks like it.
ADMINS = "*"


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once
def rules(request: PortalRequest) -> HttpResponse:
    """All rules; a POST makes one. For admins alone."""
    principal = _admin(request)
    errors: dict[str, str] = {}
    values: dict[str, str] = {}
    if request.method == "POST":
        values = typed(request, "group", "team", "role")
        errors = _add(principal, values)
        if not errors:
            messages.success(request, "The rule holds from each person's next sign-in on.")
            return redirect("people-groups")
    context: dict[str, Any] = {
        "page": keyset_page(
            GroupRule.objects.select_related("team"),
            order=("group", "pk"),
            after=request.GET.get("after", ""),
            before=request.GET.get("before", ""),
        ),
        "roles": Membership.Role.choices,
        "admins": ADMINS,
        "sso": bool(settings.SOCIALACCOUNT_PROVIDERS),
        "claim": settings.OIDC_GROUPS_CLAIM,
        "only_groups": settings.OIDC_SIGNUP == "groups",
        "errors": errors,
        "values": values,
    }
    return render(request, "pages/people_groups.html", context, status=422 if errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def remove(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask, saying what ends, then remove a rule."""
    principal = _admin(request)
    rule = get_object_or_404(GroupRule.objects.select_related("team"), pk=pk)
    error = ""
    if request.method == "POST":
        try:
            groups.remove_rule(principal=principal, rule_id=pk)
        except DomainError as refused:
            error = refused.message
        else:
            messages.success(request, "The rule is removed.")
            return go_to(request, "/people/groups/")
    alone = not GroupRule.objects.filter(team=rule.team).exclude(pk=pk).exists()
    context = {"rule": rule, "alone": alone, "error": error}
    return render(request, page_or_partial(request, "pages/people_group_remove.html#box"), context)


def _add(principal: Principal, values: dict[str, str]) -> dict[str, str]:
    """Make a rule; returns what is wrong, by field."""
    team = None
    if values["team"] != ADMINS:
        team = Team.objects.active().filter(slug=values["team"]).first() if "\0" not in values["team"] else None
        if team is None:
            return {"team": "Choose a team."}
    try:
        groups.add_rule(principal=principal, group=values["group"], team=team, role=values["role"])
    except DomainError as error:
        return at_field(error, values)
    return {}


def _admin(request: PortalRequest) -> Principal:
    """The principal, if an admin; to others these pages do not exist."""
    principal = principal_of(request)
    if not principal.is_admin:
        raise Http404
    return principal
