"""Pure builders: what is wanted in, Kubernetes objects as dicts out."""

from deployments.manifests.cluster import build_cluster_objects
from deployments.manifests.common import (
    Object,
    Platform,
    Resolution,
    TeamWish,
    Wish,
    key_of,
    object_hash,
    route_prefix,
)
from deployments.manifests.count import gpus_of
from deployments.manifests.deployment import SERVICES, build, marked, stopped, with_keys
from deployments.manifests.guards import build_service_account
from deployments.manifests.team import build_team

__all__ = [
    "SERVICES",
    "Object",
    "Platform",
    "Resolution",
    "TeamWish",
    "Wish",
    "build",
    "build_cluster_objects",
    "build_service_account",
    "build_team",
    "gpus_of",
    "key_of",
    "marked",
    "object_hash",
    "route_prefix",
    "stopped",
    "with_keys",
]
