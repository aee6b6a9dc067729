"""The strategies *standard* and *oci-volume*: one InferenceService on a runtime of our own, and what guards it.

They differ in how the weights come into the pods (deployments.manifests.images).
"""

from __future__ import annotations

from typing import Any

from deployments.engine.render import render_args
from deployments.labels import ENGINE_CONTAINER
from deployments.manifests import adapters, cache
from deployments.manifests.common import Object, Wish, engine_version, metadata_of, sealed, short_hash
from deployments.manifests.downloads import model_arguments, way_of_engines
from deployments.manifests.guards import PORT_NAME, disruption_budget, http_route, network_policy, pod_monitor
from deployments.manifests.images import Weights, weights_of
from deployments.manifests.pods import (
    PROBE_SECONDS,
    container_security,
    environment,
    node_selector,
    pod_security,
    resources,
    shared_memory_gib,
    startup_attempts,
    tolerations,
)
from deployments.manifests.scaling import autoscaler_of, predictor_scaling
from deployments.spec import DeploymentSpec, canonical

PORT = 8080
HOME = "/home/slipway"


def build(wish: Wish) -> list[Object]:
    """The signed objects of one deployment, in the order they are applied: what guards comes before what runs."""
    weights = weights_of(wish)
    runtime = _serving_runtime(wish, weights)
    backend = {"group": "", "kind": "Service", "name": f"{wish.name}-predictor", "port": 80}
    return sealed(
        [
            *cache.build(wish),
            network_policy(wish, PORT, egress=way_of_engines(wish)),
            runtime,
            disruption_budget(wish),
            pod_monitor(wish),
            _inference_service(wish, runtime["metadata"]["name"], weights),
            http_route(wish, backend),
        ]
    )


def _inference_service(wish: Wish, runtime: str, weights: Weights) -> Object:
    spec = wish.spec
    metadata = metadata_of(wish, wish.name)
    metadata["labels"]["networking.kserve.io/visibility"] = "cluster-local"
    metadata["annotations"] = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": autoscaler_of(wish).value,
        **adapters.annotations_of(wish),
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {
            "predictor": {
                "minReplicas": spec.replicas.min,
                "maxReplicas": spec.replicas.max,
                "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": _rolling(spec)},
                "serviceAccountName": wish.name,
                "automountServiceAccountToken": False,
                # A Service called "vllm" would otherwise set VLLM_PORT to an address.
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 120,
                "timeout": 600,
                "securityContext": pod_security(),
                "nodeSelector": node_selector(wish),
                "tolerations": tolerations(wish),
                **weights.predictor,
                **_initializers(wish, weights),
                "model": {
                    "modelFormat": {"name": _format(weights)},
                    "runtime": runtime,
                    **weights.model,
                    "args": [*render_args(engine_version(wish), spec.engine.args), *adapters.arguments(wish)],
                    "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
                    "resources": resources(wish, spec),
                },
                **predictor_scaling(wish),
            }
        },
    }


def _rolling(spec: DeploymentSpec) -> dict[str, int]:
    """A new pod first where its GPUs are charged; else one old pod goes first, for nobody reserved any for both."""
    return {"maxSurge": spec.surge, "maxUnavailable": 0 if spec.surge else 1}


def _format(weights: Weights) -> str:
    """The format by which KServe matches service and runtime.

    A model without an address is one of many to it, and it adds an agent and a folder to their server (seen);
    for this one format alone it takes it that weights come some other way.
    """
    return "vLLM" if weights.model else "huggingface"


def _initializers(wish: Wish, weights: Weights) -> dict[str, Any]:
    """What runs in the pods before the engine, besides what KServe adds."""
    own = adapters.initializer(wish)
    return {"initContainers": [*weights.predictor.get("initContainers", ()), own]} if own else {}


def _serving_runtime(wish: Wish, weights: Weights) -> Object:
    spec = _runtime_spec(wish, weights)
    profile = wish.spec.engine.profile.replace(".", "-")[:40].strip("-")
    content = short_hash(wish.deployment_id, canonical(spec).decode())
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": metadata_of(wish, f"slipway-{profile}-{content}"),
        "spec": spec,
    }


def _runtime_spec(wish: Wish, weights: Weights) -> dict[str, Any]:
    shared = shared_memory_gib(wish.spec)
    volumes: list[dict[str, Any]] = [{"name": "home", "emptyDir": {}}, *weights.volumes, *adapters.volumes(wish)]
    mounts = [{"name": "home", "mountPath": HOME}, *weights.mounts, *adapters.mounts(wish, read_only=True)]
    if shared:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared}Gi"}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - where NCCL looks
    container = {
        "name": ENGINE_CONTAINER,
        "image": wish.resolution.image,
        "command": ["python", "-m", "vllm.entrypoints.openai.api_server"],
        "args": [f"--port={PORT}", "--served-model-name={{.Name}}", *model_arguments(wish)],
        "env": [{"name": name, "value": value} for name, value in environment(HOME).items()],
        "volumeMounts": mounts,
        "securityContext": container_security(),
        "startupProbe": _probe("/v1/models", startup_attempts(wish)),
        "readinessProbe": _probe("/v1/models", 3),
        "livenessProbe": {**_probe("/health", 6), "periodSeconds": 20, "timeoutSeconds": 10},
        # The end of the log becomes the pod's own last words, which the watcher reads without asking for logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {
        "supportedModelFormats": [{"name": _format(weights), "autoSelect": False}],
        "protocolVersions": ["v2", "v1"],
        "containers": [container],
        "volumes": volumes,
    }


def _probe(path: str, attempts: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
        "periodSeconds": PROBE_SECONDS,
        "timeoutSeconds": 5,
        "failureThreshold": attempts,
    }
