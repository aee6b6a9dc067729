"""The objects of a deployment, by its strategy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

from deployments.labels import ANNOTATION_SECRETS, ANNOTATION_STOP
from deployments.manifests import adapters, cache, disaggregated, multinode, standard
from deployments.manifests.common import Object, Wish, short_hash
from deployments.manifests.scaling import SCALER_KINDS
from deployments.spec import Strategy

BUILDERS: Mapping[Strategy, ModuleType] = {
    Strategy.STANDARD: standard,
    Strategy.DISAGGREGATED: disaggregated,
    Strategy.OCI_VOLUME: standard,
}
# What makes the pods, and takes them down while it carries KServe's own mark.
SERVICES = frozenset({"InferenceService", "LLMInferenceService"})


def build(wish: Wish) -> list[Object]:
    """The signed objects of one deployment, in the order they are applied; ValueError for an unbuilt strategy."""
    builder = multinode if wish.spec.nodes > 1 else BUILDERS.get(wish.spec.strategy)
    if builder is None:
        raise ValueError(f"The strategy {wish.spec.strategy} cannot be built.")
    objects: list[Object] = builder.build(wish)
    return objects


def stopped(objects: Iterable[Object]) -> list[Object]:
    """The same objects with the service asked to stop: its pods go, and what scales them; everything else stays."""
    left = [obj for obj in objects if obj["kind"] not in SCALER_KINDS]
    return [_annotated(obj, ANNOTATION_STOP, "true") if obj["kind"] in SERVICES else obj for obj in left]


def marked(objects: Iterable[Object], secret_names: Sequence[str]) -> list[Object]:
    """The same objects with the mark of these Secrets on the pods: of other Secrets, pods are made anew."""
    return [_with_mark(obj, short_hash(*secret_names)) if obj["kind"] in SERVICES else obj for obj in objects]


def with_keys(objects: Iterable[Object], kind: str, secret: str, settings: Mapping[str, str]) -> list[Object]:
    """The same objects with the Secret of a credential where weights are fetched ahead, and where adapters are.

    KServe gives it by the account to the initializers that it adds itself, and to nobody else.
    """
    return [_with_keys(obj, kind, secret, settings) for obj in objects]


def _with_keys(obj: Object, kind: str, secret: str, settings: Mapping[str, str]) -> Object:
    if obj["kind"] == "Job":
        return cache.with_keys(obj, kind, secret, settings)
    if obj["kind"] == "InferenceService" and kind == "hf":
        return adapters.with_token(obj, secret)
    return obj


def _with_mark(obj: Object, mark: str) -> Object:
    if obj["kind"] == "InferenceService":
        # Down to the pods, to which KServe's webhook adds the account's Secrets as they are made.
        predictor = obj["spec"]["predictor"]
        annotations = {**predictor.get("annotations", {}), ANNOTATION_SECRETS: mark}
        return {**obj, "spec": {**obj["spec"], "predictor": {**predictor, "annotations": annotations}}}
    # KServe itself puts those into the template of this kind, whenever it looks at the service.
    return _annotated(obj, ANNOTATION_SECRETS, mark)


def _annotated(obj: Object, name: str, value: str) -> Object:
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), name: value}}}
