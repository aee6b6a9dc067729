"""Credentials of a team: which there are and how they stand, and entering, entering again and deleting them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from deployments.models import Credential, Principal, Team
from deployments.services import credentials, sealing
from deployments.services.credential_values import NAMES, PARTS, TEST_EXAMPLES, Part
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from deployments.views.once import once
from portal.lib.htmx import PortalRequest, go_to, page_or_partial, signed_in
from portal.lib.pages import keyset_page, query_with

PER_PAGE = 30
FORM = "pages/credential_form.html"
TONES = {Credential.State.READY: "green", Credential.State.PENDING: "azure", Credential.State.ENTER_AGAIN: "yellow"}
# What keeps the value that was entered last from being used, in words.
PROBLEMS = {
    "expired": "The value was not stored within ten minutes. Enter it again.",
    "unfit": "The value could not be opened. Enter it again.",
    "bad_token": "The value was not accepted. Enter another.",
    "no_key": "The workers have no key for it: an admin must set SLIPWAY_SEAL_PRIVATE_KEYS.",
    "permission": "Slipway may not make Secrets on the cluster: an admin must install its roles (k8s/portal).",
}
TROUBLE = "The cluster does not take it for now. Slipway goes on trying."


@dataclass(frozen=True)
class Field:
    """One part in the form. What is secret is never filled in again."""

    part: Part
    value: str
    error: str


@dataclass(frozen=True)
class Row:
    """One credential as the list shows it."""

    credential: Any
    tone: str
    label: str
    problem: str
    fingerprint: str
    settings: dict[str, str]


@require_safe
@signed_in
def credential_list(request: PortalRequest) -> HttpResponse:
    """Credentials of the teams that one may see, by team."""
    principal = principal_of(request)
    team = request.GET.get("team", "")[:40]
    rows = Credential.objects.visible_to(principal)
    if team:
        rows = rows.filter(team__slug=team)
    page = keyset_page(
        rows.told().with_users().select_related("team", "current").prefetch_related("versions"),
        order=("-pk",),
        after=request.GET.get("after", ""),
        before=request.GET.get("before", ""),
        size=PER_PAGE,
    )
    managed = set(Team.objects.managed_by(principal).active().values_list("pk", flat=True))
    keep = query_with({"team": team} if team else {}).removeprefix("?")
    found = [_row(item) for item in page.rows]
    context = {
        "page": page,
        "rows": found,
        "team": team,
        "managed": managed,
        "may_add": bool(managed),
        "can_seal": sealing.can_seal(),
        # Looked at again while a value is on its way.
        "moving": any(getattr(row.credential, "waiting", False) for row in found),
        "again": request.get_full_path(),
        "keep": f"{keep}&" if keep else "",
    }
    return render(request, page_or_partial(request, "pages/credentials.html#rows"), context)


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once
def create(request: PortalRequest) -> HttpResponse:
    """A form for one team and one kind."""
    principal = principal_of(request)
    teams = list(Team.objects.managed_by(principal).active().distinct().order_by("slug"))
    asked = request.POST if request.method == "POST" else request.GET
    slug, kind = asked.get("team", ""), asked.get("kind", "") or Credential.Kind.HF
    team = next((row for row in teams if row.slug == slug), None)
    if (slug and team is None and not _is_seen(principal, slug)) or kind not in Credential.Kind.values:
        raise Http404
    if team is None and len(teams) == 1 and not slug:
        team = teams[0]
    context: dict[str, Any] = {"teams": teams, "team": team, "can_seal": sealing.can_seal()}
    context["action"] = reverse("credentials-create")
    if team is None:
        return render(request, FORM, context, status=403 if request.method == "POST" else 200)
    values = {name: asked.get(name, "") for name in ("name", "test_uri", *_shown(kind))}
    values["test_uri"] = values["test_uri"] or request.GET.get("model", "")[:512]
    context |= {"kind": kind, "kinds": Credential.Kind.choices, "values": values}
    context["test_example"] = TEST_EXAMPLES[kind]
    if request.method != "POST":
        return render(request, FORM, context | {"fields": _fields(kind, values, {}), "errors": {}})
    try:
        made = credentials.create(
            principal=principal,
            team=team,
            name=request.POST.get("name", "").strip(),
            kind=kind,
            fields=_entered(request),
            test_uri=request.POST.get("test_uri", "").strip(),
        )
    except DomainError as error:
        return _again(request, error, context, kind)
    messages.success(request, f"“{made.name}” is being tested and stored. Its value is not shown again.")
    return redirect(reverse("credentials") + query_with({"team": team.slug}))


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once
def rotate(request: PortalRequest, pk: int) -> HttpResponse:
    """A form for a new value of one credential."""
    principal = principal_of(request)
    rows = Credential.objects.manageable_by(principal).select_related("team", "current")
    if request.method != "POST":
        row = get_object_or_404(rows, pk=pk)
    else:
        seen = Credential.objects.visible_to(principal).select_related("team", "current")
        row = get_object_or_404(seen, pk=pk)
        if not rows.filter(pk=pk).exists():
            messages.error(request, "Only leads of the team and admins change its credentials.")
            return redirect("credentials")
    newest = row.versions.order_by("-number").first()
    known = dict(newest.settings) if newest else {}
    known |= {"test_uri": row.test_uri}
    values = {name: request.POST.get(name) or known.get(name, "") for name in (*_shown(row.kind), "test_uri")}
    if request.method == "POST":
        values["test_uri"] = request.POST.get("test_uri", "")
    context: dict[str, Any] = {"credential": row, "team": row.team, "kind": row.kind, "values": values}
    context["action"] = reverse("credentials-rotate", args=[pk])
    context |= {
        "can_seal": sealing.can_seal(),
        "users": sorted(credentials.users_of(row).values_list("name", flat=True)),
        "test_example": TEST_EXAMPLES[row.kind],
    }
    if request.method != "POST":
        return render(request, FORM, context | {"fields": _fields(row.kind, values, {}), "errors": {}})
    try:
        credentials.rotate(
            principal=principal, credential_id=pk, fields=_entered(request), test_uri=values["test_uri"].strip()
        )
    except DomainError as error:
        return _again(request, error, context, row.kind)
    messages.success(request, f"The new value of “{row.name}” is being tested and stored.")
    return redirect(reverse("credentials") + query_with({"team": row.team.slug}))


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def delete(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask, saying who uses it, then delete it."""
    principal = principal_of(request)
    if request.method != "POST":
        row = get_object_or_404(Credential.objects.manageable_by(principal).select_related("team").with_users(), pk=pk)
        return render(request, page_or_partial(request, "pages/credential_delete.html#box"), {"credential": row})
    try:
        credentials.delete(principal=principal, credential_id=pk)
    except DomainError as error:
        if error.status == 404:
            raise Http404 from None
        messages.error(request, error.message)
    else:
        messages.success(request, "The credential is deleted; its Secret is being removed from the cluster.")
    return go_to(request, reverse("credentials"))


def _again(request: PortalRequest, error: DomainError, context: dict[str, Any], kind: str) -> HttpResponse:
    """The form with what was typed, secrets left out, and the message where it belongs."""
    if error.status == 404:
        raise Http404 from None
    places = {"name", "test_uri", *(part.name for part in PARTS[kind])}
    errors = {error.field if error.field in places else "form": error.message}
    fields = _fields(kind, context["values"], errors)
    return render(request, FORM, context | {"errors": errors, "fields": fields}, status=422)


def _row(row: Any) -> Row:
    newest = max(row.versions.all(), key=lambda version: version.number, default=None)
    shown = row.current or newest
    problem = PROBLEMS.get(row.problem, TROUBLE) if row.problem else ""
    if row.problem and row.current_id is not None:
        problem += " Until then the value before stays in use."
    return Row(
        credential=row,
        tone=TONES[Credential.State(row.state)],
        label=Credential.State(row.state).label.lower(),
        problem=problem,
        fingerprint=shown.fingerprint if shown else "",
        settings=dict(shown.settings) if shown else {},
    )


def _fields(kind: str, values: dict[str, str], errors: dict[str, str]) -> list[Field]:
    return [
        Field(part, "" if part.secret else values.get(part.name, ""), errors.get(part.name, "")) for part in PARTS[kind]
    ]


def _shown(kind: str) -> list[str]:
    return [part.name for part in PARTS[kind] if not part.secret]


def _entered(request: PortalRequest) -> dict[str, str]:
    return {name: request.POST[name] for name in NAMES if name in request.POST}


def _is_seen(principal: Principal, slug: str) -> bool:
    return Team.objects.active().visible_to(principal).filter(slug=slug).exists()
