"""The objects of a deployment, by its strategy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType

from deployments.labels import ANNOTATION_STOP
from deployments.manifests import standard
from deployments.manifests.common import Object, Wish
from deployments.spec import Strategy

BUILDERS: Mapping[Strategy, ModuleType] = {Strategy.STANDARD: standard}
# What makes the pods, and takes them down while it carries KServe's own mark.
SERVICES = frozenset({"InferenceService", "LLMInferenceService"})


def build(wish: Wish) -> list[Object]:
    """The signed objects of one deployment, in the order they are applied; ValueError for an unbuilt strategy."""
    builder = BUILDERS.get(wish.spec.strategy)
    if builder is None:
        raise ValueError(f"The strategy {wish.spec.strategy} cannot be built.")
    objects: list[Object] = builder.build(wish)
    return objects


def stopped(objects: Iterable[Object]) -> list[Object]:
    """The same objects with the service asked to stop: its pods go, everything else stays."""
    return [_with_stop(obj) if obj["kind"] in SERVICES else obj for obj in objects]


def _with_stop(obj: Object) -> Object:
    metadata = obj["metadata"]
    return {
        **obj,
        "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), ANNOTATION_STOP: "true"}},
    }
