"""A wish of a team, its numbered revisions, and who approved them."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from deployments.spec import MAX_NAME, MAX_NOTE

from .accounts import Principal, Team, User
from .cluster import Cluster, Flavor
from .locking import HeldRows


class Wanted(models.TextChoices):
    """What people want, whatever the cluster shows."""

    RUNNING = "running", "Running"
    STOPPED = "stopped", "Stopped"
    DELETED = "deleted", "Deleted"


class DeploymentQuerySet(HeldRows["Deployment"]):
    """The doors to deployments, and what workers look for. `hold` is the first lock every service takes."""

    def alive(self) -> DeploymentQuerySet:
        return self.filter(deleted_at=None)

    def visible_to(self, principal: Principal) -> DeploymentQuerySet:
        """Deployments of the teams that the principal may see. What is not in here answers 404."""
        if principal.sees_all:
            return self.all()
        return self.filter(team__in=Team.objects.visible_to(principal))

    def writable_by(self, principal: Principal) -> DeploymentQuerySet:
        """Deployments that the principal may edit, stop or delete."""
        return self.alive().filter(team__in=Team.objects.writable_by(principal))

    def callable_by(self, principal: Principal) -> DeploymentQuerySet:
        """Deployments that the principal may send prompts to."""
        return self.alive().filter(team__in=Team.objects.callable_by(principal))

    def awaiting_quota(self) -> DeploymentQuerySet:
        """Approved, but the GPUs are not reserved yet: the waiting lines of all accounts."""
        return self.alive().filter(
            ~Q(approved_id=F("latest_id")) | Q(approved=None),
            wanted=Wanted.RUNNING,
            latest__verdict=Revision.Verdict.APPROVED,
        )

    def due(self) -> DeploymentQuerySet:
        """Rows that want a worker now and that no worker holds; the database's clock decides."""
        return self.filter(Q(lease_until=None) | Q(lease_until__lt=Now()), next_reconcile_at__lte=Now())


class Deployment(models.Model):
    """What a team wants to run. The row is the truth of what is wanted; the cluster is the truth of what is."""

    class State(models.TextChoices):
        DRAFT = "Draft", "Draft"
        AWAITING_APPROVAL = "AwaitingApproval", "Waits for approval"
        AWAITING_QUOTA = "AwaitingQuota", "Waits for quota"
        QUEUED = "Queued", "Queued"
        APPLYING = "Applying", "Applying"
        DOWNLOADING = "Downloading", "Downloading"
        STARTING = "Starting", "Starting"
        RUNNING = "Running", "Running"
        DEGRADED = "Degraded", "Degraded"
        STALLED = "Stalled", "Stalled"
        ASLEEP = "Asleep", "Asleep"
        BLOCKED = "Blocked", "Blocked"
        FAILED = "Failed", "Failed"
        STOPPING = "Stopping", "Stopping"
        STOPPED = "Stopped", "Stopped"
        DELETING = "Deleting", "Deleting"
        DELETED = "Deleted", "Deleted"
        REJECTED = "Rejected", "Rejected"
        EXPIRED = "Expired", "Expired"

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="deployments")
    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="deployments")
    name = models.CharField(max_length=MAX_NAME)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    # Written by services alone.
    wanted = models.CharField(max_length=8, choices=Wanted, default=Wanted.RUNNING)
    # When `wanted` last changed, by the database's clock: an older list of pods proves nothing about now.
    wanted_at = models.DateTimeField(db_default=Now())
    latest = models.ForeignKey("Revision", null=True, on_delete=models.PROTECT, related_name="+")
    approved = models.ForeignKey("Revision", null=True, on_delete=models.PROTECT, related_name="+")
    deleted_at = models.DateTimeField(null=True, blank=True)

    # Written by the reconciler alone, under its lease.
    outcome = models.JSONField(default=dict)
    applied = models.ForeignKey("Revision", null=True, on_delete=models.PROTECT, related_name="+")
    next_reconcile_at = models.DateTimeField(null=True, blank=True)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0)

    # Written by the probe alone.
    probe = models.JSONField(default=dict)
    probed_at = models.DateTimeField(null=True, blank=True)

    # Materialised from the four above by one function (services.states).
    state = models.CharField(max_length=20, choices=State, default=State.AWAITING_APPROVAL)
    state_since = models.DateTimeField(default=timezone.now)
    reason = models.JSONField(default=dict)
    detail = models.JSONField(default=dict)

    objects = DeploymentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["team", "name"], condition=Q(deleted_at=None), name="one_living_deployment_per_name"
            )
        ]
        indexes = [
            models.Index(fields=["next_reconcile_at"], name="deployment_due"),
            models.Index(fields=["team", "state"], name="deployment_team_state"),
        ]

    def __str__(self) -> str:
        return f"{self.team.slug}/{self.name}"


class RevisionQuerySet(models.QuerySet["Revision"]):
    """The doors to revisions."""

    def visible_to(self, principal: Principal) -> RevisionQuerySet:
        return self.filter(deployment__in=Deployment.objects.visible_to(principal))

    def pending(self) -> RevisionQuerySet:
        """Revisions somebody has to decide about."""
        return self.filter(verdict=Revision.Verdict.PENDING, deployment__deleted_at=None).exclude(
            deployment__wanted=Wanted.DELETED
        )


class Revision(models.Model):
    """One immutable spec of a deployment, its resolution, and the objects that were rendered from it."""

    class Verdict(models.TextChoices):
        PENDING = "pending", "Waits for a decision"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"
        SUPERSEDED = "superseded", "Superseded by a later one"
        EXPIRED = "expired", "Nobody decided"

    deployment = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveIntegerField()
    spec = models.JSONField()
    resolution = models.JSONField(default=dict)
    objects_json = models.JSONField(default=list)
    digest = models.CharField(max_length=64)
    flavor = models.ForeignKey(Flavor, on_delete=models.PROTECT, related_name="+")
    gpus = models.PositiveIntegerField(help_text="GPUs at maximum scale, without surge")
    surge = models.PositiveIntegerField(default=0, help_text="GPUs on top of that while pods are replaced")
    guarded = models.JSONField(default=list)
    findings = models.JSONField(default=list)
    verdict = models.CharField(max_length=12, choices=Verdict, default=Verdict.PENDING)
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    note = models.CharField(max_length=MAX_NOTE, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = RevisionQuerySet.as_manager()

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["deployment", "number"], name="one_row_per_revision")]

    def __str__(self) -> str:
        return f"{self.deployment} revision {self.number}"

    @property
    def reserved(self) -> int:
        """GPUs that it is charged: at the most replicas, and what a rollout takes on top."""
        return self.gpus + self.surge


class Approval(models.Model):
    """A verdict on one digest: what was approved is what runs."""

    class Kind(models.TextChoices):
        POLICY = "policy", "Policy"
        LEAD = "lead", "Team lead"
        ADMIN = "admin", "Admin"
        EMERGENCY = "emergency", "Two admins, in an emergency"

    revision = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="approvals")
    digest = models.CharField(max_length=64)
    kind = models.CharField(max_length=12, choices=Kind)
    actor = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    approved = models.BooleanField()
    # The admin who signed with an author of the revision in an emergency; a trigger keeps them apart.
    second = models.ForeignKey(User, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    comment = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind="policy") | Q(actor__isnull=False), name="approval_by_policy_or_somebody"
            ),
            models.CheckConstraint(
                condition=Q(kind="emergency", second__isnull=False) & ~Q(second=F("actor")) & ~Q(comment="")
                | (~Q(kind="emergency") & Q(second=None)),
                name="approval_in_emergency_by_two_with_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"{'approved' if self.approved else 'rejected'}: {self.revision}"


class Emergency(models.Model):
    """An admin's call to let through what only its authors could approve; a second admin signs it, or it lapses."""

    revision = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="emergencies")
    digest = models.CharField(max_length=64)
    called_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    reason = models.CharField(max_length=500)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    approval = models.OneToOneField(Approval, null=True, on_delete=models.PROTECT, related_name="emergency")

    class Meta:
        constraints = [models.CheckConstraint(condition=~Q(reason=""), name="emergency_has_reason")]

    def __str__(self) -> str:
        return f"{self.revision}: {self.reason}"
