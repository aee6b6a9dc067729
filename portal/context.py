"""What every page shows around its content: teams, freshness of the cluster, what waits. One query."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from deployments.models import User
from deployments.views.frame import Frame, frame_of

# The watcher writes `seen_at` every few seconds; past this age what pages show is called old.
FRESH = timedelta(seconds=45)


@dataclass(frozen=True)
class Freshness:
    """How far what pages say of the cluster can be trusted."""

    seen_at: datetime | None
    trouble: str
    tone: str
    shape: str
    known: bool


def freshness(seen_at: datetime | None, trouble: str) -> Freshness:
    """Live, old or lost, by when the watcher last saw the cluster."""
    if seen_at is None:
        return Freshness(None, trouble, "red" if trouble else "grey", "cross" if trouble else "ring", False)
    if trouble:
        return Freshness(seen_at, trouble, "red", "cross", True)
    if timezone.now() - seen_at > FRESH:
        return Freshness(seen_at, "", "yellow", "triangle", True)
    return Freshness(seen_at, "", "green", "dot", True)


class Site:
    """Read lazily by templates, so that a page that shows no frame asks the database nothing."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self._frame: Frame | None = None

    @property
    def frame(self) -> Frame:
        if self._frame is None:
            user = self.request.user
            self._frame = frame_of(user) if isinstance(user, User) and user.is_active else Frame()
        return self._frame

    @property
    def cluster(self) -> Freshness:
        return freshness(self.frame.seen_at, self.frame.trouble)

    @property
    def team(self) -> str:
        """The team that the page is narrowed to, if it is one that the person may see."""
        slug = self.request.GET.get("team", "")
        return slug if any(team["slug"] == slug for team in self.frame.teams) else ""


def site(request: HttpRequest) -> dict[str, Any]:
    """The context processor: `site`, `sandbox` and `section` (which entry of the navigation is current)."""
    match = request.resolver_match
    return {
        "site": SimpleLazyObject(lambda: Site(request)),
        "sandbox": settings.SLIPWAY_SANDBOX,
        "section": (match.kwargs.get("section") or match.url_name or "").partition("-")[0] if match else "",
    }
