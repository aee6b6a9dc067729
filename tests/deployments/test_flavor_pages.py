"""The pages of kinds of GPU, and what the page of capacity says of them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.urls import reverse

from deployments.models import Flavor, Team, User
from tests.deployments import factories as make
from tests.deployments.viewing import add_node, flat, signed_in

L4 = {
    "slug": "l4",
    "name": "L4 24 GB",
    "product": "NVIDIA-L4",
    "resource_name": "nvidia.com/gpu",
    "memory_mib": "23,034",
    "compute_capability": "8,9",
    "gpus_per_node": "8",
    "price_per_hour": "0.85",
    "node_selector": "pool=ai\n\nzone=b",
    "tolerations": "pool=ai:NoSchedule\nspot:NoExecute\nkept",
}
TOLERATIONS = [
    {"key": "pool", "operator": "Equal", "value": "ai", "effect": "NoSchedule"},
    {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
    {"key": "kept", "operator": "Exists"},
]


def test_an_admin_offers_what_a_node_proposes(carol: User) -> None:
    add_node(gpus=4)
    client = signed_in(carol)
    listed = flat(client.get(reverse("flavors")).content.decode())
    assert "4 on 1 node" in listed
    link = f"{reverse('flavor-create')}?product=NVIDIA-H100-80GB-HBM3&resource=nvidia.com/gpu"
    assert link.replace("&", "&amp;") in listed
    text = client.get(link).context["text"]
    assert (text["product"], text["memory_mib"], text["gpus_per_node"]) == ("NVIDIA-H100-80GB-HBM3", "81559", "4")

    assert client.post(reverse("flavor-create"), text).status_code == 302

    assert Flavor.objects.get().product == "NVIDIA-H100-80GB-HBM3"
    assert client.get(reverse("flavors")).context["proposals"] == []


def test_what_is_typed_is_stored_and_shown_again(carol: User) -> None:
    client = signed_in(carol)
    assert client.post(reverse("flavor-create"), L4).status_code == 302
    row = Flavor.objects.get()
    assert (row.memory_mib, row.compute_capability, row.price_per_hour) == (23034, Decimal("8.9"), Decimal("0.85"))
    assert (row.node_selector, row.tolerations) == ({"pool": "ai", "zone": "b"}, TOLERATIONS)
    shown = client.get(reverse("flavor-edit", args=["l4"])).context["text"]
    assert shown["tolerations"] == L4["tolerations"]
    assert client.post(reverse("flavor-edit", args=["l4"]), {**shown, "active": ""}).status_code == 302
    row.refresh_from_db()
    assert not row.active
    assert row.tolerations == TOLERATIONS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slug", "L 4"),
        ("memory_mib", "٢٣"),
        ("memory_mib", ""),
        ("compute_capability", "nine"),
        ("price_per_hour", "-1"),
        ("product", "NVIDIA L4"),
        ("resource_name", "cpu"),
        ("node_selector", "pool"),
        ("tolerations", "=ai:NoSchedule"),
        ("tolerations", "pool:Never"),
    ],
)
def test_a_wrong_field_is_said_beside_it_and_nothing_is_lost(carol: User, field: str, value: str) -> None:
    answer = signed_in(carol).post(reverse("flavor-create"), {**L4, field: value})
    assert answer.status_code == 422
    assert list(answer.context["errors"]) == [field]
    assert answer.context["text"]["price_per_hour" if field != "price_per_hour" else "name"] in {"0.85", "L4 24 GB"}
    assert f'aria-describedby="h-{field} e-{field}"' in answer.content.decode()
    assert not Flavor.objects.exists()


def test_all_that_is_wrong_is_said_at_once(carol: User) -> None:
    wrong = {"slug": "L 4", "name": "", "memory_mib": "much", "price_per_hour": "-1", "tolerations": "=ai"}
    answer = signed_in(carol).post(reverse("flavor-create"), {**L4, **wrong})
    assert answer.status_code == 422
    assert set(answer.context["errors"]) == set(wrong)
    assert {name: answer.context["text"][name] for name in wrong} == wrong
    assert answer.content.decode().count('aria-invalid="true"') == len(wrong)


@pytest.mark.parametrize(("name", "args"), [("flavors", []), ("flavor-create", []), ("flavor-edit", ["h100-80gb"])])
def test_the_pages_are_for_admins(
    team: Team, h100: Flavor, alice: User, carol: User, name: str, args: list[str]
) -> None:
    url = reverse(name, args=args)
    assert signed_in(carol).get(url).status_code == 200
    assert signed_in(alice).get(url).status_code == 404
    if name != "flavors":
        assert signed_in(alice).post(url, L4).status_code == 404


def test_capacity_says_what_was_promised_beside_what_there_is(team: Team, h100: Flavor, alice: User) -> None:
    make.make_grant(team, h100, 5)
    add_node(gpus=4, holders=[{"namespace": "x", "pod": "x", "gpus": 1, "deployment": None}])
    [now] = signed_in(alice).get(reverse("capacity")).context["flavors"]
    assert (now.nodes, now.capacity, now.total, now.granted, now.reserved) == (1, 4, 4, 9, 0)
    assert (now.in_use, now.free, now.block, now.beyond) == (1, 3, 3, 5)
    text = flat(signed_in(alice).get(reverse("capacity")).content.decode())
    assert "granted 5 beyond what there is" in text
