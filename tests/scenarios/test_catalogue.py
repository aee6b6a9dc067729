"""From a card of the catalogue over the request form to a deployment that runs."""

from __future__ import annotations

import pytest
from django.urls import reverse

from deployments.models import CatalogEntry, Deployment
from portal.management import platform
from tests.deployments.viewing import signed_in
from tests.scenarios.stage import Says, Stage

pytestmark = pytest.mark.django_db


@pytest.mark.timeout(200)
def test_a_card_of_the_catalogue_becomes_a_deployment_that_runs(stage: Stage):
    platform.make_catalog()
    entry = CatalogEntry.objects.filter(gated=False).order_by("parameters_billion")[0]
    preset = next(preset for preset in entry.choices if preset.flavor == "l40s-48gb")
    browser, form = signed_in(stage.user), reverse("deployment-create")

    wish = {"model": entry.slug, "flavor": preset.flavor, "team": "search"}
    values = browser.get(form, wish).context["values"]
    answer = browser.post(form, values)

    row = Deployment.objects.get()
    assert answer.headers["Location"] == reverse("deployment-detail", args=[row.pk])
    row = stage.comes_to(row, Says("Running"), within=120)
    assert (row.applied.spec["source"]["revision"], row.applied.flavor.slug) == (entry.revision, preset.flavor)
    assert preset.args.items() <= row.applied.spec["engine"]["args"].items()
