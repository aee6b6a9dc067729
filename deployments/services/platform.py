"""Where Slipway's neighbours stand on the cluster, as the operator configured them."""

from __future__ import annotations

import re

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from deployments.manifests import Platform

_UNITS = {"Mi": 1, "Gi": 1024}
_MEMORY = re.compile(r"(?P<count>[1-9][0-9]{0,6})(?P<unit>Mi|Gi)")


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
        fetch_memory=_memory(settings.FETCH_MEMORY),
        google_account=settings.GS_SERVICE_ACCOUNT,
    )


def _memory(text: str) -> str:
    """An amount as Kubernetes writes it, at least the 1Gi that the loader takes by itself."""
    match = _MEMORY.fullmatch(text)
    if match is None or int(match["count"]) * _UNITS[match["unit"]] < _UNITS["Gi"]:
        raise ImproperlyConfigured(
            "SLIPWAY_FETCH_MEMORY must be an amount of memory of at least 1Gi, as 8Gi or 8192Mi."
        )
    return text


def _pods(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """NAMESPACE/LABEL=VALUE,… taken apart; empty for an empty text."""
    namespace, _, labels = text.partition("/")
    pairs = [label.strip().partition("=") for label in labels.split(",") if label.strip()]
    if text and not (namespace and pairs and all(name and equals for name, equals, _ in pairs)):
        raise ImproperlyConfigured("GATEWAY_PODS must be NAMESPACE/LABEL=VALUE, with more labels after commas.")
    return namespace, tuple((name, value) for name, _, value in pairs)
