"""What people are told: in the site, and where they want it by e-mail."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from .accounts import Principal, Team, User
from .audit import Event


class NotificationQuerySet(models.QuerySet["Notification"]):
    def visible_to(self, principal: Principal) -> NotificationQuerySet:
        """The principal's own notices, but for those of teams that they do not see any more."""
        seen = models.Q(event__team=None) | models.Q(event__team__in=Team.objects.visible_to(principal))
        return self.filter(seen, user=principal.user) if principal.may("read") else self.none()

    def unread(self) -> NotificationQuerySet:
        return self.filter(read_at=None)

    def unsent(self) -> NotificationQuerySet:
        """Notices that still have to go out by e-mail."""
        return self.filter(mail_due=True, mailed_at=None)


class Notification(models.Model):
    """One notice to one person; the event says what happened, `link` where to look."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notifications")
    event = models.ForeignKey(Event, on_delete=models.PROTECT, related_name="notifications")
    message = models.CharField(max_length=500)
    link = models.CharField(max_length=200, blank=True, help_text="A path of this site")
    created_at = models.DateTimeField(default=timezone.now)
    read_at = models.DateTimeField(null=True, blank=True)
    mail_due = models.BooleanField(default=False)
    mailed_at = models.DateTimeField(null=True, blank=True)
    mail_failures = models.PositiveSmallIntegerField(default=0)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["user", "-id"], name="notification_inbox"),
            models.Index(fields=["user"], condition=models.Q(read_at=None), name="notification_unread"),
            models.Index(fields=["id"], condition=models.Q(mail_due=True, mailed_at=None), name="notification_unsent"),
        ]
        constraints = [models.UniqueConstraint(fields=["user", "event"], name="one_notice_per_person_and_event")]

    def __str__(self) -> str:
        return self.message
