"""Checks the audit against its seals."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from deployments.services import seals


class Command(BaseCommand):
    """`verify` reads every sealed event again; `seal` seals now what has settled, which a task does every minute."""

    help = "Check that no event was changed, removed or added since it was sealed."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """What to do, and what is known from elsewhere."""
        parser.add_argument("do", choices=["verify", "seal"])
        parser.add_argument("--expect", default="", metavar="DIGEST", help="of a seal, from a log kept elsewhere")

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit status 1 where anything is wrong, with a line for each."""
        if options["do"] == "seal":
            self.stdout.write(f"{seals.seal_all()} events sealed")
            return
        found = seals.verify(options["expect"].strip().lower())
        for problem in found.problems:
            self.stderr.write(problem)
        if found.problems:
            raise CommandError(f"{len(found.problems)} things are wrong among {found.events} sealed events.")
        self.stdout.write(f"{found.events} sealed events are as they were written; the newest seal is {found.digest}")
