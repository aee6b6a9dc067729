"""`manage.py seed_demo`: fills an empty installation with the demo, and tells (as JSON) how to log in."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from deployments.services.errors import DomainError
from portal.management.demo import Demo, HubError, check_passwords


class Command(BaseCommand):
    """Safe to run again: it makes only what is missing."""

    help = "Make the demo's teams, people, quota, catalogue and deployments; print logins and tokens as JSON."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """One option: a file for the logins."""
        parser.add_argument(
            "--accounts",
            type=Path,
            metavar="FILE",
            help="also write the printed JSON here, readable by its owner alone",
        )

    def handle(self, *, accounts: Path | None = None, **options: Any) -> None:
        """Seed, then print."""
        demo = Demo()
        try:
            told = demo.seed()
        except HubError as error:
            raise CommandError(f"The model hub at {settings.HUB_URL} does not answer: {error}") from None
        except DomainError as error:
            raise CommandError(f"The demo could not be made: {error.message}") from None
        if check_passwords(demo):
            demo.made.append("passwords, for another secret key")
        for line in demo.made:
            self.stderr.write(f"made {line}")
        text = json.dumps(told, indent=2)
        if accounts is not None:
            _write_private(accounts, text)
        self.stdout.write(text)


def _write_private(path: Path, text: str) -> None:
    # Born private: a file that is closed to others only afterwards was open for a moment.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    path.chmod(0o600)
