"""LoRA adapters of a deployment: fetched by an init container of our own, and named to the engine at its start.

KServe loads one model per InferenceService, so its initializer is run once more for the adapters, with the same words.
It gets no keys: adapters are public.
"""

from __future__ import annotations

from typing import Any

from deployments.engine.lora import at_once
from deployments.labels import ADAPTER_INITIALIZER
from deployments.manifests.cluster import default_initializer_image
from deployments.manifests.common import Wish
from deployments.manifests.downloads import fetch_resources
from deployments.manifests.pods import container_security

FOLDER = "/mnt/adapters"


def volumes(wish: Wish) -> list[dict[str, Any]]:
    """One volume per adapter."""
    return [{"name": _volume(place), "emptyDir": {}} for place, _ in enumerate(wish.resolution.adapters)]


def mounts(wish: Wish, *, read_only: bool) -> list[dict[str, Any]]:
    """Where each of them is mounted."""
    more = {"readOnly": True} if read_only else {}
    return [
        {"name": _volume(place), "mountPath": _path(adapter["name"]), **more}
        for place, adapter in enumerate(wish.resolution.adapters)
    ]


def initializer(wish: Wish) -> dict[str, Any] | None:
    """What fetches them; None where there are none."""
    if not wish.resolution.adapters:
        return None
    return {
        "name": ADAPTER_INITIALIZER,
        "image": wish.platform.initializer_image or default_initializer_image(),
        "args": [word for each in wish.resolution.adapters for word in (each["uri"], _path(each["name"]))],
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the only place that user may write to
            {"name": "HF_HOME", "value": "/tmp/huggingface"},  # noqa: S108
        ],
        "resources": fetch_resources(wish.platform),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(wish, read_only=False),
    }


def arguments(wish: Wish) -> list[str]:
    """How the engine is told of them, last: the names and paths are words of one flag."""
    adapters = wish.resolution.adapters
    if not adapters:
        return []
    return [
        "--enable-lora",
        f"--max-loras={at_once(len(adapters))}",
        f"--max-cpu-loras={len(adapters)}",
        f"--max-lora-rank={wish.resolution.lora_rank}",
        "--lora-modules",
        *(f"{adapter['name']}={_path(adapter['name'])}" for adapter in adapters),
    ]


def _volume(place: int) -> str:
    return f"adapter-{place}"


def _path(name: str) -> str:
    return f"{FOLDER}/{name}"
