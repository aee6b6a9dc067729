"""Where Slipway's neighbours stand on the cluster, as the operator configured them."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from deployments.manifests import Platform


def platform() -> Platform:
    """The platform that every wish is built for; ImproperlyConfigured when GATEWAY_REF names no Gateway."""
    namespace, slash, name = settings.GATEWAY_REF.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise ImproperlyConfigured("GATEWAY_REF must be NAMESPACE/NAME of a Gateway.")
    pods_namespace, pods_labels = _pods(settings.GATEWAY_PODS)
    return Platform(
        gateway_name=name,
        gateway_namespace=namespace,
        gateway_pods_namespace=pods_namespace,
        gateway_pods_labels=pods_labels,
        monitoring_namespace=settings.MONITORING_NAMESPACE,
        prometheus_url=settings.PROMETHEUS_URL,
        portal_namespace=settings.SLIPWAY_NAMESPACE,
        cluster_cidrs=tuple(settings.CLUSTER_CIDRS),
        scrape_interval_seconds=settings.PROMETHEUS_SCRAPE_INTERVAL,
        google_account=settings.GS_SERVICE_ACCOUNT,
    )


def _pods(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """NAMESPACE/LABEL=VALUE,… taken apart; empty for an empty text."""
    namespace, _, labels = text.partition("/")
    pairs = [label.strip().partition("=") for label in labels.split(",") if label.strip()]
    if text and not (namespace and pairs and all(name and equals for name, equals, _ in pairs)):
        raise ImproperlyConfigured("GATEWAY_PODS must be NAMESPACE/LABEL=VALUE, with more labels after commas.")
    return namespace, tuple((name, value) for name, _, value in pairs)
