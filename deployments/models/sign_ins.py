"""How often somebody failed to sign in, counted where all processes see it."""

from __future__ import annotations

from django.db import models


class SignInTries(models.Model):
    """Failed sign-ins under one key, an account or an address, since a moment. The key is a digest, never a name."""

    key = models.CharField(max_length=64, unique=True)
    began_at = models.DateTimeField(db_index=True)
    tries = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.tries} since {self.began_at:%H:%M}"
