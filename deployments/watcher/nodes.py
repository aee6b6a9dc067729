"""Node rows: which GPUs there are and who holds them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.db import transaction
from django.utils import timezone

from deployments.kube.observe import PodView
from deployments.models import Cluster, Node
from deployments.watcher.seen import NodeSeen
from deployments.watcher.world import World

_COLUMNS = [
    "product",
    "resource_name",
    "memory_mib",
    "capacity",
    "allocatable",
    "requested",
    "holders",
    "ready",
    "unschedulable",
    "labels",
    "seen_at",
]


def write_nodes(cluster: Cluster, world: World) -> int:
    """Store every GPU node with its holders, and drop rows of nodes that are gone; returns how many there are."""
    by_node: dict[str, list[PodView]] = defaultdict(list)
    for pod in world.gpu_pods():
        by_node[pod.node].append(pod)
    rows = [_row(cluster, node, by_node[node.name]) for node in world.nodes.values()]
    with transaction.atomic():
        Node.objects.filter(cluster=cluster).exclude(name__in=[row.name for row in rows]).delete()
        Node.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["cluster", "name"], update_fields=_COLUMNS, batch_size=500
        )
    return len(rows)


def _row(cluster: Cluster, node: NodeSeen, pods: list[PodView]) -> Node:
    return Node(
        cluster=cluster,
        name=node.name,
        product=node.product,
        resource_name=node.resource,
        memory_mib=node.memory_mib,
        capacity=node.capacity,
        allocatable=node.allocatable,
        requested=sum(pod.gpus for pod in pods),
        holders=[_holder(pod) for pod in sorted(pods, key=lambda pod: (pod.namespace, pod.name))],
        ready=node.ready,
        unschedulable=node.unschedulable,
        labels=dict(node.labels),
        seen_at=timezone.now(),
    )


def _holder(pod: PodView) -> dict[str, Any]:
    deployment = int(pod.deployment) if pod.deployment.isdigit() else None
    held = {"namespace": pod.namespace, "pod": pod.name, "gpus": pod.gpus, "deployment": deployment}
    return {**held, "ready": pod.ready}
