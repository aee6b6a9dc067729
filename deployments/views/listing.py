"""Lists of deployments: which ones, in which order, and how many of each kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Value, When
from django.db.models.fields.json import KeyTextTransform, KeyTransform

from deployments.models import Deployment, Principal
from portal.lib.pages import Page, keyset_page

State = Deployment.State

ATTENTION = (State.DEGRADED, State.STALLED, State.BLOCKED, State.FAILED)
WAITING = (
    State.AWAITING_APPROVAL,
    State.AWAITING_QUOTA,
    State.QUEUED,
    State.APPLYING,
    State.DOWNLOADING,
    State.STARTING,
)
SHOWN: dict[str, tuple[str, Q]] = {
    "all": ("All", Q()),
    "running": ("Running", Q(state=State.RUNNING)),
    "attention": ("Need attention", Q(state__in=ATTENTION)),
    "waiting": ("Waiting", Q(state__in=WAITING)),
}
SORTS: dict[str, tuple[str, ...]] = {
    "name": ("name", "pk"),
    "-name": ("-name", "-pk"),
    "team": ("team__slug", "name", "pk"),
    "-team": ("-team__slug", "-name", "-pk"),
    "state": ("state", "name", "pk"),
    "-state": ("-state", "-name", "-pk"),
    "gpus": ("latest__gpus", "pk"),
    "-gpus": ("-latest__gpus", "-pk"),
    "changed": ("-state_since", "-pk"),
    "-changed": ("state_since", "pk"),
    "urgent": ("urgency", "name", "pk"),
}


@dataclass(frozen=True)
class Wish:
    """What a list is asked for in its address; values that make no sense become the default."""

    show: str = "all"
    sort: str = "name"
    team: str = ""
    q: str = ""
    after: str = ""
    before: str = ""

    @classmethod
    def from_query(cls, query: Any, *, sort: str = "name") -> Wish:
        """Read the address of a page."""
        text = {name: str(query.get(name, "")).replace("\x00", "")[:512] for name in ("team", "q", "after", "before")}
        show, asked = query.get("show", "all"), query.get("sort", sort)
        return cls(
            show=show if show in SHOWN else "all",
            sort=asked if asked in SORTS else sort,
            team=text["team"][:40],
            q=text["q"].strip()[:80],
            after=text["after"],
            before=text["before"],
        )


@dataclass(frozen=True)
class Tab:
    """One filter above a list."""

    key: str
    label: str
    count: int
    current: bool
    href: str = ""


@dataclass(frozen=True)
class Listing:
    """A page of deployments and the filters above it."""

    page: Page = field(default_factory=Page)
    tabs: list[Tab] = field(default_factory=list)
    wish: Wish = field(default_factory=Wish)

    @property
    def pks(self) -> str:
        """The rows of this page, as the address of their figures names them."""
        return ",".join(str(row["pk"]) for row in self.page.rows)

    @property
    def total(self) -> int:
        return self.tabs[0].count if self.tabs else 0


def listing(principal: Principal, wish: Wish, *, size: int = 50) -> Listing:
    """Read one page and the counts. Two queries, however many deployments there are."""
    narrowed = _narrowed(Deployment.objects.visible_to(principal).alive(), wish)
    counts = narrowed.aggregate(**{key: Count("pk", filter=q) if q else Count("pk") for key, (_, q) in SHOWN.items()})
    rows = narrowed.filter(SHOWN[wish.show][1]).annotate(uri=_uri())
    if wish.sort == "urgent":
        rows = rows.annotate(urgency=_urgency())
    fields = ["pk", "name", "team__slug", "state", "state_since", "reason", "detail", "latest__gpus", "latest__number"]
    fields += ["latest__flavor__name", "applied_id", "approved__number", "wanted", "uri"]
    fields += ["urgency"] if wish.sort == "urgent" else []
    page = keyset_page(rows.values(*fields), order=SORTS[wish.sort], after=wish.after, before=wish.before, size=size)
    kept = {"team": wish.team, "q": wish.q, "sort": "" if wish.sort in {"name", "urgent"} else wish.sort}
    rest = {name: value for name, value in kept.items() if value}
    tabs = [
        Tab(key, label, counts[key], key == wish.show, f"?{urlencode({'show': key, **rest})}")
        for key, (label, _) in SHOWN.items()
    ]
    return Listing(page=page, tabs=tabs, wish=wish)


def _narrowed(rows: QuerySet[Deployment], wish: Wish) -> QuerySet[Deployment]:
    if wish.team:
        rows = rows.filter(team__slug=wish.team)
    if wish.q:
        rows = rows.annotate(uri_text=_uri()).filter(
            Q(name__icontains=wish.q) | Q(team__slug__icontains=wish.q) | Q(uri_text__icontains=wish.q)
        )
    return rows


def _uri() -> KeyTextTransform:
    return KeyTextTransform("uri", KeyTransform("source", "latest__spec"))


def _urgency() -> Case:
    return Case(
        When(state__in=ATTENTION, then=Value(0)),
        When(state__in=WAITING, then=Value(1)),
        When(state=State.RUNNING, then=Value(2)),
        default=Value(3),
        output_field=IntegerField(),
    )
