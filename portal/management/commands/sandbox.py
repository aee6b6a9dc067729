"""`manage.py sandbox PART …`: the parts of the embedded cluster, as `python -m sandbox` starts them."""

from __future__ import annotations

import sys

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Hands everything after its name to the sandbox, whose own parser explains it."""

    help = "Start one part of the embedded cluster; `manage.py sandbox --help` lists the parts."

    def run_from_argv(self, argv: list[str]) -> None:
        from sandbox.cli import main

        sys.exit(main(argv[2:]))
