"""What the cluster has of each flavor, and who holds it: one query each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce, JSONObject

from deployments.models import Deployment, Flavor, Node, Principal, QuotaAccount, QuotaGrant


@dataclass(frozen=True)
class FlavorNow:
    """GPUs of one flavor: `in_use` by pods, `idle` reserved but without a pod, `block` the most free on one node.

    Of those in use, `serving` belong to ready pods of Slipway and `foreign` to pods that are not Slipway's.
    """

    slug: str
    name: str
    memory_mib: int
    price: float
    total: int = 0
    in_use: int = 0
    serving: int = 0
    foreign: int = 0
    idle: int = 0
    block: int = 0
    away: int = 0
    per_node: int = 0
    nodes: int = 0
    capacity: int = 0
    granted: int = 0
    reserved: int = 0

    @property
    def beyond(self) -> int:
        """GPUs granted beyond what nodes have: promises that cannot all be kept at once."""
        return max(0, self.granted - self.total) if self.nodes else 0

    @property
    def free(self) -> int:
        """GPUs that nobody uses and nobody has reserved."""
        return max(0, self.total - self.away - self.in_use - self.idle)

    @property
    def held(self) -> int:
        """GPUs that somebody has and that serve nobody: of pods on their way or failing, and reserved ones."""
        return max(0, self.in_use - self.serving - self.foreign) + self.idle

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts of the bar."""
        return [
            {"kind": "use", "value": self.serving, "label": f"{self.serving} serving"},
            {"kind": "idle", "value": self.held, "label": f"{self.held} held, not serving"},
            {"kind": "other", "value": self.foreign, "label": f"{self.foreign} others"},
            {"kind": "free", "value": self.free, "label": f"{self.free} free"},
            {"kind": "other", "value": self.away, "label": f"{self.away} not available"},
        ]

    @property
    def label(self) -> str:
        """The bar in words."""
        held = f"{self.serving} serving, {self.held} held and not serving"
        return f"{self.name}: {held}, {self.free} free of {self.total}"


@dataclass(frozen=True)
class NodeNow:
    """One GPU node: a tile per GPU, and who holds them (names of other teams left out)."""

    name: str
    product: str
    ready: bool
    cordoned: bool
    allocatable: int
    capacity: int
    tiles: list[str] = field(default_factory=list)
    holders: list[dict[str, Any]] = field(default_factory=list)
    memory_mib: int = 0

    @property
    def free(self) -> int:
        return self.tiles.count("free")

    @property
    def label(self) -> str:
        used = f"{self.tiles.count('use')} serving, {self.tiles.count('idle')} held and not serving"
        state = (", cordoned" if self.cordoned else "") + ("" if self.ready else ", not ready")
        return f"{self.name}: {used}, {self.free} free of {self.allocatable} GPUs{state}"


def flavors_now() -> list[FlavorNow]:
    """Every flavor that is offered, with what the watcher last saw and what the ledger holds."""
    reserved = (
        QuotaAccount.objects.filter(flavor=OuterRef("pk")).values("flavor").annotate(n=Sum("reserved")).values("n")
    )
    granted = (
        QuotaGrant.objects.live().filter(flavor=OuterRef("pk")).order_by().values("flavor").annotate(n=Sum("gpus"))
    )
    nodes = Node.objects.filter(product=OuterRef("product"), resource_name=OuterRef("resource_name")).values(
        data=JSONObject(
            allocatable="allocatable",
            requested="requested",
            ready="ready",
            cordoned="unschedulable",
            capacity="capacity",
            holders="holders",
        )
    )
    rows = (
        Flavor.objects.filter(active=True)
        .annotate(
            reserved=Coalesce(Subquery(reserved), 0),
            granted=Coalesce(Subquery(granted.values("n")), 0),
            nodes=ArraySubquery(nodes),
        )
        .values("slug", "name", "memory_mib", "price_per_hour", "reserved", "granted", "nodes", "gpus_per_node")
    )
    return [_flavor(row) for row in rows]


def _flavor(row: Mapping[str, Any]) -> FlavorNow:
    nodes = row["nodes"]
    usable = [node for node in nodes if node["ready"] and not node["cordoned"]]
    mine = [holder for node in nodes for holder in node["holders"] if holder.get("deployment")]
    ours = sum(holder.get("gpus", 0) for holder in mine)
    in_use = sum(node["requested"] for node in nodes)
    total = sum(node["allocatable"] for node in nodes)
    away = sum(max(0, n["allocatable"] - n["requested"]) for n in nodes if not (n["ready"] and not n["cordoned"]))
    return FlavorNow(
        slug=row["slug"],
        name=row["name"],
        memory_mib=row["memory_mib"],
        price=float(row["price_per_hour"]),
        total=total,
        in_use=in_use,
        serving=sum(holder.get("gpus", 0) for holder in mine if _serves(holder)),
        foreign=max(0, in_use - ours),
        # Never more than there is: a ledger ahead of a cluster that lost nodes must not draw past the bar's end.
        idle=min(max(0, row["reserved"] - ours), max(0, total - in_use - away)),
        block=max((max(0, node["allocatable"] - node["requested"]) for node in usable), default=0),
        away=away,
        per_node=row["gpus_per_node"],
        nodes=len(nodes),
        capacity=sum(node["capacity"] for node in nodes),
        granted=row["granted"],
        reserved=row["reserved"],
    )


def _serves(holder: Mapping[str, Any]) -> bool:
    """True when the pod that holds the GPUs is ready; one in a crash loop holds them and serves nobody."""
    return bool(holder.get("ready", True))


def nodes_now(principal: Principal) -> list[NodeNow]:
    """Every GPU node with a tile per GPU. Two queries: nodes, and the deployments whose names may be shown."""
    nodes = list(Node.objects.filter(capacity__gt=0).order_by("product", "name"))
    ids = {holder["deployment"] for node in nodes for holder in node.holders if holder.get("deployment")}
    known: dict[int, Mapping[str, Any]] = {}
    if ids:
        visible = Deployment.objects.visible_to(principal).filter(pk__in=ids)
        known = {row["pk"]: row for row in visible.values("pk", "name", "team__slug")}
    return [_node(node, known) for node in nodes]


def _node(node: Node, known: dict[int, Mapping[str, Any]]) -> NodeNow:
    tiles: list[str] = []
    holders = []
    for holder in node.holders:
        gpus = int(holder.get("gpus", 0))
        row = known.get(holder.get("deployment") or 0)
        kind = ("use" if _serves(holder) else "idle") if holder.get("deployment") else "other"
        tiles += [kind] * gpus
        holders.append(
            {
                "gpus": gpus,
                "kind": kind,
                "pk": row["pk"] if row else None,
                "name": row["name"] if row else ("another team" if holder.get("deployment") else "not Slipway's"),
                "team": row["team__slug"] if row else "",
                "pod": holder.get("pod", "") if row else "",
            }
        )
    tiles += ["other"] * max(0, node.requested - len(tiles))
    usable = node.ready and not node.unschedulable
    tiles += ["free" if usable else "off"] * max(0, node.allocatable - len(tiles))
    return NodeNow(
        name=node.name,
        product=node.product,
        ready=node.ready,
        cordoned=node.unschedulable,
        allocatable=node.allocatable,
        capacity=node.capacity,
        tiles=tiles,
        holders=holders,
        memory_mib=node.memory_mib,
    )
