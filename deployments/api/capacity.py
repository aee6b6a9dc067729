"""The cluster: what it has of each kind of GPU, node by node, and who holds it."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api.base import ApiViewSet
from deployments.api.deployments import PROBLEMS
from deployments.services.capacity_now import FlavorNow, NodeNow, flavors_now, nodes_now


class FlavorCapacity(serializers.Serializer[Any]):
    """GPUs of one flavor. Of those in use by pods, `serving` belong to ready ones, `foreign` to none of Slipway's."""

    flavor = serializers.SlugField()
    nodes = serializers.IntegerField()
    capacity = serializers.IntegerField(help_text="On all nodes")
    allocatable = serializers.IntegerField(help_text="What kubelets offer to pods")
    granted = serializers.IntegerField(help_text="By the live grants of all teams")
    granted_beyond = serializers.IntegerField(help_text="Granted beyond what nodes have")
    reserved = serializers.IntegerField(help_text="Held by deployments in the ledger")
    in_use = serializers.IntegerField()
    serving = serializers.IntegerField()
    foreign = serializers.IntegerField()
    idle = serializers.IntegerField(help_text="Reserved, without a pod")
    away = serializers.IntegerField(help_text="On nodes that are cordoned or not ready")
    free = serializers.IntegerField()
    largest_free_block = serializers.IntegerField(help_text="The most that are free on one node")


class HolderAnswer(serializers.Serializer[Any]):
    """Who holds GPUs of a node: `serving`, `held` (its pod is not ready) or `foreign`. Of other teams no names."""

    gpus = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=("serving", "held", "foreign"))
    deployment = serializers.IntegerField(allow_null=True)
    name = serializers.CharField(allow_blank=True)
    team = serializers.CharField(allow_blank=True)
    pod = serializers.CharField(allow_blank=True)


class NodeCapacity(serializers.Serializer[Any]):
    """One GPU node. Memory of one of its GPUs in MiB."""

    name = serializers.CharField()
    product = serializers.CharField()
    memory_mib = serializers.IntegerField()
    ready = serializers.BooleanField()
    cordoned = serializers.BooleanField()
    capacity = serializers.IntegerField()
    allocatable = serializers.IntegerField()
    free = serializers.IntegerField()
    holders = HolderAnswer(many=True)


class CapacityAnswer(serializers.Serializer[Any]):
    """The cluster as the watcher last saw it."""

    flavors = FlavorCapacity(many=True)
    nodes = NodeCapacity(many=True)


class CapacityViewSet(ApiViewSet):
    """The cluster."""

    @extend_schema(operation_id="capacity", responses={200: CapacityAnswer, **PROBLEMS}, filters=False)
    def list(self, request: Request) -> Response:
        """What there is of each flavor and on each node, and who holds it; names of other teams stay with them."""
        nodes = nodes_now(self.principal)
        return Response({"flavors": [_flavor(row) for row in flavors_now()], "nodes": [_node(row) for row in nodes]})


def _flavor(row: FlavorNow) -> dict[str, Any]:
    return {
        "flavor": row.slug,
        "nodes": row.nodes,
        "capacity": row.capacity,
        "allocatable": row.total,
        "granted": row.granted,
        "granted_beyond": row.beyond,
        "reserved": row.reserved,
        "in_use": row.in_use,
        "serving": row.serving,
        "foreign": row.foreign,
        "idle": row.idle,
        "away": row.away,
        "free": row.free,
        "largest_free_block": row.block,
    }


# What tiles are called on the page.
KINDS = {"use": "serving", "idle": "held", "other": "foreign"}


def _node(row: NodeNow) -> dict[str, Any]:
    return {
        "name": row.name,
        "product": row.product,
        "memory_mib": row.memory_mib,
        "ready": row.ready,
        "cordoned": row.cordoned,
        "capacity": row.capacity,
        "allocatable": row.allocatable,
        "free": row.free,
        "holders": [
            {
                "gpus": holder["gpus"],
                "kind": KINDS[holder["kind"]],
                "deployment": holder["pk"],
                "name": holder["name"] if holder["pk"] else "",
                "team": holder["team"],
                "pod": holder["pod"],
            }
            for holder in row.holders
        ],
    }
