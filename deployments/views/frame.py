"""What stands around every page, in one query: the person's teams, the cluster's freshness, what waits for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Count, OuterRef, Subquery, Value
from django.db.models.functions import Coalesce, JSONObject
from django.utils.dateparse import parse_datetime

from deployments.models import Cluster, Membership, Notification, Principal, Team, User
from deployments.services.inbox import quota_undecided, undecided


@dataclass(frozen=True)
class Frame:
    """Plain values for the sidebar and the top bar."""

    teams: list[dict[str, Any]] = field(default_factory=list)
    leads: bool = False
    is_admin: bool = False
    waiting: int = 0
    # Unread notices; 100 stands for more, too.
    notices: int = 0
    seen_at: datetime | None = None
    trouble: str = ""

    @property
    def asks(self) -> bool:
        """False for an admin of no team, who has nobody to ask for a model for; others are told how to join one."""
        return not self.is_admin or any(team["role"] for team in self.teams)

    @property
    def decides(self) -> bool:
        """True for people whose word requests wait for."""
        return self.is_admin or self.leads


def frame_of(user: User) -> Frame:
    """Read the frame for one person."""
    principal = Principal(user=user)
    teams = Team.objects.visible_to(principal).active()
    role = Membership.objects.in_force().filter(team=OuterRef("pk"), user=user).values("role")[:1]
    row = (
        User.objects.filter(pk=user.pk)
        .annotate(
            frame_teams=ArraySubquery(
                teams.order_by("slug").values(
                    data=JSONObject(slug="slug", name="name", role=Coalesce(Subquery(role), Value("")))
                )
            ),
            frame_waiting=Coalesce(Subquery(_count(undecided(principal))), 0)
            + Coalesce(Subquery(_count(quota_undecided(principal))), 0),
            frame_notices=Coalesce(Subquery(_count(_unread(principal))), 0),
            frame_cluster=ArraySubquery(
                Cluster.objects.order_by("pk").values(data=JSONObject(seen="seen_at", trouble="trouble"))[:1]
            ),
        )
        .values("frame_teams", "frame_waiting", "frame_notices", "frame_cluster")
        .first()
    )
    if row is None:
        return Frame()
    cluster = row["frame_cluster"][0] if row["frame_cluster"] else {"seen": None, "trouble": ""}
    return Frame(
        teams=row["frame_teams"],
        leads=any(team["role"] == Membership.Role.LEAD for team in row["frame_teams"]),
        is_admin=principal.is_admin,
        waiting=row["frame_waiting"],
        notices=row["frame_notices"],
        seen_at=parse_datetime(cluster["seen"]) if cluster["seen"] else None,
        trouble=str(cluster["trouble"] or ""),
    )


def _unread(principal: Principal) -> Any:
    """The first hundred unread notices, so that a person with thousands waits no longer for a page."""
    unread = Notification.objects.visible_to(principal).unread().order_by()
    return Notification.objects.filter(pk__in=unread.values("pk")[:100])


def _count(rows: Any) -> Any:
    """`rows` counted, as a subquery of one value."""
    return rows.order_by().annotate(one=Value(1)).values("one").annotate(n=Count("pk")).values("n")
