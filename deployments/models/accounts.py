"""People, teams, tokens, and the principal that every permission question takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.utils import timezone

from .locking import HeldRows


class User(AbstractUser):
    """A person or a service account. Platform admins own GPUs, quotas and policy."""

    is_platform_admin = models.BooleanField(default=False)
    # True: a platform admin by a group of the identity provider, and no longer one without it.
    admin_by_group = models.BooleanField(default=False)
    mail_notices = models.BooleanField(default=True, help_text="Notices are sent by e-mail too")
    # When the identity provider last said which groups they are in: what groups give lapses with it.
    single_sign_on_at = models.DateTimeField(null=True, blank=True)
    # Sessions that began before this are over.
    sessions_after = models.DateTimeField(null=True, blank=True)

    @property
    def keeps_groups(self) -> bool:
        """True while what groups give still counts: their last single sign-on is not too long ago."""
        return self.single_sign_on_at is not None and self.single_sign_on_at > groups_since()

    @property
    def rules(self) -> bool:
        """True for a platform admin, as of now."""
        return self.is_active and self.is_platform_admin and (self.keeps_groups or not self.admin_by_group)


def groups_since() -> datetime:
    """The earliest single sign-on whose groups still count."""
    return timezone.now() - settings.GROUP_RIGHTS_LAST


def admins_now() -> Q:
    """Users who are platform admins now: `User.rules`, as SQL."""
    kept = Q(admin_by_group=False) | Q(single_sign_on_at__gt=groups_since())
    return kept & Q(is_active=True, is_platform_admin=True)


@dataclass(frozen=True)
class Principal:
    """Who asks: a user, and where a token speaks for them what that token may do."""

    user: User
    scopes: frozenset[str] = frozenset({"read", "write", "approve", "invoke"})
    team_ids: frozenset[int] | None = field(default=None)  # None: every team of the user
    expires_at: datetime | None = None  # None: does not end by itself
    token_id: int | None = None  # the token that speaks for them; None: they do themselves

    @property
    def is_admin(self) -> bool:
        return self.user.rules

    @property
    def sees_all(self) -> bool:
        """True for an admin whom no token keeps to some teams: what is asked of teams then needs no look at them."""
        return self.is_admin and self.may("read") and self.team_ids is None

    def may(self, scope: str) -> bool:
        return self.user.is_active and scope in self.scopes


class TeamQuerySet(HeldRows["Team"]):
    """The doors to teams, by what a principal may do there."""

    def active(self) -> TeamQuerySet:
        return self.filter(archived_at=None)

    def visible_to(self, principal: Principal) -> TeamQuerySet:
        """Teams whose deployments the principal may see: the own ones, for an admin all."""
        if not principal.may("read"):
            return self.none()
        teams = self if principal.is_admin else self._own(principal)
        return teams if principal.team_ids is None else teams.filter(pk__in=principal.team_ids)

    def writable_by(self, principal: Principal) -> TeamQuerySet:
        """Teams in whose name the principal may ask for a model. Admins too only where they belong."""
        if not principal.may("write"):
            return self.none()
        teams = self.active()._own(principal)
        return teams if principal.team_ids is None else teams.filter(pk__in=principal.team_ids)

    def governed_by(self, principal: Principal, scope: str = "approve") -> TeamQuerySet:
        """Teams whose quota, policy and people the principal rules as an admin: all that its token reaches."""
        if not (principal.is_admin and principal.may(scope)):
            return self.none()
        return self if principal.team_ids is None else self.filter(pk__in=principal.team_ids)

    def callable_by(self, principal: Principal) -> TeamQuerySet:
        """Teams whose endpoints the principal may send prompts to: the own ones, for an admin all."""
        if not principal.may("invoke"):
            return self.none()
        teams = self if principal.is_admin else self._own(principal)
        return teams if principal.team_ids is None else teams.filter(pk__in=principal.team_ids)

    def led_by(self, principal: Principal) -> TeamQuerySet:
        """Teams that the principal leads."""
        teams = self._own(principal, memberships__role=Membership.Role.LEAD)
        return teams if principal.team_ids is None else teams.filter(pk__in=principal.team_ids)

    def managed_by(self, principal: Principal) -> TeamQuerySet:
        """Teams whose people the principal may change: those they lead, for an admin all that the token reaches."""
        if not principal.may("write"):
            return self.none()
        governed = Team.objects.governed_by(principal, "write").values("pk")
        return self.filter(Q(pk__in=governed) | Q(pk__in=Team.objects.led_by(principal).values("pk")))

    def _own(self, principal: Principal, **more: Any) -> TeamQuerySet:
        """Teams that the principal belongs to now: what a group gave lapses without single sign-on."""
        if not principal.user.keeps_groups:
            more["memberships__by_group"] = False
        return self.filter(memberships__user=principal.user, **more)


class Team(models.Model):
    """People who own deployments and quota together, and one namespace on the cluster."""

    class Policy(models.TextChoices):
        ASK = "ask", "An admin approves every request"
        LEAD = "lead", "A team lead approves within quota and without guarded options, an admin everything else"
        AUTO = "auto", "Approved at once within quota and without guarded options"

    class AtExpiry(models.TextChoices):
        KEEP = "keep", "What runs goes on when a grant ends; it cannot grow"
        STOP = "stop", "What runs beyond the grants that are left is stopped, newest first"

    slug = models.SlugField(max_length=20, unique=True)
    name = models.CharField(max_length=80)
    # Fixed for ever: the namespace's random suffix makes sure that it is never somebody else's later.
    namespace = models.CharField(max_length=32, unique=True)
    policy = models.CharField(max_length=8, choices=Policy, default=Policy.ASK)
    # Requests for more GPUs than this are an admin's, whatever the policy; empty: however many.
    ask_above = models.PositiveIntegerField(null=True, blank=True)
    at_expiry = models.CharField(max_length=8, choices=AtExpiry, default=AtExpiry.KEEP)
    created_at = models.DateTimeField(default=timezone.now)
    archived_at = models.DateTimeField(null=True, blank=True)
    # The team's own objects (namespace, quota, policies) are reconciled like a deployment.
    next_reconcile_at = models.DateTimeField(null=True, blank=True, default=timezone.now)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0)
    applied_hash = models.CharField(max_length=64, blank=True)
    ready = models.BooleanField(default=False)
    blocked_message = models.TextField(blank=True)

    objects = TeamQuerySet.as_manager()

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name


class MembershipQuerySet(models.QuerySet["Membership"]):
    """The door to memberships."""

    def visible_to(self, principal: Principal) -> MembershipQuerySet:
        """Who belongs to the teams that the principal may see."""
        return self.filter(team__in=Team.objects.visible_to(principal))

    def in_force(self) -> MembershipQuerySet:
        """Memberships that give something now: those of groups lapse without single sign-on."""
        return self.filter(Q(by_group=False) | Q(user__single_sign_on_at__gt=groups_since()))


class Membership(models.Model):
    """Who belongs to a team, and who leads it."""

    class Role(models.TextChoices):
        MEMBER = "member", "Member"
        LEAD = "lead", "Lead"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=8, choices=Role, default=Role.MEMBER)
    # True: made by a rule about a group of the identity provider, and ended with it at a later sign-in.
    by_group = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="one_membership_per_team")]

    def __str__(self) -> str:
        return f"{self.user} in {self.team} ({self.role})"


class ApiTokenQuerySet(HeldRows["ApiToken"]):
    """Filters on tokens."""

    def live(self) -> ApiTokenQuerySet:
        """Tokens that still open a door: not revoked, not expired, of an active user."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()), revoked_at=None, user__is_active=True)

    def revocable_by(self, principal: Principal) -> ApiTokenQuerySet:
        """Tokens that the principal may end: the own ones, for an admin all; a token ends none that may do more."""
        rows = self if principal.is_admin else self.filter(user=principal.user)
        rows = rows.filter(scopes__contained_by=sorted(principal.scopes))
        if principal.team_ids is None:
            return rows
        return rows.filter(team_ids__contained_by=sorted(principal.team_ids))


class ApiToken(models.Model):
    """A bearer token of the REST API. Only its SHA-256 is kept; the first characters tell tokens apart."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=12)
    digest = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=list)
    team_ids = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    # The token that made this one: revoked, it takes this one with it.
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="children")

    objects = ApiTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
