"""The request form for images, nodes and adapters: fields of their own, read where they are shown, kept when edited."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.forms.request import DeploymentForm, initial_of
from deployments.models import User
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import signed_in

pytestmark = pytest.mark.django_db

IMAGE = "registry.example.com/models/granite@sha256:" + "c" * 64


def form_of(user: User, **fields: str) -> DeploymentForm:
    return DeploymentForm(typed(**fields), principal=make.principal(user))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"strategy": "oci-volume", "source_uri": IMAGE, "source_folder": "/weights"},
            {"uri": f"oci://{IMAGE}", "folder": "/weights", "revision": None, "credential": None},
        ),
        # The usual folder is nobody's wish, and elsewhere there is none.
        (
            {"strategy": "oci-volume", "source_uri": IMAGE, "source_folder": "/models"},
            {"uri": f"oci://{IMAGE}", "revision": None, "credential": None},
        ),
        ({"source_folder": "/weights"}, {}),
    ],
)
def test_the_folder_of_an_image_is_read_for_images(
    hub: list[str], alice: User, fields: dict[str, str], said: dict[str, Any]
) -> None:
    spec = form_of(alice, **fields).spec
    assert spec is not None
    source = spec.to_json()["source"]
    assert source == said if said else "folder" not in source


def test_nodes_and_adapters_are_kept_when_a_deployment_is_edited(hub: list[str], alice: User) -> None:
    wide = form_of(alice, nodes="2", args="--pipeline-parallel-size=2").spec
    laid = form_of(alice, adapters="haiku=hf://owner/haiku-lora@main").spec
    assert wide is not None
    assert laid is not None
    assert (wide.nodes, [adapter.name for adapter in laid.adapters]) == (2, ["haiku"])
    for spec in (wide, laid):
        again = form_of(alice, **{name: str(value) for name, value in initial_of(spec.to_json()).items()}).spec
        assert again == spec


def test_fields_of_another_strategy_are_not_read(hub: list[str], alice: User) -> None:
    spec = form_of(alice, strategy="oci-volume", source_uri=IMAGE, nodes="2").spec
    assert spec is not None
    assert spec.nodes == 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("nodes", "two", "Must be a whole number."),
        ("nodes", "3", "cannot be shared out evenly"),
        ("adapters", "owner/haiku-lora", "Line 1: write “name=hf://owner/adapter”."),
        ("adapters", "a=hf://o/b\na=hf://o/c", "Two adapters are called “a”."),
        ("adapters", "a b=hf://o/b", "Use letters, digits"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_lost(
    hub: list[str], alice: User, field: str, value: str, words: str
) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(**{field: value}))

    assert answer.status_code == 422
    said = [entry["message"] for entry in answer.context["fields"][field]["messages"]]
    assert any(words in text for text in said), said
    assert answer.context["values"][field] == value


def test_the_page_shows_the_fields(hub: list[str], alice: User) -> None:
    page = signed_in(alice).get(reverse("deployment-create")).content.decode()
    for name in ("source_folder", "nodes", "adapters"):
        assert f'id="id_{name}"' in page
    assert "coming" not in page
