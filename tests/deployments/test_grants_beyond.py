"""More granted than the cluster has: it is done, for hardware may be on its way, and it is said."""

from __future__ import annotations

import pytest
from django.urls import reverse

from deployments.models import Flavor, QuotaGrant, Team, User
from tests.deployments.apis import Api
from tests.deployments.viewing import add_node, flat, signed_in

pytestmark = pytest.mark.django_db


def test_the_page_warns_of_it(team: Team, h100: Flavor, carol: User) -> None:
    add_node(gpus=4)
    client, wish = signed_in(carol), {"team": "search", "flavor": "h100-80gb", "until": "", "comment": "x"}
    granted = sum(QuotaGrant.objects.values_list("gpus", flat=True))

    beyond = client.post(reverse("quotas-grant"), wish | {"gpus": "15"}, follow=True)

    now = granted + 15
    said = f"All teams together may now hold {now} of {h100.name}, {now - 4} beyond the cluster: it has 4."
    assert said in flat(beyond.content.decode())
    QuotaGrant.objects.exclude(gpus=15).delete()
    cut = reverse("quotas-grant-change", args=[QuotaGrant.objects.get().pk])
    assert "beyond the cluster" not in flat(client.post(cut, {"gpus": "4", "until": ""}, follow=True).content.decode())
    text = flat(client.post(cut, {"gpus": "6", "until": ""}, follow=True).content.decode())
    assert f"may now hold 6 of {h100.name}, 2 beyond the cluster" in text


def test_the_api_says_by_how_much(team: Team, h100: Flavor, carol: User) -> None:
    admin, body = Api(carol), {"team": "search", "flavor": "h100-80gb", "gpus": 1}
    QuotaGrant.objects.all().delete()
    assert admin("post", "quota-grants/", body).json()["beyond_cluster"] is None, "nobody has seen the cluster"
    add_node(gpus=4)

    within = admin("post", "quota-grants/", body | {"gpus": 3}).json()
    beyond = admin("post", "quota-grants/", body | {"gpus": 19}).json()

    assert (within["beyond_cluster"], beyond["beyond_cluster"]) == (0, 19)
    path = f"quota-grants/{beyond['id']}/"
    assert admin("patch", path, {"gpus": 2}).json()["beyond_cluster"] == 2
    assert admin("get", path).json()["beyond_cluster"] == 2
