"""The audit: who changed what, from what to what. Admins see all of it, leads what belongs to their teams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, time, timedelta
from typing import Any, cast

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from deployments.models import Event, Principal
from deployments.models.audit import EventQuerySet
from deployments.services.audit_export import KINDS, audited, audits, export
from deployments.services.principals import principal_of
from portal.lib import plain
from portal.lib.htmx import PortalRequest, page_or_partial, signed_in
from portal.lib.pages import keyset_page, query_with

ROWS = 50
FIELDS = ("team", "actor", "kind", "level", "deployment", "since", "until", "q")


@dataclass(frozen=True)
class Filter:
    """What the address asks for, as typed; `errors` says what could not be meant."""

    team: str = ""
    actor: str = ""
    kind: str = ""
    level: str = ""
    deployment: str = ""
    since: str = ""
    until: str = ""
    q: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_query(cls, query: Any) -> Filter:
        """Read the address of the page."""
        text = {name: " ".join(str(query.get(name, "")).replace("\0", "").split())[:150] for name in FIELDS}
        errors = {name: "There is no such day." for name in ("since", "until") if text[name] and not _day(text[name])}
        if text["level"] and text["level"] not in Event.Level.values:
            text["level"] = ""
        return cls(**text, errors=errors)

    @property
    def empty(self) -> bool:
        """True when everything is shown."""
        return not any(getattr(self, name) for name in FIELDS)

    def applied_to(self, rows: EventQuerySet) -> EventQuerySet:
        """The rows that are asked for; none where a day does not exist."""
        if self.errors:
            return rows.none()
        number = self.deployment if self.deployment.isascii() and self.deployment.isdigit() else ""
        until = _day(self.until)
        rows = rows.narrowed(
            team=self.team,
            actor=self.actor,
            kind=self.kind,
            level=self.level,
            deployment=min(int(number), 2**63 - 1) if number else self.deployment,
            since=_day(self.since),
            until=until + timedelta(days=1) if until else None,
        )
        return rows.search(self.q) if self.q else rows


@dataclass(frozen=True)
class Change:
    """One value that a change has changed."""

    name: str
    before: Any
    after: Any


@require_safe
@signed_in
def audit(request: PortalRequest) -> HttpResponse:
    """The page, and with `format=csv` or `jsonl` all of it as a file. To people who lead no team it does not exist."""
    principal = principal_of(request)
    if not audits(principal):
        raise Http404
    wish = Filter.from_query(request.GET)
    if (kind := request.GET.get("format", "")) in KINDS:
        answer = export(request, principal, wish.applied_to, kind)
        return cast(HttpResponse, answer)  # What is streamed has the same headers.
    rows = wish.applied_to(audited(principal))
    page = keyset_page(
        rows, order=("-pk",), after=request.GET.get("after", ""), before=request.GET.get("before", ""), size=ROWS
    )
    asked = {name: value for name, value in asdict(wish).items() if name != "errors" and value}
    context = {
        "wish": wish,
        "page": page,
        "lines": [(event, changes(event), link_of(event)) for event in page.rows],
        "kinds": choices_of(_kinds(principal)),
        "levels": Event.Level.choices,
        "newer": query_with(asked, before=page.before),
        "older": query_with(asked, after=page.after),
        "exports": {kind: query_with(asked, format=kind) for kind in KINDS},
    }
    return _page(request, context)


def _kinds(principal: Principal) -> list[str]:
    """Kinds that a person's own events have: those of other teams are not told either."""
    if principal.sees_all:
        return Event.objects.kinds()
    return list(audited(principal).order_by("kind").values_list("kind", flat=True).distinct())


def choices_of(kinds: list[str]) -> list[tuple[str, str]]:
    """Every kind with its words; before those that begin with the same word one that stands for all of them."""
    count = Counter(kind.partition("_")[0] for kind in kinds)
    found: dict[str, str] = {}
    for kind in kinds:
        word = kind.partition("_")[0]
        if count[word] > 1:
            found[f"{word}_*"] = f"{word.capitalize()}: all"
        found[kind] = kind.replace("_", " ").capitalize()
    return list(found.items())


def changes(event: Event) -> list[Change]:
    """What changed from what to what, by name; values of nested objects are told apart by dots."""
    before, after = _flat(event.data.get("before")), _flat(event.data.get("after"))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [Change(name, before.get(name), after.get(name)) for name in names]


def link_of(event: Event) -> str:
    """Where the thing stands that an event is about; empty where no page shows it."""
    if event.deployment is not None:
        return "" if event.deployment.deleted_at else reverse("deployment-detail", args=[event.deployment_id])
    slug = event.team.slug if event.team else ""
    for beginning, name, query in PLACES:
        if event.kind.startswith(beginning):
            try:
                return reverse(name) + (f"?team={slug}" if query and slug else "")
            except NoReverseMatch:
                return ""
    return ""


# Kinds of events that are about no deployment, the page that shows their objects, and whether it takes a team.
PLACES = (
    ("key_", "keys", True),
    ("flavor_", "flavors", False),
    ("group_rule_", "people-groups", False),
    ("member_", "people", False),
    ("invit", "people", False),
    ("team_", "people", False),
    ("quota_", "quotas", True),
    ("grant_", "quotas", True),
    ("gpus_", "quotas", True),
)


def _page(request: PortalRequest, context: dict[str, Any]) -> HttpResponse:
    return render(request, page_or_partial(request, "pages/audit.html#rows"), context)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        inner: dict[str, Any] = {}
        for name, below in value.items():
            inner |= _flat(below, f"{path}.{name}" if path else str(name))
        return inner
    return {path: value} if path else {}


def _day(text: str) -> datetime | None:
    """The first moment of a day; None for no day or one that does not exist."""
    try:
        day = plain.day(text)
        return timezone.make_aware(datetime.combine(day, time())) if day and 1970 <= day.year <= 9000 else None
    except ValueError:
        return None
