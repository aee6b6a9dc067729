"""What Slipway needs once per cluster: its own storage container, so that downloads pass pod security."""

from __future__ import annotations

import json
from functools import cache

from deployments.engine.profiles import DATA
from deployments.labels import LABEL_INSTALL, MANAGED_BY
from deployments.manifests.common import Object, Platform, sealed

# KServe may pick this container for strangers, so it takes only what nobody else writes: pinned commits.
PINNED_HF = r"^hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+:[0-9a-f]{40}$"


@cache
def default_initializer_image() -> str:
    """The storage initializer's image that comes with Slipway, by digest."""
    return str(json.loads((DATA / "engine_profiles.json").read_text())["storage_initializer"])


def build_cluster_objects(install_id: str, platform: Platform | None = None) -> list[Object]:
    """The cluster-wide objects an administrator installs once."""
    platform = platform or Platform()
    container = {
        "name": "storage-initializer",
        "image": platform.initializer_image or default_initializer_image(),
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the only place that user may write to
            {"name": "HF_HOME", "value": "/tmp/huggingface"},  # noqa: S108
        ],
        "resources": {
            "requests": {"cpu": "100m", "memory": "100Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "runAsNonRoot": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    storage: Object = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {
            "name": platform.storage_container,
            "labels": {"app.kubernetes.io/managed-by": MANAGED_BY, LABEL_INSTALL: install_id},
        },
        "spec": {
            "container": container,
            "supportedUriFormats": [{"regex": PINNED_HF}],
            "workloadType": "initContainer",
        },
    }
    return sealed([storage])
