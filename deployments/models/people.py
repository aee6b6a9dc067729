"""How people come into teams: by an invitation, or by a group that the identity provider tells of."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from .accounts import Membership, Principal, Team, User
from .locking import HeldRows


class InvitationQuerySet(HeldRows["Invitation"]):
    """The doors to invitations."""

    def open(self) -> InvitationQuerySet:
        """Invitations that somebody can still accept."""
        return self.filter(
            accepted_at=None, revoked_at=None, expires_at__gt=timezone.now(), team__archived_at__isnull=True
        )

    def manageable_by(self, principal: Principal) -> InvitationQuerySet:
        """Invitations into teams whose people the principal rules: as a lead, or as an admin."""
        return self.filter(team__in=Team.objects.managed_by(principal))


class Invitation(models.Model):
    """A link that lets whoever opens it into a team once. Only the SHA-256 of its word is kept.

    While a mail with the link waits to be sent (`mail_due`), the word is kept too, sealed (`mail_word`).
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(blank=True, help_text="Where it was sent; empty: the link is handed over")
    role = models.CharField(max_length=8, choices=Membership.Role, default=Membership.Role.MEMBER)
    digest = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    revoked_at = models.DateTimeField(null=True, blank=True)
    mail_due = models.BooleanField(default=False, db_default=False)
    mail_failures = models.PositiveSmallIntegerField(default=0, db_default=0)
    mailed_at = models.DateTimeField(null=True, blank=True)
    mail_word = models.TextField(blank=True, default="", db_default="")

    objects = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(accepted_at=None, accepted_by=None)
                | Q(accepted_at__isnull=False, accepted_by__isnull=False),
                name="invitation_accepted_by_somebody",
            )
        ]
        indexes = [models.Index(fields=["id"], condition=Q(mail_due=True), name="invitation_unsent")]

    def __str__(self) -> str:
        return f"{self.email or 'link'} into {self.team}"


class GroupRuleQuerySet(HeldRows["GroupRule"]):
    """The door to rules."""

    def visible_to(self, principal: Principal) -> GroupRuleQuerySet:
        """All of them, for an admin whose token is bound to no team."""
        whole = principal.is_admin and principal.may("read") and principal.team_ids is None
        return self.all() if whole else self.none()


class GroupRule(models.Model):
    """People whose identity provider names this group belong to the team in this role, or are platform admins."""

    group = models.CharField(max_length=200)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.CASCADE, related_name="group_rules")
    role = models.CharField(max_length=8, choices=Membership.Role, default=Membership.Role.MEMBER)
    created_at = models.DateTimeField(default=timezone.now)

    objects = GroupRuleQuerySet.as_manager()

    class Meta:
        ordering = ["group", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["group", "team"], name="one_rule_per_group_and_team"),
            models.UniqueConstraint(fields=["group"], condition=Q(team=None), name="one_admin_rule_per_group"),
        ]

    def __str__(self) -> str:
        return f"{self.group} → {self.team or 'platform admins'}"

    @property
    def makes_admins(self) -> bool:
        """True for the rule of a group whose people are platform admins."""
        return self.team_id is None
