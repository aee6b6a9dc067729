"""What Slipway needs once per cluster: its own storage containers, so that downloads pass pod security."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

from deployments.engine.profiles import DATA
from deployments.labels import LABEL_INSTALL, MANAGED_BY
from deployments.manifests.common import Object, Platform, sealed
from deployments.manifests.downloads import ANYBODY, fetch_resources

# KServe may pick this container for strangers, so of the hub it takes only what nobody else writes: pinned commits. Of
# other places there is no such form; it has the image and the limits that KServe itself would use.
PINNED_HF = r"^hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+:[0-9a-f]{40}$"
PLACES = ("s3://", "gs://", "https://", "http://")
# As `downloads` writes public buckets, and nobody else.
PUBLIC_S3 = r"^s3://[^/]+//"


@cache
def default_initializer_image() -> str:
    """The storage initializer's image that comes with Slipway, by digest."""
    return str(json.loads((DATA / "engine_profiles.json").read_text())["storage_initializer"])


def build_cluster_objects(install_id: str, platform: Platform | None = None) -> list[Object]:
    """The cluster-wide objects an administrator installs once."""
    platform = platform or Platform()
    containers = [
        _storage_container(
            platform.storage_container,
            install_id,
            _container(platform),
            [{"regex": PINNED_HF}, *({"prefix": prefix} for prefix in PLACES)],
        ),
        _storage_container(
            platform.public_storage_container,
            install_id,
            _container(platform, ANYBODY),
            [{"regex": PUBLIC_S3}],
        ),
    ]
    return sealed(containers)


def _storage_container(name: str, install_id: str, container: Object, formats: list[dict[str, str]]) -> Object:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": MANAGED_BY, LABEL_INSTALL: install_id},
        },
        "spec": {
            "container": container,
            "supportedUriFormats": formats,
            "workloadType": "initContainer",
        },
    }


def _container(platform: Platform, *more: Mapping[str, str]) -> Object:
    return {
        "name": "storage-initializer",
        "image": platform.initializer_image or default_initializer_image(),
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the only place that user may write to
            {"name": "HF_HOME", "value": "/tmp/huggingface"},  # noqa: S108
            *(dict(item) for item in more),
        ],
        "resources": fetch_resources(platform),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "runAsNonRoot": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
