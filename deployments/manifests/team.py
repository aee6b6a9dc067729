"""A team's namespace: its quota, its limits, its closed network, and who of Slipway may act in it."""

from __future__ import annotations

from typing import Any

from deployments.labels import LABEL_INSTALL, LABEL_TEAM, MANAGED_BY
from deployments.manifests.common import Object, TeamWish, sealed
from deployments.manifests.presets import build_presets

WORKER_ROLE = "slipway-team-worker"
LIVE_ROLE = "slipway-team-live"


def build_team(wish: TeamWish) -> list[Object]:
    """The objects of a team, in the order they are applied: the namespace first, its guards before any workload."""
    return sealed(
        [
            _namespace(wish),
            _resource_quota(wish),
            _limit_range(wish),
            _deny_all(wish),
            _allow_dns(wish),
            _role_binding(wish, "slipway-worker", WORKER_ROLE, wish.platform.worker_account),
            _role_binding(wish, "slipway-live", LIVE_ROLE, wish.platform.live_account, wish.platform.watcher_account),
            *(build_presets(wish) if wish.presets else []),
        ]
    )


def _metadata(wish: TeamWish, name: str) -> dict[str, Any]:
    return {"name": name, "namespace": wish.namespace, "labels": _labels(wish)}


def _labels(wish: TeamWish) -> dict[str, str]:
    return {
        "app.kubernetes.io/managed-by": MANAGED_BY,
        LABEL_INSTALL: wish.install_id,
        LABEL_TEAM: wish.team,
    }


def _namespace(wish: TeamWish) -> Object:
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": wish.namespace, "labels": {**_labels(wish), **levels}},
    }


def _resource_quota(wish: TeamWish) -> Object:
    # Only the `requests.` form is enforced for extended resources.
    hard = {f"requests.{name}": str(count) for name, count in sorted(wish.gpus.items())}
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": _metadata(wish, "slipway"),
        "spec": {"hard": {"requests.nvidia.com/gpu": "0", **hard}},
    }


def _limit_range(wish: TeamWish) -> Object:
    # No default limits: they would make pods invalid whose containers set larger requests and no limits.
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": _metadata(wish, "slipway"),
        "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "100m", "memory": "256Mi"}}]},
    }


def _deny_all(wish: TeamWish) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(wish, "slipway-deny-all"),
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def _allow_dns(wish: TeamWish) -> Object:
    to_dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(wish, "slipway-allow-dns"),
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{"to": [to_dns], "ports": [{"protocol": kind, "port": 53} for kind in ("UDP", "TCP")]}],
        },
    }


def _role_binding(wish: TeamWish, name: str, role: str, *accounts: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _metadata(wish, name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [
            {"kind": "ServiceAccount", "name": account, "namespace": wish.platform.portal_namespace}
            for account in accounts
        ],
    }
