"""Grants say how many GPUs a team may hold; the ledger says what its deployments hold. Triggers keep both honest."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from .accounts import Principal, Team, User
from .cluster import Flavor
from .deployment import Deployment, Revision
from .moments import CountableDateTimeField


class GrantQuerySet(models.QuerySet["QuotaGrant"]):
    """Filters on grants."""

    def live(self) -> GrantQuerySet:
        """Grants that count now, by the database's clock."""
        return self.filter(Q(valid_until=None) | Q(valid_until__gt=Now()), valid_from__lte=Now())

    def visible_to(self, principal: Principal) -> GrantQuerySet:
        return self.filter(team__in=Team.objects.visible_to(principal))

    def writable_by(self, principal: Principal) -> GrantQuerySet:
        """Grants that the principal may change: an admin's, of the teams that their token reaches."""
        return self.filter(team__in=Team.objects.governed_by(principal))


class ReservationQuerySet(models.QuerySet["Reservation"]):
    """The door to the ledger."""

    def visible_to(self, principal: Principal) -> ReservationQuerySet:
        return self.filter(account__team__in=Team.objects.visible_to(principal))


class QuotaGrant(models.Model):
    """GPUs of one flavor that a team may hold, from when until when."""

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="grants")
    flavor = models.ForeignKey(Flavor, on_delete=models.PROTECT, related_name="grants")
    gpus = models.PositiveIntegerField()
    valid_from = CountableDateTimeField(default=timezone.now)
    valid_until = CountableDateTimeField(null=True, blank=True)
    granted_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    comment = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    # What was told of its end, so that it is told once: that it comes near, and that it has come.
    warned_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = GrantQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.gpus} × {self.flavor} for {self.team}"


class QuotaAccount(models.Model):
    """One per team and flavor. `reserved` moves only inside the ledger's trigger."""

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="accounts")
    flavor = models.ForeignKey(Flavor, on_delete=models.PROTECT, related_name="accounts")
    reserved = models.PositiveIntegerField(default=0)
    grants_version = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "flavor"], name="one_account_per_team_and_flavor")]

    def __str__(self) -> str:
        return f"{self.team} {self.flavor}: {self.reserved}"


class QuotaHold(models.Model):
    """What one deployment holds of one account now."""

    account = models.ForeignKey(QuotaAccount, on_delete=models.PROTECT, related_name="holds")
    deployment = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="holds")
    gpus = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "deployment"], name="one_hold_per_account_and_deployment"),
            models.CheckConstraint(condition=models.Q(gpus__gte=0), name="hold_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.deployment}: {self.gpus}"


class Reservation(models.Model):
    """The ledger, append only: a delta, and the balance its deployment held before it."""

    class Kind(models.TextChoices):
        TAKE = "take", "Reserved"
        RELEASE = "release", "Given back"
        FORCE = "force", "Given back by an admin"

    account = models.ForeignKey(QuotaAccount, on_delete=models.PROTECT, related_name="ledger")
    deployment = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="ledger")
    revision = models.ForeignKey(Revision, null=True, on_delete=models.PROTECT, related_name="+")
    delta = models.IntegerField()
    balance_before = models.PositiveIntegerField()
    kind = models.CharField(max_length=8, choices=Kind)
    reason = models.CharField(max_length=300, blank=True)
    actor = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    # By the database's clock, as the lists of pods that it is compared with.
    created_at = models.DateTimeField(db_default=Now())

    objects = ReservationQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind="take", delta__gt=0) | Q(kind__in=["release", "force"], delta__lt=0),
                name="ledger_kind_says_the_sign",
            ),
            models.CheckConstraint(
                condition=~Q(kind="force") | (Q(actor__isnull=False) & ~Q(reason="")),
                name="ledger_force_names_actor_and_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.deployment} {self.delta:+d}"
