"""What stands around the pods of a deployment: its budget, its metrics, its network, its way in, its account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from deployments.labels import LABEL_DEPLOYMENT, LABEL_REVISION, MANAGED_BY
from deployments.manifests.common import (
    Object,
    Platform,
    Wish,
    engines_of,
    metadata_of,
    route_prefix,
    sealed,
    selector_of,
)
from deployments.manifests.downloads import google_account_of

Rules: TypeAlias = Sequence[Mapping[str, Any]]

# The port of the engine itself, as its containers declare it.
PORT_NAME = "http1"
# What prometheus-operator calls the pods that it makes; only by it is a PodMonitor read.
SCRAPERS = ("prometheus", "prometheus-agent")


def disruption_budget(wish: Wish) -> Object:
    """Of all its pods one at a time may be taken down by who drains a node."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata_of(wish, wish.name),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": engines_of(wish),
        },
    }


def pod_monitor(wish: Wish, *more_labels: str) -> Object:
    """The engines as targets of Prometheus; `more_labels` of the pods become labels of the series too."""
    interval = wish.platform.scrape_interval_seconds
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata_of(wish, wish.name),
        "spec": {
            "selector": engines_of(wish),
            "podTargetLabels": [LABEL_DEPLOYMENT, LABEL_REVISION, *more_labels],
            "podMetricsEndpoints": [
                {
                    "port": PORT_NAME,
                    "path": "/metrics",
                    "interval": f"{interval}s",
                    "scrapeTimeout": f"{max(1, interval - 1)}s",
                }
            ],
        },
    }


def http_route(wish: Wish, backend: Mapping[str, Any]) -> Object:
    """The way in through the gateway, to `backend` (group, kind, name, port)."""
    platform = wish.platform
    prefix = route_prefix(wish.namespace, wish.name)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata_of(wish, f"{wish.name}-slipway"),
        "spec": {
            "parentRefs": [
                {
                    "group": "gateway.networking.k8s.io",
                    "kind": "Gateway",
                    "name": platform.gateway_name,
                    "namespace": platform.gateway_namespace,
                }
            ],
            "rules": [
                {
                    # Only the OpenAI API: metrics and the engine's own controls stay inside the cluster.
                    "matches": [{"path": {"type": "PathPrefix", "value": f"{prefix}/v1"}}],
                    "filters": [
                        # The gateway has asked whose key it is. A model's own code could read it, and use it elsewhere.
                        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Authorization"]}},
                        {
                            "type": "URLRewrite",
                            "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}},
                        },
                    ],
                    "timeouts": {"request": "1h", "backendRequest": "1h"},
                    "backendRefs": [{**backend, "weight": 1}],
                }
            ],
        },
    }


def network_policy(wish: Wish, port: int, *, ingress: Rules = (), egress: Rules = ()) -> Object:
    """Who may reach the pods at the engine's port, and what they may reach; `ingress` and `egress` are added to it."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata_of(wish, f"{wish.name}-{MANAGED_BY}"),
        "spec": {
            "podSelector": selector_of(wish),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    # Prompts and probes of Slipway itself come through the gateway too.
                    "from": [gateway_peer(wish.platform), monitoring_peer(wish.platform)],
                    "ports": [{"protocol": "TCP", "port": port}],
                },
                *ingress,
            ],
            "egress": [*([] if _fetches_nothing(wish) else [_outside(wish)]), *egress],
        },
    }


def fetch_policy(wish: Wish, selector: Mapping[str, Any], *, egress: Rules = ()) -> Object:
    """What pods that fetch weights ahead may reach: what an initializer may, and nobody reaches them."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata_of(wish, f"{wish.name}-{MANAGED_BY}-fetch"),
        "spec": {
            "podSelector": dict(selector),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [_outside(wish), *egress],
        },
    }


def _outside(wish: Wish) -> dict[str, Any]:
    """The initializer fetches what users name: outside by HTTPS only, nothing inside the cluster."""
    return {
        "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": _closed_ranges(wish)}}],
        "ports": [{"protocol": "TCP", "port": 443}],
    }


def _fetches_nothing(wish: Wish) -> bool:
    """True where no pod of the engine downloads anything: weights are mounted, and there is nothing beside them."""
    mounted = bool(wish.resolution.image_mode) or wish.resolution.claim_gib > 0
    return mounted and not wish.resolution.adapters


def gateway_peer(platform: Platform) -> dict[str, Any]:
    """The proxies of the gateway as a peer of a NetworkPolicy."""
    peer = _of_namespace(platform.gateway_pods_namespace or platform.gateway_namespace)
    labels = dict(platform.gateway_pods_labels)
    return {**peer, "podSelector": {"matchLabels": labels}} if labels else peer


def monitoring_peer(platform: Platform) -> dict[str, Any]:
    """Prometheus as a peer of a NetworkPolicy."""
    scrapers = {"key": "app.kubernetes.io/name", "operator": "In", "values": list(SCRAPERS)}
    return {**_of_namespace(platform.monitoring_namespace), "podSelector": {"matchExpressions": [scrapers]}}


def _of_namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def build_service_account(wish: Wish, secret_names: tuple[str, ...] | None = None, *, pulls: bool = False) -> Object:
    """The account the pods run as; it lists exactly the Secrets in use, so a rotation needs no new approval.

    With `pulls` they are for pulling images, not for downloading weights.
    """
    names = wish.resolution.secret_names if secret_names is None else secret_names
    account: Object = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata_of(wish, wish.name),
        "automountServiceAccountToken": False,
        "secrets": [] if pulls else [{"name": name} for name in names],
    }
    if identity := google_account_of(wish):
        account["metadata"]["annotations"] = {"iam.gke.io/gcp-service-account": identity}
    if pulls:
        account["imagePullSecrets"] = [{"name": name} for name in names]
    return sealed([account])[0]


def _closed_ranges(wish: Wish) -> list[str]:
    return sorted({*wish.platform.cluster_cidrs, "169.254.0.0/16", "127.0.0.0/8", "100.64.0.0/10"})
