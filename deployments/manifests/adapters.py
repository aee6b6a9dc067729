"""LoRA adapters of a deployment: fetched before the engine starts, and named to it as it starts.

KServe loads one model per InferenceService, so its initializer is run once more for the adapters, with the same words,
as an init container of our own. For an LLMInferenceService KServe fetches them itself, beside the model. It would write
the engine's flags too, in quotes that only a shell takes off again; where they are there it leaves them alone, so they
are signed here for every strategy.

KServe gives the Secrets of an account to the initializer that it adds itself, and to no other: where an adapter is not
public, what is signed says that the token of the deployment's credential goes to ours, and `with_token` brings it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.engine.lora import at_once
from deployments.labels import ADAPTER_INITIALIZER, ANNOTATION_TOKEN
from deployments.manifests.cluster import default_initializer_image
from deployments.manifests.common import Object, Wish
from deployments.manifests.downloads import fetch_resources
from deployments.manifests.pods import container_security

FOLDER = "/mnt/adapters"
# Where KServe puts those of an LLMInferenceService.
KSERVE_FOLDER = "/mnt/lora"
# Of a resolved adapter: it is fetched with the credential of the wish.
ACCESS, BY_TOKEN = "access", {"access": "credential"}
TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable


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


def annotations_of(wish: Wish) -> dict[str, str]:
    """What the service says of a token for them; nothing where all are public."""
    return {ANNOTATION_TOKEN: ADAPTER_INITIALIZER} if any(map(_by_token, wish.resolution.adapters)) else {}


def with_token(service: Object, secret: str) -> Object:
    """The same InferenceService with the token of a Secret where it says that one goes."""
    named = service["metadata"].get("annotations", {}).get(ANNOTATION_TOKEN)
    if named != ADAPTER_INITIALIZER:
        return service
    predictor = service["spec"]["predictor"]
    variable = {"name": TOKEN, "valueFrom": {"secretKeyRef": {"key": TOKEN, "name": secret}}}
    containers = [
        {**each, "env": [*each["env"], variable]} if each["name"] == named else each
        for each in predictor["initContainers"]
    ]
    return {**service, "spec": {**service["spec"], "predictor": {**predictor, "initContainers": containers}}}


def of_model(wish: Wish) -> dict[str, Any]:
    """What an LLMInferenceService says of its model for KServe to fetch them; nothing where there are none."""
    found = [{"name": each["name"], "uri": each["uri"]} for each in wish.resolution.adapters]
    return {"lora": {"adapters": found}} if found else {}


def arguments(wish: Wish, folder: str = FOLDER) -> list[str]:
    """How the engine is told of them: the names and paths are words of one flag, which another flag ends."""
    adapters = wish.resolution.adapters
    if not adapters:
        return []
    return [
        "--enable-lora",
        f"--max-loras={at_once(len(adapters))}",
        f"--max-cpu-loras={len(adapters)}",
        f"--max-lora-rank={wish.resolution.lora_rank}",
        "--lora-modules",
        *(f"{adapter['name']}={folder}/{adapter['name']}" for adapter in adapters),
    ]


def _by_token(adapter: Mapping[str, str]) -> bool:
    return adapter.get(ACCESS) == BY_TOKEN[ACCESS]


def _volume(place: int) -> str:
    return f"adapter-{place}"


def _path(name: str) -> str:
    return f"{FOLDER}/{name}"
