"""People & access: teams with their members and roles. Leads and admins change them, members read."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from deployments.models import (
    Deployment,
    EndpointKey,
    Event,
    GroupRule,
    Invitation,
    Membership,
    Principal,
    Team,
    User,
)
from deployments.services import invitations, memberships, teams
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from deployments.views.once import once
from portal.lib.htmx import PortalRequest, go_to, page_or_partial, signed_in
from portal.lib.pages import keyset_page

PER_PAGE = 50
LONGEST_FIELD = 300


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once
def people(request: PortalRequest) -> HttpResponse:
    """The teams that one may see; an admin makes new ones here."""
    principal = principal_of(request)
    context: dict[str, Any] = {"errors": {}, "values": {}}
    status = 200
    if request.method == "POST":
        if not principal.is_admin:
            raise Http404
        values = typed(request, "slug", "name")
        try:
            made = teams.create(principal=principal, **values)
        except DomainError as error:
            context, status = {"errors": at_field(error, values), "values": values}, 422
        else:
            messages.success(request, f"{made.name} is made. Let its first lead in.")
            return redirect("people-team", made.slug)
    rows = Team.objects.visible_to(principal)
    archived = request.GET.get("archived") == "1"
    rows = rows.exclude(archived_at=None) if archived else rows.active()
    context["page"] = keyset_page(
        _counted(rows), order=("slug",), after=request.GET.get("after", ""), before=request.GET.get("before", "")
    )
    return render(request, "pages/people.html", context | {"archived": archived}, status=status)


@require_http_methods(["GET", "HEAD"])
@signed_in
def team(request: PortalRequest, slug: str) -> HttpResponse:
    """One team: who belongs to it, and for its leads and admins what they may change."""
    return team_page(request, team_of(request, slug))


@require_POST
@signed_in
def rename(request: PortalRequest, slug: str) -> HttpResponse:
    """Give a team another name for people."""
    row, values = managed_team_of(request, slug), typed(request, "name")
    try:
        renamed = teams.rename(principal=principal_of(request), team=row, name=values["name"])
    except DomainError as error:
        return team_page(request, row, form="rename", errors=at_field(error, values), values=values)
    messages.success(request, f"The team is called {renamed.name} now.")
    return redirect("people-team", slug)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def archive(request: PortalRequest, slug: str) -> HttpResponse:
    """Ask, saying what ends, then archive a team for good. Its name is typed: this cannot be undone."""
    principal, row = principal_of(request), team_of(request, slug)
    if not principal.is_admin or row.archived_at is not None:
        raise Http404
    error, typed_name = "", ""
    if request.method == "POST":
        typed_name = typed(request, "confirm")["confirm"]
        if typed_name != row.slug:
            error = f"Type {row.slug} to archive it."
        else:
            try:
                teams.archive(principal=principal, team=row)
            except DomainError as refused:
                error = refused.message
            else:
                messages.success(request, f"{row.name} is archived.")
                return go_to(request, "/people/")
    living = Deployment.objects.alive().filter(team=row).count()
    context = {"team": row, "living": living, "error": error, "typed": typed_name}
    return render(request, page_or_partial(request, "pages/people_archive.html#box"), context)


@require_POST
@signed_in
def member_add(request: PortalRequest, slug: str) -> HttpResponse:
    """Let somebody who has an account into the team."""
    row, values = managed_team_of(request, slug), typed(request, "username", "role")
    user = User.objects.filter(username=values["username"], is_active=True).first()
    if user is None:
        errors = {"username": "There is no account of this user name. Send an invitation instead."}
        return team_page(request, row, form="add", errors=errors, values=values)
    try:
        memberships.add(principal=principal_of(request), team=row, user=user, role=values["role"])
    except DomainError as error:
        return team_page(request, row, form="add", errors=at_field(error, values), values=values)
    messages.success(request, f"{user.get_full_name() or user.username} belongs to {row.name} now.")
    return redirect("people-team", slug)


@require_POST
@signed_in
def member_change(request: PortalRequest, slug: str, pk: int) -> HttpResponse:
    """Give a member another role."""
    row = managed_team_of(request, slug)
    member = get_object_or_404(row.memberships.select_related("user"), pk=pk)
    try:
        role = typed(request, "role")["role"]
        memberships.change(principal=principal_of(request), team=row, user=member.user, role=role)
    except DomainError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{member.user.username} is {role} of {row.name} now.")
    return redirect("people-team", slug)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def member_remove(request: PortalRequest, slug: str, pk: int) -> HttpResponse:
    """Ask, saying what ends, then take a member out; one's own membership is left."""
    principal, row = principal_of(request), team_of(request, slug)
    member = get_object_or_404(row.memberships.select_related("user"), pk=pk)
    own = member.user_id == principal.user.pk
    if not own and not manages(principal, row):
        raise Http404
    error = ""
    if request.method == "POST":
        try:
            if own:
                memberships.leave(principal=principal, team=row)
            else:
                memberships.remove(principal=principal, team=row, user=member.user)
        except DomainError as refused:
            error = refused.message
        else:
            words = f"You left {row.name}." if own else f"{member.user.username} is out of {row.name}."
            messages.success(request, words)
            stays = Team.objects.visible_to(principal).filter(pk=row.pk).exists()
            return go_to(request, f"/people/teams/{row.slug}/" if stays else "/people/")
    context = {"team": row, "member": member, "own": own, "error": error}
    return render(request, page_or_partial(request, "pages/people_remove.html#box"), context)


def team_page(
    request: PortalRequest,
    row: Team,
    *,
    form: str = "",
    errors: dict[str, str] | None = None,
    values: dict[str, str] | None = None,
) -> HttpResponse:
    """The page of a team, with what was typed into one of its forms and what is wrong with it."""
    principal = principal_of(request)
    may = row.archived_at is None and manages(principal, row)
    page = keyset_page(
        row.memberships.select_related("user"),
        order=("role", "user__username"),
        after=request.GET.get("after", ""),
        before=request.GET.get("before", ""),
        size=PER_PAGE,
    )
    context: dict[str, Any] = {
        "team": row,
        "page": page,
        "may": may,
        "own": next((member for member in page.rows if member.user_id == principal.user.pk), None)
        or row.memberships.filter(user=principal.user).first(),
        "roles": Membership.Role.choices,
        "form": form,
        "errors": errors or {},
        "values": values or {},
    }
    context["set_by"] = (
        Event.objects.filter(team=row, kind__in=("team_policy", "team_created")).select_related("actor").first()
    )
    if may:
        context["left"] = EndpointKey.objects.left_behind().filter(team=row).count()
        context["invitations"] = Invitation.objects.open().filter(team=row).select_related("invited_by")
        context["rules"] = GroupRule.objects.filter(team=row)
        context["most_days"], context["days"] = invitations.MOST_DAYS, invitations.DEFAULT_DAYS
    return render(request, "pages/people_team.html", context, status=422 if errors else 200)


def team_of(request: PortalRequest, slug: str) -> Team:
    """The team with this slug, if one may see it; 404 otherwise."""
    return get_object_or_404(Team.objects.visible_to(principal_of(request)), slug=slug)


def managed_team_of(request: PortalRequest, slug: str) -> Team:
    """The team with this slug, if one may change its people; 404 otherwise."""
    rows = Team.objects.active().visible_to(principal_of(request)).managed_by(principal_of(request))
    return get_object_or_404(rows, slug=slug)


def manages(principal: Principal, row: Team) -> bool:
    """True for the team's leads and for admins."""
    return Team.objects.managed_by(principal).filter(pk=row.pk).exists()


def typed(request: PortalRequest, *names: str) -> dict[str, str]:
    """What was typed into these fields, without the space around it, and no longer than any of them may be."""
    return {name: request.POST.get(name, "").strip()[:LONGEST_FIELD] for name in names}


def at_field(error: DomainError, values: dict[str, str]) -> dict[str, str]:
    """All that is wrong, at the fields that the form has."""
    return error.by_field(values)


def _counted(rows: QuerySet[Team]) -> QuerySet[Team]:
    def count(of: QuerySet[Any]) -> Any:
        counted = of.filter(team=OuterRef("pk")).order_by().values("team").annotate(n=Count("pk")).values("n")
        return Coalesce(Subquery(counted), 0)

    return rows.annotate(
        people=count(Membership.objects.all()),
        leads=count(Membership.objects.filter(role=Membership.Role.LEAD)),
        living=count(Deployment.objects.alive()),
        invited=count(Invitation.objects.open()),
    )
