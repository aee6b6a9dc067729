"""Kinds of GPU: proposed by nodes, offered by admins, and carried into what runs on them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from deployments.models import Cluster, Event, Flavor, Node, Team, User
from deployments.services import facts, flavor_proposals, flavors, ledger, requests
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError, RefusedError
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.viewing import add_node, see_cluster

pytestmark = pytest.mark.django_db

L4 = {
    "slug": "l4",
    "name": "L4 24 GB",
    "product": "NVIDIA-L4",
    "memory_mib": 23034,
    "compute_capability": "8.9",
    "gpus_per_node": 8,
    "price_per_hour": "0.85",
}


def add(product: str, *, resource: str = "nvidia.com/gpu", gpus: int = 2, memory: int = 0, **labels: str) -> Node:
    """A ready node with such GPUs; `labels` are what GPU feature discovery says, without the prefix."""
    return Node.objects.create(
        cluster=see_cluster(),
        name=f"node-{Node.objects.count()}",
        product=product,
        resource_name=resource,
        memory_mib=memory,
        capacity=gpus,
        allocatable=gpus,
        ready=True,
        labels={f"nvidia.com/{name.replace('__', '.')}": value for name, value in labels.items()},
    )


def test_admins_alone_offer_gpus(team: Team, alice: User, carol: User) -> None:
    with pytest.raises(NotAllowedError):
        flavors.create(principal=make.principal(alice), **L4)
    with pytest.raises(NotAllowedError):
        flavors.create(principal=make.principal(carol, "read", "write"), **L4)
    row = flavors.create(principal=make.principal(carol), **L4)
    assert (row.slug, row.memory_mib, row.price_per_hour) == ("l4", 23034, Decimal("0.85"))
    assert row.resource_name == "nvidia.com/gpu"
    assert Event.objects.get(kind="flavor_made").data["after"]["product"] == "NVIDIA-L4"
    with pytest.raises(ConflictError) as refused:
        flavors.create(principal=make.principal(carol), **L4)
    assert refused.value.field == "slug"
    with pytest.raises(NotAllowedError):
        flavors.change(principal=make.principal(alice), slug="l4", price_per_hour=0)
    with pytest.raises(MissingError):
        flavors.change(principal=make.principal(carol), slug="l5", price_per_hour=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slug", "L4"),
        ("slug", "-l4"),
        ("name", ""),
        ("product", "NVIDIA L4"),
        ("memory_mib", 0),
        ("memory_mib", True),
        ("memory_mib", 1.5),
        ("memory_mib", "23034"),
        ("compute_capability", "NaN"),
        ("compute_capability", "٨.٩"),
        ("compute_capability", 8.95),
        ("compute_capability", True),
        ("price_per_hour", -1),
        ("price_per_hour", 1e308),
        ("gpus_per_node", 0),
        ("resource_name", "cpu"),
        ("resource_name", "nvidia.com/mig-1g"),
        ("node_selector", ["a"]),
        ("node_selector", {"pool": "a b"}),
        ("node_selector", {"-pool": "a"}),
        ("node_selector", {"pool": 1}),
        ("tolerations", {"key": "a"}),
        ("tolerations", [{"operator": "Exists"}]),
        ("tolerations", [{"key": "a", "operator": "In"}]),
        ("tolerations", [{"key": "a", "operator": "Exists", "value": "b"}]),
        ("tolerations", [{"key": "a", "effect": "Never"}]),
        ("tolerations", [{"key": "a", "tolerationSeconds": 5}]),
        ("active", "yes"),
        ("colour", "green"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_field(carol: User, field: str, value: Any) -> None:
    with pytest.raises(InvalidError) as refused:
        flavors.create(principal=make.principal(carol), **{**L4, field: value})
    assert refused.value.field == field
    assert not Flavor.objects.exists()


@pytest.mark.parametrize("name", ["nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-1g.10gb.me"])
def test_slices_and_shares_have_resource_names_of_their_own(carol: User, name: str) -> None:
    assert flavors.create(principal=make.principal(carol), **L4, resource_name=name).resource_name == name


def test_a_change_is_recorded_before_and_after(carol: User) -> None:
    make.make_flavor("l4-24gb")
    who = make.principal(carol)
    toleration = {"key": "pool", "operator": "Equal", "value": "ai", "effect": "NoSchedule"}
    flavors.change(principal=who, slug="l4-24gb", price_per_hour=2.5, node_selector={"pool": "ai"})
    flavors.change(principal=who, slug="l4-24gb", tolerations=[toleration], active=False)
    flavors.change(principal=who, slug="l4-24gb", active=False)
    first, second = Event.objects.filter(kind="flavor_changed").order_by("pk")
    assert first.data["before"] == {"price_per_hour": 0.0, "node_selector": {}}
    assert first.data["after"] == {"price_per_hour": 2.5, "node_selector": {"pool": "ai"}}
    assert second.data["after"] == {"tolerations": [toleration], "active": False}
    with pytest.raises(InvalidError):
        flavors.change(principal=who, slug="l4-24gb", colour="green")


def test_what_is_held_does_not_become_another_kind(team: Team, h100: Flavor, ann: User, carol: User) -> None:
    row = make.make_deployment(team, ann, approved=True)
    ledger.reserve(deployment=row, revision=row.latest, gpus=1)  # type: ignore[arg-type]
    with pytest.raises(ConflictError) as refused:
        flavors.change(principal=make.principal(carol), slug=h100.slug, resource_name="nvidia.com/gpu.shared")
    assert refused.value.field == "resource_name"
    flavors.change(principal=make.principal(carol), slug=h100.slug, price_per_hour=3)


def test_nodes_propose_what_nobody_offers_yet(h100: Flavor) -> None:
    add_node()
    add("NVIDIA-L4", gpus=8, memory=23034, gpu__compute__major="8", gpu__compute__minor="9")
    add("NVIDIA-L4", gpus=4, memory=23034)
    add("NVIDIA-L4-SHARED", gpus=40, memory=23034)
    add("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", gpus=7, memory=4864)
    add("NVIDIA-Z9000", gpus=1, memory=99_000, gpu__compute__major="12", gpu__compute__minor="0")
    add(
        "NVIDIA-H100-80GB-HBM3",
        resource="nvidia.com/mig-1g.10gb",
        **{"mig-1g__10gb__count": "7", "mig-1g__10gb__memory": "9984", "mig-3g__40gb__count": "2"},
    )

    found = {(item.values["product"], item.values["resource_name"]): item for item in flavor_proposals.proposals()}

    l4 = found["NVIDIA-L4", "nvidia.com/gpu"]
    assert (l4.nodes, l4.gpus, l4.values["gpus_per_node"]) == (2, 12, 8)
    assert (l4.values["memory_mib"], l4.values["compute_capability"]) == (23034, "8.9")
    assert found["NVIDIA-L4-SHARED", "nvidia.com/gpu"].values["name"].endswith(" shared")
    assert found["NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "nvidia.com/gpu"].values["name"].endswith(" MIG 1g.5gb")
    assert found["NVIDIA-Z9000", "nvidia.com/gpu"].values["compute_capability"] == "12.0"
    mixed = found["NVIDIA-H100-80GB-HBM3", "nvidia.com/mig-1g.10gb"]
    assert (mixed.gpus, mixed.values["memory_mib"]) == (7, 9984)
    assert ("NVIDIA-H100-80GB-HBM3", "nvidia.com/mig-3g.40gb") in found
    assert ("NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu") not in found


def test_every_proposal_can_be_offered_as_it_is(carol: User) -> None:
    add("NVIDIA-L4", gpus=8, memory=23034)
    add("NVIDIA-L4-SHARED", gpus=40, memory=23034)
    add("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", gpus=7, memory=4864)
    add("NVIDIA-H100-80GB-HBM3", resource="nvidia.com/mig-1g.10gb", gpus=7, **{"mig-1g__10gb__count": "7"})
    for item in flavor_proposals.proposals():
        flavors.create(principal=make.principal(carol), **item.values)
    assert Flavor.objects.count() == 4
    assert flavor_proposals.proposals() == []


def test_slices_of_a_gpu_do_not_count_as_whole_ones(h100: Flavor) -> None:
    add_node(gpus=4)
    add("NVIDIA-H100-80GB-HBM3", resource="nvidia.com/mig-1g.10gb", gpus=7)
    known = facts.flavors(Cluster.objects.get())[h100.slug]
    assert (known.total, known.free, known.largest_free_block) == (4, 4, 4)
    now = flavors.capacity_of(h100)
    assert (now.total, now.free, now.block, now.granted, now.reserved) == (4, 4, 4, 4, 0)


def test_selector_and_tolerations_reach_what_is_signed(
    hub: list[str], team: Team, h100: Flavor, ann: User, carol: User
) -> None:
    pool = {"key": "pool", "operator": "Exists", "effect": "NoSchedule"}
    flavors.change(principal=make.principal(carol), slug=h100.slug, node_selector={"pool": "ai"}, tolerations=[pool])
    spec = DeploymentSpec.from_json(make.a_spec())
    row = requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)
    assert row.latest is not None
    assert row.latest.resolution["node_selector"] == {"pool": "ai"}
    predictor = next(obj for obj in row.latest.objects_json if obj["kind"] == "InferenceService")["spec"]["predictor"]
    assert predictor["nodeSelector"] == {"pool": "ai", "nvidia.com/gpu.product": h100.product}
    common = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert predictor["tolerations"] == [common, pool]

    flavors.change(principal=make.principal(carol), slug=h100.slug, node_selector={"pool": "b"})
    row.latest.refresh_from_db()
    assert row.latest.resolution["node_selector"] == {"pool": "ai"}, "a revision keeps the flavor it was signed with"


def test_a_replica_does_not_span_slices(hub: list[str], team: Team, h100: Flavor, ann: User) -> None:
    h100.resource_name = "nvidia.com/mig-3g.40gb"
    h100.save()
    args = {"max-model-len": 4096, "tensor-parallel-size": 2}
    spec = DeploymentSpec.from_json(make.a_spec(engine={"profile": "vllm-0.32.0", "args": args}))
    with pytest.raises(RefusedError) as refused:
        requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)
    assert "slices_apart" in [finding.code for finding in refused.value.findings]
