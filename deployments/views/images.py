"""Weights in images: which registries may be named, images to begin with, and how to make one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from deployments.services.source_checks import listed_registries
from deployments.sources.oci import FOLDER, is_listed, parse_image
from deployments.spec import Strategy
from portal.lib.htmx import PortalRequest, signed_in

# Where the pages name a registry and an admin has listed none.
ANY = "registry.example.com/models"


@dataclass(frozen=True)
class Example:
    """An image that works here: its address, the folder of its weights, and what a button sets of the form."""

    uri: str
    folder: str

    @property
    def title(self) -> str:
        """The end of its repository, by which people know it."""
        return parse_image(self.uri).repository.rpartition("/")[2]

    @property
    def sets(self) -> str:
        """What the form is to be set to, as its buttons send it."""
        return f"strategy={Strategy.OCI_VOLUME.value}&source_uri={self.uri}&source_folder={self.folder}"


def image_help() -> dict[str, Any]:
    """What the form says beside the strategy that takes images."""
    listed = listed_registries()
    found = [Example(uri, *(folder or [FOLDER])) for uri, *folder in settings.OCI_EXAMPLES]
    return {
        "registries": listed,
        "registry": listed[0] if listed else ANY,
        "examples": [example for example in found if is_listed(parse_image(example.uri), listed)],
    }


@require_safe
@signed_in
def packaging(request: PortalRequest) -> HttpResponse:
    """How weights become an image, for whoever wants to push one."""
    return render(request, "pages/packaging.html", {"images": image_help()})
