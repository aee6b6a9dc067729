"""Endpoint keys of a team, what they used, and making, rotating and ending them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from deployments.manifests import route_prefix
from deployments.models import Deployment, EndpointKey, Principal, Team
from deployments.services import endpoint_keys as keys
from deployments.services import key_ends, usage
from deployments.services.errors import DomainError
from deployments.services.principals import principal_of
from deployments.services.tokens import digest_of
from deployments.views.once import Submission, once_showing, submission_of
from portal.lib.htmx import PortalRequest, go_to, page_or_partial, signed_in
from portal.lib.pages import keyset_page, query_with

USED_DAYS = 7
PER_PAGE = 30
ON_A_CARD = 5
GRACES = ((0, "Not at all: it ends now"), (1, "1 hour"), (24, "1 day"), (7 * 24, "7 days"))
FIELDS = ("name", "days", "requests_per_minute", "tokens_per_minute")


@dataclass(frozen=True)
class Field:
    """One field of the form, as it was typed."""

    name: str
    label: str
    help: str
    value: str
    error: str
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """One key as pages show it."""

    key: Any
    used: usage.Total


@require_safe
@signed_in
def key_list(request: PortalRequest) -> HttpResponse:
    """Keys that one may see, by team and deployment; those that ended when asked for."""
    principal = principal_of(request)
    wish = {name: request.GET.get(name, "")[:40] for name in ("team", "deployment", "ended", "left", "q")}
    rows = _narrowed(EndpointKey.objects.visible_to(principal), principal, wish)
    page = keyset_page(
        told(rows, principal),
        order=("-pk",),
        after=request.GET.get("after", ""),
        before=request.GET.get("before", ""),
        size=PER_PAGE,
    )
    used = usage.totals([key.pk for key in page.rows], since=usage.days_ago(USED_DAYS))
    keep = query_with({name: value for name, value in wish.items() if value}).removeprefix("?")
    context = {
        "page": page,
        "rows": [Row(key, used.get(key.pk, usage.NOTHING)) for key in page.rows],
        "wish": wish,
        "keep": f"{keep}&" if keep else "",
        "days": USED_DAYS,
        "left": EndpointKey.objects.manageable_by(principal).filter(**_of(wish["team"])).left_behind().count(),
        "grace": keys.DEFAULT_GRACE_HOURS,
        "for_new": query_with({}, deployment=wish["deployment"], team=wish["team"]),
    }
    return render(request, page_or_partial(request, "pages/keys.html#rows"), context)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once_showing
def create(request: PortalRequest) -> HttpResponse:
    """A form for one team; the key that a POST makes is shown once, in its own answer."""
    principal = principal_of(request)
    chosen = _asked_deployment(principal, request.GET.get("deployment", ""))
    teams = list(_teams(principal))
    slug = request.POST.get("team", "") or request.GET.get("team", "")
    team = chosen.team if chosen else next((row for row in teams if row.slug == slug), None)
    if team is None and slug:
        raise Http404
    if team is None and len(teams) == 1:
        team = teams[0]
    context: dict[str, Any] = {"teams": teams, "team": team, "errors": {}, "values": {"days": str(keys.DEFAULT_DAYS)}}
    if team is None or team not in teams:
        return render(request, "pages/keys_new.html", context | {"team": None})
    lead = keys.may_make_for_team(principal, team)
    reachable = list(Deployment.objects.callable_by(principal).filter(team=team).order_by("name")[:200])
    member = Team.objects.writable_by(principal).filter(pk=team.pk).exists()
    context |= {
        "deployments": reachable,
        "may_team": lead,
        "may_own": member,
        "own": not lead,
        "every": chosen is None,
        "chosen": {chosen.pk} if chosen else set(),
        "fields": _fields(context["values"], {}),
    }
    if request.method != "POST":
        return render(request, "pages/keys_new.html", context)
    submission = submission_of(request)
    if submission.again:
        return _shown_again(request, principal, submission)
    values = {name: request.POST.get(name, "").strip()[:100] for name in FIELDS}
    asked = {int(pk) for pk in request.POST.getlist("deployments") if pk.isascii() and pk.isdigit() and len(pk) < 12}
    every, own = request.POST.get("reach") == "every", request.POST.get("whose") == "own"
    try:
        key, text = keys.create(
            principal=principal,
            team=team,
            name=values["name"],
            personal=own,
            every_deployment=every,
            deployments=[] if every else [row for row in reachable if row.pk in asked],
            days=_number(values["days"]) or 0,
            limits=keys.Limits(*(_limit(values[name]) for name in FIELDS[2:])),
            text=submission.secret(keys.PREFIX),
        )
    except DomainError as error:
        errors = error.by_field({*FIELDS, "deployments", "personal"})
        context |= {"fields": _fields(values, errors), "errors": errors, "chosen": asked, "every": every, "own": own}
        return render(request, "pages/keys_new.html", context, status=422)
    return _shown_once(request, key, text)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@once_showing
def rotate(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask for how long the old key goes on, then make its successor, whose text is shown once."""
    principal = principal_of(request)
    if request.method != "POST":
        key = get_object_or_404(EndpointKey.objects.manageable_by(principal).select_related("team"), pk=pk)
        context = {"key": key, "graces": GRACES, "chosen": keys.DEFAULT_GRACE_HOURS}
        return render(request, page_or_partial(request, "pages/keys_rotate.html#box"), context)
    submission = submission_of(request)
    if submission.again:
        return _shown_again(request, principal, submission)
    grace = _number(request.POST.get("grace_hours", ""))
    try:
        key, text = keys.rotate(
            principal=principal,
            key_id=pk,
            grace_hours=-1 if grace is None else grace,
            text=submission.secret(keys.PREFIX),
        )
    except DomainError as error:
        if error.status == 404:
            raise Http404 from None
        messages.error(request, error.message)
        return go_to(request, reverse("keys"))
    return _shown_once(request, key, text)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def revoke(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask, saying who notices, then end the key."""
    principal = principal_of(request)
    if request.method != "POST":
        key = get_object_or_404(EndpointKey.objects.manageable_by(principal), pk=pk, revoked_at=None)
        used = usage.totals([key.pk], since=usage.days_ago(1)).get(key.pk, usage.NOTHING)
        return render(request, page_or_partial(request, "pages/keys_revoke.html#box"), {"key": key, "used": used})
    try:
        key = keys.revoke(principal=principal, key_id=pk)
    except DomainError as error:
        if error.status == 404:
            raise Http404 from None
        messages.error(request, error.message)
        return go_to(request, reverse("keys"))
    messages.success(request, f"Key “{key.name}” is revoked: within five seconds it opens nothing.")
    return go_to(request, _back(key.team, set()))


def told(rows: QuerySet[EndpointKey], principal: Principal) -> QuerySet[EndpointKey]:
    """Keys with what a row shows, in one query: names of what they open, whether they live and are the viewer's."""
    opened = EndpointKey.deployments.through.objects.filter(endpointkey=OuterRef("pk"))
    rotatable = Q(person=None) | Q(person=principal.user)
    return rows.select_related("team", "person", "created_by").annotate(
        opens=ArraySubquery(opened.order_by("deployment__name").values(name=F("deployment__name"))),
        left_behind=Exists(EndpointKey.objects.left_behind().filter(pk=OuterRef("pk"))),
        ends_soon=Exists(key_ends.ending().filter(pk=OuterRef("pk"))),
        alive=Exists(EndpointKey.objects.live().filter(pk=OuterRef("pk"))),
        managed=Exists(EndpointKey.objects.manageable_by(principal).filter(pk=OuterRef("pk"))),
        rotatable=Exists(
            EndpointKey.objects.manageable_by(principal)
            .filter(rotatable, pk=OuterRef("pk"))
            .exclude(
                pk__in=EndpointKey.objects.filter(revoked_at=None).exclude(rotated_from=None).values("rotated_from")
            )
        ),
    )


def of_deployment(principal: Principal, deployment: Deployment) -> list[EndpointKey]:
    """The living keys that open a deployment, the newest few, for its page."""
    rows = EndpointKey.objects.visible_to(principal).opening(deployment)
    living = rows.filter(pk__in=EndpointKey.objects.live().values("pk"))
    return list(told(living, principal).order_by("-pk")[: ON_A_CARD + 1])


def _fields(values: dict[str, str], errors: dict[str, str]) -> list[Field]:
    told = {
        "name": ("Name", "What uses it, as “search frontend”"),
        "days": ("Days", f"1 to {keys.MOST_DAYS}"),
        "requests_per_minute": ("Requests per minute", "Empty: no limit"),
        "tokens_per_minute": ("Tokens per minute", "Of prompts and answers. Empty: no limit"),
    }
    return [
        Field(name, *words, values.get(name, ""), errors.get(name, ""), name != "name") for name, words in told.items()
    ]


def _of(team: str) -> dict[str, str]:
    return {"team__slug": team} if team else {}


def _narrowed(rows: QuerySet[EndpointKey], principal: Principal, wish: dict[str, str]) -> QuerySet[EndpointKey]:
    if wish["team"]:
        rows = rows.filter(team__slug=wish["team"])
    if wish["q"]:
        rows = rows.filter(Q(name__icontains=wish["q"]) | Q(prefix__startswith=wish["q"]))
    if wish["deployment"]:
        found = _asked_deployment(principal, wish["deployment"])
        rows = EndpointKey.objects.filter(pk__in=rows.values("pk")).opening(found) if found else rows.none()
    if wish["left"]:
        return EndpointKey.objects.filter(pk__in=rows.values("pk")).left_behind()
    if not wish["ended"]:
        rows = rows.filter(pk__in=EndpointKey.objects.live().values("pk"))
    return rows


def _teams(principal: Principal) -> QuerySet[Team]:
    """Teams in which the principal may make a key of either kind."""
    governed, writable = Team.objects.governed_by(principal, "write"), Team.objects.writable_by(principal)
    return Team.objects.active().filter(Q(pk__in=governed.values("pk")) | Q(pk__in=writable.values("pk")))


def _asked_deployment(principal: Principal, text: str) -> Deployment | None:
    """The deployment that the address names; 404 for one that is not there to be seen."""
    if not text:
        return None
    number = _number(text)
    rows = Deployment.objects.alive().visible_to(principal).select_related("team")
    found = rows.filter(pk=number).first() if number is not None else None
    if found is None:
        raise Http404
    return found


def _shown_once(request: PortalRequest, key: EndpointKey, text: str) -> HttpResponse:
    """The answer that shows a new key: the only place where its text ever is."""
    rows = Deployment.objects.alive().filter(team=key.team).order_by("name")
    opened = list(rows[:1] if key.every_deployment else rows.filter(endpoint_keys=key))
    first = opened[0] if opened else None
    url = ""
    if first is not None:
        url = f"{settings.GATEWAY_PUBLIC_URL.rstrip('/')}{route_prefix(key.team.namespace, first.name)}/v1"
    made = {"name": key.name, "text": text, "url": url, "model": first.name if first else ""}
    back = _back(key.team, set() if key.every_deployment else {row.pk for row in opened})
    return render(request, "pages/keys_made.html", {"made": made, "team": key.team, "back": back}, status=201)


def _shown_again(request: PortalRequest, principal: Principal, submission: Submission) -> HttpResponse:
    """What the same form made a moment ago; the list when its text cannot be shown any more."""
    text = submission.secret(keys.PREFIX)
    if text is not None:
        made = EndpointKey.objects.live().filter(created_by=principal.user, digest=digest_of(text))
        key = made.select_related("team").first()
        if key is not None:
            return _shown_once(request, key, text)
    messages.warning(request, "This form was sent already. What it made was shown then.")
    return go_to(request, reverse("keys"))


def _back(team: Team, deployments: set[int]) -> str:
    """The list with the new key on it: of its one deployment, else of its team."""
    query = {"deployment": str(*deployments)} if len(deployments) == 1 else {"team": team.slug}
    return reverse("keys") + query_with(query)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _limit(text: str) -> int | None:
    """A limit as typed: none where nothing is, 0 (which is refused) where it is no number."""
    return (_number(text.replace(",", "")) or 0) if text else None
