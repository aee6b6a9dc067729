"""How the GPU operator's device plugin hands out GPUs: whole, or each as several slices of time."""

from __future__ import annotations

import re
from typing import Any

import yaml

from deployments.labels import LABEL_INSTALL, MANAGED_BY
from deployments.manifests.common import Object, sealed

NAME = "slipway-device-plugin"
# Where the operator stands unless somebody put it elsewhere.
OPERATOR = "gpu-operator"
WHOLE = "whole"
RESOURCE = "nvidia.com/gpu"
# A node takes the one that its label names; the plugin looks for it under this name.
NODE_LABEL = "nvidia.com/device-plugin.config"


def build_sharing(install_id: str, *, namespace: str, slices: int) -> list[Object]:
    """The ConfigMap that the ClusterPolicy names in `spec.devicePlugin.config`, with `whole` as its default.

    Nodes labelled `shared-<slices>` offer each GPU so many times, under a resource name of its own: a slice has no
    memory of its own, and a quota of whole GPUs must not buy it.
    """
    return sealed(
        [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": NAME,
                    "namespace": namespace,
                    "labels": {"app.kubernetes.io/managed-by": MANAGED_BY, LABEL_INSTALL: install_id},
                },
                "data": {WHOLE: _text({}), config_name(slices): _text(_shared(slices))},
            }
        ]
    )


def config_name(slices: int) -> str:
    """The value of the nodes' label."""
    return f"shared-{slices}"


def slices_of(config: str) -> int:
    """How many slices a GPU of a node with this label has; 0 where that is not said."""
    found = re.fullmatch(r"shared-([0-9]{1,3})", config)
    return int(found[1]) if found else 0


def _shared(slices: int) -> dict[str, Any]:
    slicing = {
        "renameByDefault": True,
        # Two slices are no more than one, and may be one GPU twice.
        "failRequestsGreaterThanOne": True,
        "resources": [{"name": RESOURCE, "replicas": slices}],
    }
    return {"sharing": {"timeSlicing": slicing}}


def _text(more: dict[str, Any]) -> str:
    return str(yaml.safe_dump({"version": "v1", "flags": {"migStrategy": "none"}, **more}, sort_keys=False))
