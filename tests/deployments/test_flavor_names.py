"""Kinds of GPU are told apart by their names, wherever one is chosen."""

from __future__ import annotations

import pytest
from django.urls import reverse

from deployments.models import Flavor, User
from tests.deployments import factories as make
from tests.deployments.apis import Api
from tests.deployments.viewing import flat, signed_in

pytestmark = pytest.mark.django_db

SHARED = {
    "slug": "h100-shared",
    "name": "h100 shared",
    "product": "NVIDIA-H100-80GB-HBM3-SHARED",
    "memory_mib": 81559,
    "compute_capability": 9.0,
    "resource_name": "nvidia.com/gpu.shared",
}


def test_two_flavors_on_offer_have_different_names(h100: Flavor, carol: User) -> None:
    admin = Api(carol)

    taken = admin("post", "flavors/", SHARED | {"name": h100.name.upper()})

    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
    assert [error["pointer"] for error in taken.json()["errors"]] == ["/name"]
    assert not Flavor.objects.filter(slug="h100-shared").exists()
    assert admin("post", "flavors/", SHARED).status_code == 201
    assert admin("patch", "flavors/h100-shared/", {"name": h100.name}).status_code == 409
    # The name of one that is not offered any more is free, until it is offered again.
    assert admin("patch", "flavors/h100-80gb/", {"active": False}).status_code == 200
    assert admin("patch", "flavors/h100-shared/", {"name": h100.name}).status_code == 200
    assert admin("patch", "flavors/h100-80gb/", {"active": True}).json()["code"] == "name_taken"
    assert admin("patch", "flavors/h100-80gb/", {"price_per_hour": 2}).status_code == 200


def test_the_form_says_it_at_the_name_and_keeps_the_rest(h100: Flavor, carol: User) -> None:
    other = make.make_flavor("l4-24gb")
    form = {
        "name": h100.name,
        "product": other.product,
        "memory_mib": other.memory_mib,
        "resource_name": other.resource_name,
        "compute_capability": "8.9",
        "gpus_per_node": "8",
        "price_per_hour": "0.7",
        "active": "on",
    }

    answer = signed_in(carol).post(reverse("flavor-edit", args=["l4-24gb"]), form)

    assert answer.status_code in {409, 422}
    text = flat(answer.content.decode())
    assert "The flavor “h100-80gb” has this name already" in text
    assert 'value="0.7"' in text
    other.refresh_from_db()
    assert other.name != h100.name
