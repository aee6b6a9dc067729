"""Requests that were sent with an Idempotency-Key: sent again, they are answered and not done again."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from .accounts import User


class IdempotencyKey(models.Model):
    """The answer to one write of one caller. No body is kept: of the request a hash, of the answer where it lies."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    route = models.CharField(max_length=200, help_text="Method and path")
    request_hash = models.CharField(max_length=64)
    # Null while the first request with this key is under way.
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    location = models.CharField(max_length=200, blank=True, help_text="Path whose GET answers what the write answered")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key", "route"], name="one_answer_per_idempotency_key")]
        indexes = [models.Index(fields=["created_at"], name="idempotency_age")]

    def __str__(self) -> str:
        return f"{self.route} {self.key}"
