"""Keys with which programs call models, and what each of them used."""

from __future__ import annotations

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from .accounts import ApiToken, Membership, Principal, Team, User, admins_now, groups_since
from .deployment import Deployment
from .locking import HeldRows


class EndpointKeyQuerySet(HeldRows["EndpointKey"]):
    """The doors to keys."""

    def live(self) -> EndpointKeyQuerySet:
        """Keys that open a door now: not revoked or expired, of a living team and, if somebody's own, of its people."""
        now = timezone.now()
        member = Q(person__is_active=True, person__memberships__team=models.F("team"))
        kept = Q(person__memberships__by_group=False) | Q(person__single_sign_on_at__gt=groups_since())
        return self.filter(
            Q(expires_at=None) | Q(expires_at__gt=now),
            Q(person=None) | (member & kept),
            revoked_at=None,
            team__archived_at=None,
        )

    def left_behind(self) -> EndpointKeyQuerySet:
        """Living keys of a team whose maker may make none there any more, without those that were rotated since.

        Whoever made one has read its text, and goes on knowing it.
        """
        leads = Membership.objects.in_force().filter(
            team=OuterRef("team"), user=OuterRef("created_by"), role=Membership.Role.LEAD, user__is_active=True
        )
        replaced = EndpointKey.objects.filter(revoked_at=None).exclude(rotated_from=None).values("rotated_from")
        admins = User.objects.filter(admins_now()).values("pk")
        rows = self.live().filter(~Exists(leads), person=None)
        return rows.exclude(created_by__in=admins).exclude(pk__in=replaced)

    def opening(self, deployment: Deployment) -> EndpointKeyQuerySet:
        """Keys that a deployment is in reach of: made for it, or for all of its team."""
        # Not by a join: a key that names several would come up once for each.
        named = EndpointKey.deployments.through.objects.filter(deployment=deployment).values("endpointkey")
        return self.filter(Q(every_deployment=True) | Q(pk__in=named), team=deployment.team_id)

    def visible_to(self, principal: Principal) -> EndpointKeyQuerySet:
        """Keys whose name, reach and use the principal may see: of the own teams, for an admin all."""
        return self.filter(team__in=Team.objects.visible_to(principal))

    def manageable_by(self, principal: Principal) -> EndpointKeyQuerySet:
        """Keys that the principal may rotate and revoke: the own ones, a lead's team's, for an admin all."""
        if not principal.may("write"):
            return self.none()
        own = Q(person=principal.user, team__in=Team.objects.writable_by(principal))
        led = Q(team__in=Team.objects.led_by(principal))
        governed = Q(team__in=Team.objects.governed_by(principal, "write"))
        return self.filter(own | led | governed)


class EndpointKey(models.Model):
    """A bearer key for endpoints of one team. Only its SHA-256 is kept; the first characters tell keys apart.

    Without `deployments` it opens all of the team's, those to come too. With a `person` it ends with their membership.
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="endpoint_keys")
    person = models.ForeignKey(User, null=True, blank=True, on_delete=models.CASCADE, related_name="endpoint_keys")
    every_deployment = models.BooleanField(default=False)
    deployments = models.ManyToManyField(Deployment, blank=True, related_name="endpoint_keys")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=12)
    digest = models.CharField(max_length=64, unique=True)
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    # The API token that made it: revoked, it takes the key with it.
    made_by_token = models.ForeignKey(
        ApiToken, null=True, blank=True, on_delete=models.PROTECT, related_name="endpoint_keys"
    )
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    # The key that this one takes the place of; the older one lives on until it expires or is revoked.
    rotated_from = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="successors")
    # The first key of such a line: all of them together use its limits, or each rotation would give them anew.
    counted_with = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="+")

    objects = EndpointKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(
                condition=(Q(requests_per_minute=None) | Q(requests_per_minute__gte=1))
                & (Q(tokens_per_minute=None) | Q(tokens_per_minute__gte=1)),
                name="endpoint_key_limits_let_something_pass",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class KeyUsage(models.Model):
    """What one key used of one deployment in one hour, as the gateway counted it."""

    key = models.ForeignKey(EndpointKey, on_delete=models.PROTECT, related_name="usage")
    deployment = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="+")
    hour = models.DateTimeField(help_text="Its beginning, UTC")
    requests = models.PositiveBigIntegerField(default=0)
    refused = models.PositiveBigIntegerField(default=0, help_text="Requests over a limit of the key")
    prompt_tokens = models.PositiveBigIntegerField(default=0)
    completion_tokens = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["-hour"]
        constraints = [models.UniqueConstraint(fields=["key", "deployment", "hour"], name="one_key_usage_per_hour")]

    def __str__(self) -> str:
        return f"{self.key}: {self.requests} requests in {self.hour:%Y-%m-%d %H:00}"
