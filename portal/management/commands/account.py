"""`manage.py account switch-off USERNAME`: what an admin does to accounts, for when there is none at hand."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from deployments.models import User
from deployments.services import accounts
from deployments.services.errors import DomainError


class Command(BaseCommand):
    help = "Switch an account off or on, end its sessions and tokens, or take platform administration from it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=("switch-off", "switch-on", "end-sessions", "take-admin"))
        parser.add_argument("username")
        parser.add_argument("--reason", default="By the operator", help="why it is switched off; the audit keeps it")

    def handle(self, *, action: str, username: str, reason: str, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no account “{username}”.")
        try:
            if action == "switch-off":
                accounts.switch_off(principal=None, user=user, reason=reason)
            elif action == "switch-on":
                accounts.switch_on(principal=None, user=user)
            elif action == "end-sessions":
                accounts.end_sessions(principal=None, user=user)
            else:
                accounts.take_admin(principal=None, user=user)
        except DomainError as error:
            raise CommandError(error.message) from None
        self.stdout.write(f"{username}: done")
