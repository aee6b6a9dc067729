"""One limit for one field: the form, the API, the spec and what is stored take as much, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import models

from deployments import spec
from deployments.api import schemas
from deployments.forms.request import DeploymentForm
from deployments.models import Deployment, Flavor, ModelCheck, Revision
from tests.deployments.wishes import spec_json

FIELDS: Any = DeploymentForm.base_fields


def stored(model: type[models.Model], name: str) -> int:
    field: Any = model._meta.get_field(name)
    return int(field.max_length)


@pytest.mark.parametrize(
    ("field", "name", "most", "begins"),
    [
        ("source_uri", "uri", spec.MAX_URI, "s3://bucket/"),
        ("source_revision", "revision", spec.MAX_REVISION, ""),
        ("source_folder", "folder", spec.MAX_FOLDER, "/"),
        ("credential", "credential", spec.MAX_LABEL, ""),
    ],
)
def test_the_form_takes_as_much_as_the_spec(field: str, name: str, most: int, begins: str) -> None:
    assert FIELDS[field].max_length == most
    longest = begins.ljust(most, "b")
    source = {**spec_json()["source"], name: longest}
    found = spec.DeploymentSpec.from_json(spec_json(source=source))
    assert getattr(found.source, name) == longest
    with pytest.raises(ValueError, match=name):
        spec.DeploymentSpec.from_json(spec_json(source={**source, name: longest + "b"}))


@pytest.mark.parametrize(
    ("field", "shapes", "model", "most"),
    [
        ("name", (schemas.RequestBody, schemas.PreflightBody), Deployment, spec.MAX_NAME),
        ("note", (schemas.RequestBody, schemas.SpecBody), Revision, spec.MAX_NOTE),
    ],
)
def test_form_api_and_database_take_as_much(
    field: str, shapes: tuple[Any, ...], model: type[models.Model], most: int
) -> None:
    in_api = {shape().fields[field].max_length for shape in shapes}
    assert {FIELDS[field].max_length, stored(model, field), *in_api} == {most}


def test_what_is_looked_up_is_stored_whole() -> None:
    assert (stored(ModelCheck, "uri"), stored(ModelCheck, "revision")) == (spec.MAX_URI, spec.MAX_REVISION)
    assert schemas.GrantBody().fields["flavor"].max_length == stored(Flavor, "slug")
