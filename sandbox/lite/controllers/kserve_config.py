"""KServe's settings: ConfigMap `kserve/inferenceservice-config`, with what the release ships where it is silent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sandbox.client import Obj

NAMESPACE, NAME = "kserve", "inferenceservice-config"

INITIALIZER_RESOURCES = {
    "requests": {"cpu": "100m", "memory": "100Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}
INITIALIZER_ENV = [
    {"name": "HF_HUB_ENABLE_HF_TRANSFER", "value": "1"},
    {"name": "HF_XET_HIGH_PERFORMANCE", "value": "1"},
    {"name": "HF_XET_NUM_CONCURRENT_RANGE_GETS", "value": "8"},
]


@dataclass(frozen=True)
class KServeConfig:
    """What the controller and its webhooks read from the ConfigMap."""

    domain: str = "example.com"
    ingress_class: str = "istio"
    scheme: str = "http"
    gateway_api: bool = False
    gateway: str = "kserve/kserve-ingress-gateway"
    create_ingress: bool = True
    default_mode: str = "Knative"
    initializer_image: str = "kserve/storage-initializer:latest"
    initializer_resources: dict[str, dict[str, str]] = field(default_factory=lambda: INITIALIZER_RESOURCES)
    modelcar: bool = True
    modelcar_uid: int | None = 1010
    modelcar_cpu: str = "10m"
    modelcar_memory: str = "15Mi"
    scale_up_window: int = 0
    scale_down_window: int = 300
    default_cpu: str = "1"
    default_memory: str = "2Gi"

    def public_host(self, name: str, namespace: str) -> str:
        """Return the host of `domainTemplate` as shipped."""
        return f"{name}-{namespace}.{self.domain}"


def read_config(config_map: Obj | None) -> KServeConfig:
    """Read the ConfigMap; a section that is missing or not JSON counts as shipped."""
    data: dict[str, str] = (config_map or {}).get("data") or {}
    ingress, storage, deploy, scaling = (
        _section(data, name) for name in ("ingress", "storageInitializer", "deploy", "autoscaler")
    )
    shipped = KServeConfig()
    uid = storage.get("uidModelcar", shipped.modelcar_uid)
    return KServeConfig(
        domain=ingress.get("ingressDomain", shipped.domain),
        ingress_class=ingress.get("ingressClassName", shipped.ingress_class),
        scheme=ingress.get("urlScheme", shipped.scheme),
        gateway_api=bool(ingress.get("enableGatewayApi", shipped.gateway_api)),
        gateway=ingress.get("kserveIngressGateway", shipped.gateway),
        create_ingress=not ingress.get("disableIngressCreation", False),
        default_mode=deploy.get("defaultDeploymentMode", shipped.default_mode),
        scale_up_window=int(scaling.get("scaleUpStabilizationWindowSeconds") or shipped.scale_up_window),
        scale_down_window=int(scaling.get("scaleDownStabilizationWindowSeconds") or shipped.scale_down_window),
        initializer_image=storage.get("image", shipped.initializer_image),
        initializer_resources={
            "requests": {
                "cpu": storage.get("cpuRequest", "100m"),
                "memory": storage.get("memoryRequest", "100Mi"),
            },
            "limits": {"cpu": storage.get("cpuLimit", "1"), "memory": storage.get("memoryLimit", "1Gi")},
        },
        modelcar=bool(storage.get("enableModelcar", shipped.modelcar)),
        modelcar_uid=None if uid is None else int(uid),
        modelcar_cpu=storage.get("cpuModelcar", shipped.modelcar_cpu),
        modelcar_memory=storage.get("memoryModelcar", shipped.modelcar_memory),
    )


def _section(data: dict[str, str], name: str) -> dict[str, Any]:
    try:
        found = json.loads(data.get(name, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
