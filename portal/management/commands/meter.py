"""`manage.py meter`: counts tokens on a cluster, as an external processor of Envoy (k8s/portal/meter.yaml)."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from portal.meter.server import serve


class Command(BaseCommand):
    """Run the meter until SIGTERM or SIGINT."""

    help = "Read the tokens of answers that Envoy sends by, and charge endpoint keys with them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Where it listens, and how long it takes to stop."""
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=9002)
        parser.add_argument("--grace", type=float, default=100.0, help="seconds for what is under way when it stops")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve gRPC in clear text; only the gateway may reach it."""
        asyncio.run(serve(options["host"], options["port"], grace=options["grace"]))
