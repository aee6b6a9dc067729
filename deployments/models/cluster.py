"""The cluster as the watcher sees it, and the kinds of GPU that it offers."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from deployments.labels import GPU_PREFIX


class Cluster(models.Model):
    """One Kubernetes cluster. The watcher keeps version, capabilities and `seen_at`; pages show how old it is."""

    name = models.SlugField(max_length=40, unique=True)
    uid = models.CharField(max_length=64, blank=True)
    version = models.CharField(max_length=32, blank=True)
    capabilities = models.JSONField(default=dict)
    seen_at = models.DateTimeField(null=True, blank=True)
    # Set while the API server cannot be reached; cleared on the next complete list.
    trouble = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.name


class Flavor(models.Model):
    """A kind of GPU that teams ask for. Memory in MiB as the GPU reports it, price in euro per GPU and hour."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=60)
    product = models.CharField(max_length=80, help_text="Value of the node label nvidia.com/gpu.product")
    memory_mib = models.PositiveIntegerField()
    resource_name = models.CharField(max_length=80, default="nvidia.com/gpu")
    compute_capability = models.DecimalField(max_digits=4, decimal_places=1)
    gpus_per_node = models.PositiveIntegerField(default=8)
    price_per_hour = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    # On top of the product label; {"label": "value"}.
    node_selector = models.JSONField(default=dict, blank=True)
    # [{"key", "operator", "value", "effect"}], as Kubernetes spells them, on top of the one for the resource's name.
    tolerations = models.JSONField(default=list, blank=True)
    active = models.BooleanField(default=True)

    class Meta:
        ordering = ["-memory_mib", "slug"]

    def __str__(self) -> str:
        return self.name

    def stands_on(self, node: Node) -> bool:
        """True when the GPUs of this node are of this flavor; labels that are not kept of nodes are not compared."""
        kept = {name: value for name, value in self.node_selector.items() if name.startswith(GPU_PREFIX)}
        same = (node.product, node.resource_name) == (self.product, self.resource_name)
        return same and all(node.labels.get(name) == value for name, value in kept.items())


class Node(models.Model):
    """A GPU node as last seen. `requested` counts the GPUs that pods on it ask for, ours and others'."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="nodes")
    name = models.CharField(max_length=253)
    product = models.CharField(max_length=80, blank=True)
    resource_name = models.CharField(max_length=80, default="nvidia.com/gpu")
    memory_mib = models.PositiveIntegerField(default=0)
    capacity = models.PositiveIntegerField(default=0)
    allocatable = models.PositiveIntegerField(default=0)
    requested = models.PositiveIntegerField(default=0)
    # [{"namespace", "pod", "gpus", "deployment": id or null}] of the pods bound to this node that hold GPUs.
    holders = models.JSONField(default=list)
    ready = models.BooleanField(default=False)
    unschedulable = models.BooleanField(default=False)
    labels = models.JSONField(default=dict)
    seen_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["cluster", "name"], name="one_row_per_node")]

    def __str__(self) -> str:
        return self.name

    @property
    def free(self) -> int:
        return max(0, self.allocatable - self.requested) if self.ready and not self.unschedulable else 0
