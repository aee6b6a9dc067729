"""The append-only record of who did what, and what happened by itself."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from .accounts import Principal, Team, User
from .deployment import Deployment


class EventQuerySet(models.QuerySet["Event"]):
    def visible_to(self, principal: Principal) -> EventQuerySet:
        """Events of the teams that the principal may see; an admin also sees those of no team."""
        of_teams = Q(team__in=Team.objects.visible_to(principal))
        if principal.is_admin and principal.may("read") and principal.team_ids is None:
            return self.filter(of_teams | Q(team=None))
        return self.filter(of_teams)


class Event(models.Model):
    """One line of a timeline. Rows are never changed or removed (a trigger refuses)."""

    class Level(models.TextChoices):
        INFO = "info", "Info"
        GOOD = "good", "Good"
        WARNING = "warning", "Warning"
        BAD = "bad", "Bad"

    team = models.ForeignKey(Team, null=True, on_delete=models.PROTECT, related_name="events")
    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.PROTECT, related_name="events")
    actor = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=40)
    level = models.CharField(max_length=8, choices=Level, default=Level.INFO)
    message = models.CharField(max_length=500)
    data = models.JSONField(default=dict)
    request_id = models.CharField(max_length=40, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["deployment", "-id"], name="event_timeline")]

    def __str__(self) -> str:
        return self.message
