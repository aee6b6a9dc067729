"""What LLMInferenceServices have in common: how their pods are marked, and how the weights get into them."""

from __future__ import annotations

from typing import Any

from deployments.labels import INITIALIZER, LABEL_REVISION
from deployments.manifests import adapters, cache
from deployments.manifests.cluster import default_initializer_image
from deployments.manifests.common import Wish, labels_of, selector_of, storage_uri
from deployments.manifests.downloads import fetch_resources, predictor_of, variables_of
from deployments.manifests.images import native_uri
from deployments.manifests.pods import container_security, node_selector, pod_security, tolerations
from deployments.spec import DeploymentSpec

PORT = 8000


def marks(wish: Wish) -> dict[str, dict[str, str]]:
    """Labels and annotations of pods. KServe puts these labels into the selectors of its Deployments too.

    Selectors never change: what differs from revision to revision is an annotation.
    """
    labels = {name: value for name, value in labels_of(wish).items() if name != LABEL_REVISION}
    return {"labels": labels, "annotations": {LABEL_REVISION: str(wish.revision)}}


def address(wish: Wish) -> str:
    """Where KServe has the weights from; images it mounts, as its modelcar would need a namespace of a lower level."""
    if cache.is_kept(wish):
        return cache.uri_of(wish)
    return native_uri(wish) if wish.resolution.image_mode else storage_uri(wish)


def model_of(wish: Wish) -> dict[str, Any]:
    """The model as KServe is to load it: weights and adapters."""
    return {"uri": address(wish), "name": wish.name, **adapters.of_model(wish)}


def initializers(wish: Wish, container: dict[str, Any], *, engine: bool = True) -> dict[str, Any]:
    """What KServe's storage initializer is to look like, where it has something to fetch; engines also adapters."""
    fetches = predictor_of(wish) and not (wish.resolution.image_mode or cache.is_kept(wish))
    return {"initContainers": [container]} if fetches or (engine and wish.resolution.adapters) else {}


def initializer(wish: Wish) -> dict[str, Any]:
    """The storage initializer of engines, in a form that pod security admits."""
    return {
        "name": INITIALIZER,
        "image": wish.platform.initializer_image or default_initializer_image(),
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the only place that user may write to
            {"name": "HF_HOME", "value": "/tmp/huggingface"},  # noqa: S108
            *variables_of(wish),
        ],
        "resources": fetch_resources(wish.platform),
        "securityContext": container_security(),
    }


def router(wish: Wish, **more: Any) -> dict[str, Any]:
    """The way in: with a route of Slipway's own KServe makes none, which would be a way around the closed one."""
    gateway = {"name": wish.platform.gateway_name, "namespace": wish.platform.gateway_namespace}
    return {"gateway": {"refs": [gateway]}, "route": {"http": {"refs": [{"name": f"{wish.name}-slipway"}]}}, **more}


def pod_of(wish: Wish, *, token: bool) -> dict[str, Any]:
    """Fields of a pod of engines, beside its containers; with `token` it may ask the API server."""
    return {
        "serviceAccountName": wish.name,
        "automountServiceAccountToken": token,
        # A Service called "vllm" would otherwise set VLLM_PORT to an address.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 120,
        "securityContext": pod_security(),
        "nodeSelector": node_selector(wish),
        "tolerations": tolerations(wish),
    }


def peers(wish: Wish) -> dict[str, Any]:
    """The pods of this deployment as a peer of a NetworkPolicy."""
    return {"podSelector": selector_of(wish)}


def tensor_split(spec: DeploymentSpec) -> int:
    """GPUs of one pod that share its layers."""
    return min(spec.tensor_parallel, spec.gpus_per_pod)
