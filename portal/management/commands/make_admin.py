"""`manage.py make_admin USERNAME`: a platform admin, new or promoted."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from deployments.models import User
from deployments.services import people
from deployments.services.errors import DomainError
from portal.management.passwords import password_from


class Command(BaseCommand):
    help = "Make an account a platform admin; a new one gets a password."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--password-file", type=Path, metavar="FILE", help="its first line; asked for without it")

    def handle(self, *, username: str, password_file: Path | None, **options: Any) -> None:
        # Who has an account, perhaps by single sign-on, keeps how they sign in.
        asked = password_file is not None or not User.objects.filter(username=username).exists()
        password = password_from(password_file) if asked else None
        try:
            people.make_account(username=username, password=password, admin=True)
        except DomainError as error:
            raise CommandError(error.message) from None
        self.stdout.write(f"{username}: done")
