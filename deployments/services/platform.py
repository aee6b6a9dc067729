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
    return Platform(
        gateway_name=name,
        gateway_namespace=namespace,
        monitoring_namespace=settings.MONITORING_NAMESPACE,
        prometheus_url=settings.PROMETHEUS_URL,
        portal_namespace=settings.SLIPWAY_NAMESPACE,
        cluster_cidrs=tuple(settings.CLUSTER_CIDRS),
        scrape_interval_seconds=settings.PROMETHEUS_SCRAPE_INTERVAL,
    )
