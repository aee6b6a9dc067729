"""`manage.py make_user USERNAME`: an account for somebody who has no single sign-on."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from deployments.services import people
from deployments.services.errors import DomainError
from portal.management.passwords import password_from


class Command(BaseCommand):
    help = "Make an account, or give one a new password."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--password-file", type=Path, metavar="FILE", help="its first line; asked for without it")

    def handle(self, *, username: str, password_file: Path | None, **options: Any) -> None:
        try:
            people.make_account(username=username, password=password_from(password_file))
        except DomainError as error:
            raise CommandError(error.message) from None
        self.stdout.write(f"{username}: done")
