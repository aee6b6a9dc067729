"""What the reconciler keeps of its own work, and what the watcher saw."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from .accounts import Team
from .deployment import Deployment, Revision


class AppliedObject(models.Model):
    """One object of ours on the cluster: the inventory that pruning and every later write goes by."""

    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.PROTECT, related_name="inventory")
    team = models.ForeignKey(Team, null=True, on_delete=models.PROTECT, related_name="inventory")
    revision = models.ForeignKey(Revision, null=True, on_delete=models.PROTECT, related_name="+")
    api_version = models.CharField(max_length=80)
    kind = models.CharField(max_length=60)
    namespace = models.CharField(max_length=63, blank=True)
    name = models.CharField(max_length=253)
    uid = models.CharField(max_length=64)
    digest = models.CharField(max_length=64, blank=True)
    # Our managed fields were moved from Update to Apply: fields that we drop later really go.
    owned = models.BooleanField(default=False)
    # Hash of the managed fields the server credited us with after our last write: a hand edit changes it.
    managed = models.CharField(max_length=64, blank=True)
    applied_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["api_version", "kind", "namespace", "name"], name="one_row_per_object")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Intent(models.Model):
    """Written before a mutating cluster call, closed after it: what a crash between the two leaves to find out."""

    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.PROTECT, related_name="intents")
    team = models.ForeignKey(Team, null=True, on_delete=models.PROTECT, related_name="intents")
    verb = models.CharField(max_length=10)  # create, apply, delete
    api_version = models.CharField(max_length=80)
    kind = models.CharField(max_length=60)
    namespace = models.CharField(max_length=63, blank=True)
    name = models.CharField(max_length=253)
    digest = models.CharField(max_length=64, blank=True)
    lease_token = models.UUIDField()
    created_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True, blank=True)
    uid = models.CharField(max_length=64, blank=True)
    result = models.CharField(max_length=300, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["deployment"], name="open_intents", condition=models.Q(closed_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {self.namespace}/{self.name}"


class Status(models.Model):
    """The last observation of one deployment, as JSON of deployments.kube.observe.Observed."""

    deployment = models.OneToOneField(Deployment, on_delete=models.CASCADE, related_name="status")
    observed = models.JSONField(default=dict)
    observed_at = models.DateTimeField(default=timezone.now)
    # Pods of this deployment, terminating ones included, and when they were last listed in full; null: not complete.
    live_pods = models.PositiveIntegerField(null=True, blank=True)
    listed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"status of {self.deployment}"
