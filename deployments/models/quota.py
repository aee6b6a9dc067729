"""Grants say how many GPUs a team may hold; the ledger says what its deployments hold. Triggers keep both honest."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from .accounts import Team, User
from .cluster import Flavor
from .deployment import Deployment, Revision


class QuotaGrant(models.Model):
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="grants")
    flavor = models.ForeignKey(Flavor, on_delete=models.PROTECT, related_name="grants")
    gpus = models.PositiveIntegerField()
    valid_from = models.DateTimeField(default=timezone.now)
    valid_until = models.DateTimeField(null=True, blank=True)
    granted_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    comment = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

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
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.deployment} {self.delta:+d}"
