"""Weights in an image: mounted as a volume by the cluster, or handed over by a sidecar of that image where it cannot.

KServe mounts `/models` of an image itself. Weights that lie elsewhere, as in images of files alone, are mounted by the
runtime. KServe's own sidecar (a *modelcar*) passes no pod security of the level *restricted*, so Slipway writes it: the
same link through `/proc` into the sidecar's root, which an engine may follow as both run as the same user without
capabilities; and as an init container that stays, so that no engine starts before the link is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deployments.manifests import cache, downloads
from deployments.manifests.common import Wish, storage_uri
from deployments.manifests.pods import container_security
from deployments.sources.oci import FOLDER, SCHEME, within

MODELS = "/mnt/models"
NATIVE = "oci+native://"
VOLUME, CAR = "model", "modelcar"
SHARED = "/mnt"


class ImageMode(StrEnum):
    """How weights in an image come into a pod."""

    VOLUME = "volume"
    MODELCAR = "modelcar"


@dataclass(frozen=True)
class Weights:
    """What brings the weights into the pods of an InferenceService, by the part of it that says so."""

    predictor: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()


def mode_of(*, mounts_images: bool) -> ImageMode:
    """How weights in an image get into pods, by what the cluster can do."""
    return ImageMode.VOLUME if mounts_images else ImageMode.MODELCAR


def folder_of(wish: Wish) -> str:
    """Where in the image the weights lie; of one file the folder that holds it, as an engine goes by its name."""
    return within(wish.spec.source.folder)[0]


def native_uri(wish: Wish) -> str:
    """The address by which KServe itself mounts an image."""
    return NATIVE + _reference(wish)


def weights_of(wish: Wish) -> Weights:
    """How the weights of a wish get into its pods; for everything but images KServe fetches or mounts them."""
    if cache.is_kept(wish):
        return Weights(model={"storageUri": cache.uri_of(wish)})
    if not wish.resolution.image_mode:
        return Weights(downloads.predictor_of(wish), {"storageUri": downloads.address_of(wish)})
    if wish.resolution.image_mode == ImageMode.MODELCAR:
        return _modelcar(wish)
    if folder_of(wish) == FOLDER:
        return Weights(model={"storageUri": native_uri(wish)})
    return _mounted(wish)


def _reference(wish: Wish) -> str:
    return storage_uri(wish).removeprefix(SCHEME)


def _mounted(wish: Wish) -> Weights:
    volume = {"name": VOLUME, "image": {"reference": _reference(wish), "pullPolicy": "IfNotPresent"}}
    mount: dict[str, Any] = {"name": VOLUME, "mountPath": MODELS, "readOnly": True}
    if below := folder_of(wish).strip("/"):
        mount["subPath"] = below
    return Weights(volumes=(volume,), mounts=(mount,))


def _modelcar(wish: Wish) -> Weights:
    folder = folder_of(wish)
    # A kubelet reads “$$” as “$”, so the shell reads “$$”: its own process, which `exec` keeps.
    script = f'[ -n "$(ls -A {folder})" ] && ln -sf /proc/$$$$/root{folder} {MODELS} && exec sleep infinity'
    mount = {"name": VOLUME, "mountPath": SHARED}
    sidecar = {
        "name": CAR,
        "image": _reference(wish),
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": ["sh", "-c", script],
        "resources": {
            "requests": {"cpu": "10m", "memory": "15Mi"},
            "limits": {"cpu": "100m", "memory": "64Mi"},
        },
        "securityContext": container_security(),
        "startupProbe": {"exec": {"command": ["sh", "-c", f"ls {MODELS}/"]}, "periodSeconds": 1},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [dict(mount)],
    }
    return Weights(
        predictor={"shareProcessNamespace": True, "initContainers": [sidecar]},
        volumes=({"name": VOLUME, "emptyDir": {}},),
        mounts=(mount,),
    )
