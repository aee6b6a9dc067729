"""Makes the key pair to which values of credentials are sealed."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from deployments.services import sealing


class Command(BaseCommand):
    """Print a new pair: the public key is for web, the private one for workers alone."""

    help = "Print a new pair of sealing keys, as settings take them."
    requires_system_checks: Any = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Nothing is stored."""
        public, private = sealing.new_pair()
        self.stdout.write(f"SLIPWAY_SEAL_PUBLIC_KEY={public}")
        self.stdout.write(f"SLIPWAY_SEAL_PRIVATE_KEYS={private}")
