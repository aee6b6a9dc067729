"""What leads ask admins for: GPUs of a flavor, from when until when, and why."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from .accounts import Principal, Team, User
from .cluster import Flavor
from .locking import HeldRows
from .moments import CountableDateTimeField
from .quota import QuotaGrant


class QuotaRequestQuerySet(HeldRows["QuotaRequest"]):
    """The doors to requests for quota."""

    def visible_to(self, principal: Principal) -> QuotaRequestQuerySet:
        return self.filter(team__in=Team.objects.visible_to(principal))

    def pending(self) -> QuotaRequestQuerySet:
        """Requests that wait for an admin."""
        return self.filter(state=QuotaRequest.State.PENDING)

    def decidable_by(self, principal: Principal) -> QuotaRequestQuerySet:
        """Requests that the principal may decide: an admin's, of teams their token reaches, but for the own ones."""
        return self.filter(team__in=Team.objects.governed_by(principal)).exclude(author=principal.user)


class QuotaRequest(models.Model):
    """A lead's wish for quota. What an admin grants of it, also of another flavor or date, is `granted`."""

    class State(models.TextChoices):
        PENDING = "pending", "Waits for a decision"
        GRANTED = "granted", "Granted"
        PARTLY = "partly", "Granted in part"
        OTHERWISE = "otherwise", "Granted otherwise"
        DENIED = "denied", "Denied"
        WITHDRAWN = "withdrawn", "Withdrawn"
        EXPIRED = "expired", "Nobody decided"

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="quota_requests")
    flavor = models.ForeignKey(Flavor, on_delete=models.PROTECT, related_name="+")
    gpus = models.PositiveIntegerField()
    valid_from = CountableDateTimeField(null=True, blank=True, help_text="Empty: as soon as it is granted")
    valid_until = CountableDateTimeField(null=True, blank=True, help_text="Empty: without an end")
    why = models.CharField(max_length=500)
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    decided_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)
    comment = models.CharField(max_length=500, blank=True)
    granted = models.OneToOneField(QuotaGrant, null=True, on_delete=models.PROTECT, related_name="request")

    objects = QuotaRequestQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["state", "-id"], name="quota_request_state")]
        constraints = [
            models.CheckConstraint(condition=Q(gpus__gte=1), name="quota_request_asks_for_something"),
            models.CheckConstraint(
                condition=Q(decided_by=None) | ~Q(decided_by=F("author")), name="quota_request_second_person"
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["granted", "partly", "otherwise", "denied"])
                | (Q(decided_by__isnull=False) & ~Q(comment="")),
                name="quota_request_decided_with_comment",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["granted", "partly", "otherwise"], granted__isnull=False)
                | (~Q(state__in=["granted", "partly", "otherwise"]) & Q(granted=None)),
                name="quota_request_granted_has_grant",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.gpus} × {self.flavor} for {self.team}"
