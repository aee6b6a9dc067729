"""What the request form and the page of packaging say to whoever wants weights from an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from deployments.models import Flavor, Team, User
from deployments.sources.oci import is_listed, parse_image
from deployments.sources.uris import SourceError, check_uri, parse
from portal import settings as site
from portal.demo.stack import Stack
from sandbox.node import images as pulled
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

DIGEST = "sha256:" + "a" * 64
IMAGE = f"oci://ghcr.io/acme/models/chat@{DIGEST}"


def form_of(user: User) -> tuple[str, Any]:
    answer = signed_in(user).get(reverse("deployment-create"))
    return flat(answer.content.decode()), answer.context


@pytest.mark.django_db
def test_the_form_says_which_registries_are_listed_and_offers_images_of_these(
    team: Team, h100: Flavor, alice: User, settings: Any
) -> None:
    make.make_profile()
    settings.SLIPWAY_OCI_REGISTRIES = ["ghcr.io/acme/models", "registry.example.com"]
    settings.OCI_EXAMPLES = [[IMAGE], [f"oci://elsewhere.example.com/chat@{DIGEST}"]]
    text, context = form_of(alice)
    assert "one of the registries that an admin has listed" in text
    assert "<code>ghcr.io/acme/models</code>, <code>registry.example.com</code>" in text
    assert "oci://ghcr.io/acme/models/NAME@sha256:DIGEST" in text
    assert reverse("packaging") in text
    [example] = context["images"]["examples"]
    assert (example.title, example.folder) == ("chat", "/models")

    # Pressed without a script it fills in the form; nothing of the form is asked for.
    sent = {"team": "search", "name": "chat", "way": example.sets}
    values = signed_in(alice).post(reverse("deployment-create"), sent).context["values"]
    assert [values[name] for name in ("strategy", "source_uri", "source_folder")] == ["oci-volume", IMAGE, "/models"]


@pytest.mark.django_db
def test_where_no_registry_is_listed_the_form_says_who_can_do_what(
    team: Team, h100: Flavor, alice: User, settings: Any
) -> None:
    make.make_profile()
    settings.SLIPWAY_OCI_REGISTRIES, settings.OCI_REGISTRIES, settings.OCI_EXAMPLES = [], [], [[IMAGE]]
    text, context = form_of(alice)
    assert context["images"]["examples"] == []
    assert "No registry is listed yet, so no image is taken: ask an admin to list one." in text
    admin = make.make_user("root", admin=True, team=team)
    assert "name yours in <code>SLIPWAY_OCI_REGISTRIES</code>" in form_of(admin)[0]


@pytest.mark.django_db
def test_the_recipe_names_a_registry_that_takes_images(alice: User, settings: Any) -> None:
    settings.SLIPWAY_OCI_REGISTRIES = ["ghcr.io/acme/models"]
    text = flat(signed_in(alice).get(reverse("packaging")).content.decode())
    assert "skopeo copy oci-archive:model.tar docker://ghcr.io/acme/models/qwen:1" in text
    assert "skopeo inspect --format '{{.Digest}}' \\ docker://ghcr.io/acme/models/qwen:1" in text


def test_the_demo_offers_images_that_its_nodes_can_pull(tmp_path: Path) -> None:
    said = Stack(tmp_path).environment
    listed = said["SLIPWAY_OCI_REGISTRIES"].split(",")
    offered = [entry.split() for entry in said["SLIPWAY_OCI_EXAMPLES"].split(",")]
    assert all(site.EXAMPLE.fullmatch(" ".join(entry)) for entry in offered)
    assert {folder for _, folder in offered} == {"/models", "/"}
    for uri, folder in offered:
        assert is_listed(parse_image(uri), listed)
        weights = pulled.find(pulled.parse(uri.removeprefix("oci://"))).weights
        assert weights is not None
        assert weights.folder == folder


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ghcr.io/acme/models/chat:1", "oci://ghcr.io/acme/models/chat:1"),
        (f"ghcr.io/acme/chat@{DIGEST}", f"oci://ghcr.io/acme/chat@{DIGEST}"),
        (f"docker://ghcr.io/acme/chat@{DIGEST}", f"oci://ghcr.io/acme/chat@{DIGEST}"),
        ("localhost:5000/chat:1", "oci://localhost:5000/chat:1"),
    ],
)
def test_an_image_as_container_tools_write_it_is_one_press_from_its_address(typed: str, meant: str) -> None:
    [finding] = check_uri(typed)
    assert (finding.code, finding.value) == ("source_scheme", meant)
    assert parse(meant).uri == meant


@pytest.mark.parametrize("typed", ["files.example.com/models/chat", "chat:1", "docker://chat"])
def test_what_may_be_anything_is_not_taken_for_an_image(typed: str) -> None:
    with pytest.raises(SourceError) as refused:
        parse(typed)
    assert refused.value.finding.value is None


def test_a_mistake_in_an_image_shows_one_by_digest() -> None:
    [finding] = check_uri("oci://GHCR.io/X/chat@sha256:12")
    example = finding.remedy.removeprefix("Example: ")
    assert parse_image(example).digest
