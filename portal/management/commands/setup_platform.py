"""`manage.py setup_platform`: what a new installation needs before anybody can ask for a model."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from deployments.engine.plugins import Plugin
from deployments.models import Flavor
from portal.management import platform


class Command(BaseCommand):
    """Safe to run again: what is there, and what an operator changed, stays."""

    help = "Make flavors of the GPUs that the nodes have, engine profiles, recommended models and the cluster's row."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """GPUs before the watcher has seen any, the engine's image, engines of other versions, and what images have."""
        parser.add_argument(
            "--gpu", action="append", default=[], metavar="PRODUCT", help="a node's label nvidia.com/gpu.product"
        )
        parser.add_argument("--image", default="", metavar="IMAGE@sha256:…", help="the engine as your registry has it")
        parser.add_argument(
            "--engine",
            action="append",
            default=[],
            metavar="VERSION=IMAGE@sha256:…",
            help="a vLLM of another version, to choose beside the newest",
        )
        parser.add_argument(
            "--plugins",
            action="append",
            default=[],
            metavar="ENGINE=PLUGIN,…",
            help=f"what the image of an engine has besides vLLM ({', '.join(Plugin)}); nothing after = for none",
        )

    def handle(self, *, gpu: list[str], image: str, engine: list[str], plugins: list[str], **options: Any) -> None:
        """Make what is missing, change what is asked for, and say so."""
        rows, strangers = platform.flavors_of_nodes()
        seen = {row["product"] for row in rows}
        try:
            rows += [platform.flavor_row(product) for product in gpu if product not in seen]
        except KeyError as error:
            raise CommandError(f"{error} is not a GPU that Slipway knows.") from None
        with transaction.atomic():
            made = [*platform.make_cluster(), *platform.make_flavors(rows), *platform.make_profiles()]
            made += platform.make_catalog()
            said = [f"made {line}" for line in made]
            try:
                said += platform.set_image(image) if image else []
                for word in engine:
                    version, _, name = word.partition("=")
                    said += platform.add_engine(version, name)
                for word in plugins:
                    slug, _, names = word.partition("=")
                    said += platform.set_plugins(slug, filter(None, names.split(",")))
            except ValueError as error:
                raise CommandError(str(error)) from None
            closed = [] if settings.SLIPWAY_SANDBOX else platform.close_placeholders()
        for line in said:
            self.stdout.write(line)
        for product in strangers:
            self.stderr.write(f"No flavor for “{product}”: not a GPU that Slipway knows.")
        for slug in closed:
            self.stderr.write(
                f"Engine {slug} stays closed until --image names its image by the digest of your registry."
            )
        if not Flavor.objects.exists():
            self.stderr.write("No GPU node was seen yet: start the watcher and run this again, or name GPUs by --gpu.")
