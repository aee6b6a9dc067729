"""The API's schema: for whom it is, and that the copy in docs/ is the one that is served."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.deployments.apis import problem

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]


def test_the_schema_is_for_those_who_may_ask(client, ann_api, settings):
    assert problem(client.get("/api/v1/schema/"), 401)["code"] == "not_authenticated"
    assert ann_api("get", "schema/").status_code == 200
    settings.SLIPWAY_PUBLIC_SCHEMA = True
    assert client.get("/api/v1/schema/").status_code == 200


def test_the_schema_is_served_and_kept(client, ann):
    client.force_login(ann)
    assert client.get("/api/v1/schema/").status_code == 200
    assert client.get("/api/v1/schema/?format=json").json()["info"]["title"] == "Slipway API"
    made = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=made)
    kept = (ROOT / "docs" / "schema.yml").read_text()
    assert made.getvalue().strip() == kept.strip(), "make it anew: manage.py spectacular --file docs/schema.yml"
