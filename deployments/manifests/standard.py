"""The strategy *standard*: one InferenceService on a runtime of our own, with what guards and shows it."""

from __future__ import annotations

import math
from typing import Any

from deployments.engine.facts import GIB
from deployments.engine.render import render_args
from deployments.labels import (
    ANNOTATION_STOP,
    ENGINE_CONTAINER,
    LABEL_DEPLOYMENT,
    LABEL_REVISION,
    MANAGED_BY,
)
from deployments.manifests.common import (
    Object,
    Wish,
    labels_of,
    sealed,
    short_hash,
)
from deployments.spec import canonical

PORT = 8080
PORT_NAME = "http1"
HOME = "/home/slipway"
USER_ID = 1000
PROBE_SECONDS = 5
GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def build(wish: Wish) -> list[Object]:
    """The signed objects of one deployment, in the order they are applied: what guards comes before what runs."""
    runtime = _serving_runtime(wish)
    return sealed(
        [
            _network_policy(wish),
            runtime,
            _disruption_budget(wish),
            _pod_monitor(wish),
            _inference_service(wish, runtime["metadata"]["name"]),
            _http_route(wish),
        ]
    )


def build_service_account(wish: Wish, secret_names: tuple[str, ...] | None = None) -> Object:
    """The account the pods run as; it lists exactly the Secrets in use, so a rotation needs no new approval."""
    names = wish.resolution.secret_names if secret_names is None else secret_names
    account: Object = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(wish, wish.name),
        "automountServiceAccountToken": False,
        "secrets": [{"name": name} for name in names],
    }
    return sealed([account])[0]


def stopped(objects: list[Object]) -> list[Object]:
    """The same objects with the service asked to stop: its pods go, everything else stays."""
    return [_with_stop(obj) if obj["kind"] == "InferenceService" else obj for obj in objects]


def storage_uri(wish: Wish) -> str:
    """The address the storage initializer loads from, pinned to the resolved commit."""
    if wish.resolution.storage_uri:
        return wish.resolution.storage_uri
    return f"{wish.spec.source.uri}:{wish.resolution.commit}"


def engine_version(wish: Wish) -> str:
    """The vLLM version whose flags count: what was resolved, else what the profile's name says."""
    return wish.resolution.engine_version or wish.spec.engine.profile.removeprefix("vllm-")


def route_prefix(namespace: str, name: str) -> str:
    """The path below the gateway where a deployment answers; only the OpenAI API beneath it is open."""
    return f"/{namespace}/{name}"


def _with_stop(obj: Object) -> Object:
    metadata = obj["metadata"]
    return {
        **obj,
        "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), ANNOTATION_STOP: "true"}},
    }


def _metadata(wish: Wish, name: str, **annotations: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": wish.namespace, "labels": labels_of(wish)}
    if annotations:
        metadata["annotations"] = annotations
    return metadata


def _inference_service(wish: Wish, runtime: str) -> Object:
    spec, resolution = wish.spec, wish.resolution
    metadata = _metadata(wish, wish.name)
    metadata["labels"]["networking.kserve.io/visibility"] = "cluster-local"
    metadata["annotations"] = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {
            "predictor": {
                "minReplicas": spec.replicas.min,
                "maxReplicas": spec.replicas.max,
                # A surge pod would need spare GPUs that nobody reserved.
                "deploymentStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
                },
                "serviceAccountName": wish.name,
                "automountServiceAccountToken": False,
                # A Service called "vllm" would otherwise set VLLM_PORT to an address.
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 120,
                "timeout": 600,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": USER_ID,
                    "runAsGroup": USER_ID,
                    "fsGroup": USER_ID,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "nodeSelector": {**resolution.node_selector, "nvidia.com/gpu.product": resolution.product},
                "tolerations": _tolerations(wish),
                "storageContainerName": wish.platform.storage_container,
                "model": {
                    "modelFormat": {"name": "vLLM"},
                    "runtime": runtime,
                    "storageUri": storage_uri(wish),
                    "args": render_args(engine_version(wish), spec.engine.args),
                    "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
                    "resources": _resources(wish),
                },
            }
        },
    }


def _tolerations(wish: Wish) -> list[dict[str, str]]:
    """Of the taints that keep others off GPU nodes: the common one, one named like the resource, the flavor's own."""
    by_name = {**GPU_TAINT, "key": wish.resolution.resource_name}
    found: list[dict[str, str]] = []
    for each in (GPU_TAINT, by_name, *(dict(item) for item in wish.resolution.tolerations)):
        if each not in found:
            found.append(each)
    return found


def _resources(wish: Wish) -> dict[str, dict[str, str]]:
    gpus = wish.spec.gpus_per_replica
    memory = f"{_host_memory_gib(wish)}Gi"
    return {
        "requests": {
            "cpu": str(2 + 2 * gpus),
            "memory": memory,
            wish.resolution.resource_name: str(gpus),
        },
        "limits": {
            "cpu": str(4 + 4 * gpus),
            "memory": memory,
            wish.resolution.resource_name: str(gpus),
        },
    }


def _host_memory_gib(wish: Wish) -> int:
    """Main memory of the engine: processes, shared memory, offloaded weights, and a share of the page cache."""
    gpus = wish.spec.gpus_per_replica
    weights = (wish.resolution.weights_bytes or 0) / GIB
    offload = wish.spec.engine.args.get("cpu-offload-gb", 0)
    offloaded = float(offload) * gpus if isinstance(offload, int | float) else 0.0
    total = 12 + 4 * gpus + _shared_memory_gib(wish) + offloaded + weights / 4
    return math.ceil(total / 2) * 2


def _shared_memory_gib(wish: Wish) -> int:
    gpus = wish.spec.gpus_per_replica
    return 0 if gpus == 1 else 2 + gpus


def _serving_runtime(wish: Wish) -> Object:
    spec = _runtime_spec(wish)
    profile = wish.spec.engine.profile.replace(".", "-")[:40].strip("-")
    content = short_hash(wish.deployment_id, canonical(spec).decode())
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": _metadata(wish, f"slipway-{profile}-{content}"),
        "spec": spec,
    }


def _runtime_spec(wish: Wish) -> dict[str, Any]:
    shared = _shared_memory_gib(wish)
    volumes: list[dict[str, Any]] = [{"name": "home", "emptyDir": {}}]
    mounts = [{"name": "home", "mountPath": HOME}]
    if shared:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared}Gi"}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - where NCCL looks
    container = {
        "name": ENGINE_CONTAINER,
        "image": wish.resolution.image,
        "command": ["python", "-m", "vllm.entrypoints.openai.api_server"],
        "args": [f"--port={PORT}", "--served-model-name={{.Name}}", "--model=/mnt/models"],
        "env": [{"name": name, "value": value} for name, value in _environment().items()],
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "runAsNonRoot": True,
        },
        "startupProbe": _probe("/v1/models", _startup_attempts(wish)),
        "readinessProbe": _probe("/v1/models", 3),
        "livenessProbe": {**_probe("/health", 6), "periodSeconds": 20, "timeoutSeconds": 10},
        # The end of the log becomes the pod's own last words, which the watcher reads without asking for logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {
        "supportedModelFormats": [{"name": "vLLM", "autoSelect": False}],
        "protocolVersions": ["v2", "v1"],
        "containers": [container],
        "volumes": volumes,
    }


def _environment() -> dict[str, str]:
    return {
        "USER": "slipway",
        "HOME": HOME,
        "HF_HOME": f"{HOME}/huggingface",
        "XDG_CACHE_HOME": f"{HOME}/cache",
        "VLLM_CACHE_ROOT": f"{HOME}/vllm",
        "VLLM_CONFIG_ROOT": f"{HOME}/vllm",
        "TRITON_CACHE_DIR": f"{HOME}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{HOME}/inductor",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def _probe(path: str, attempts: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
        "periodSeconds": PROBE_SECONDS,
        "timeoutSeconds": 5,
        "failureThreshold": attempts,
    }


def _startup_attempts(wish: Wish) -> int:
    """Attempts until a start counts as hung: 20 minutes, and 15 s more for each GiB of weights."""
    weights = (wish.resolution.weights_bytes or 0) / GIB
    return math.ceil((1200 + 15 * weights) / PROBE_SECONDS)


def _disruption_budget(wish: Wish) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(wish, wish.name),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": _selector(wish),
        },
    }


def _pod_monitor(wish: Wish) -> Object:
    interval = wish.platform.scrape_interval_seconds
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": _metadata(wish, wish.name),
        "spec": {
            "selector": _selector(wish),
            "podTargetLabels": [LABEL_DEPLOYMENT, LABEL_REVISION],
            "podMetricsEndpoints": [
                {
                    "port": PORT_NAME,
                    "path": "/metrics",
                    "interval": f"{interval}s",
                    "scrapeTimeout": f"{max(1, interval - 1)}s",
                }
            ],
        },
    }


def _http_route(wish: Wish) -> Object:
    platform = wish.platform
    prefix = route_prefix(wish.namespace, wish.name)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _metadata(wish, f"{wish.name}-slipway"),
        "spec": {
            "parentRefs": [
                {
                    "group": "gateway.networking.k8s.io",
                    "kind": "Gateway",
                    "name": platform.gateway_name,
                    "namespace": platform.gateway_namespace,
                }
            ],
            "rules": [
                {
                    # Only the OpenAI API: metrics and the engine's own controls stay inside the cluster.
                    "matches": [{"path": {"type": "PathPrefix", "value": f"{prefix}/v1"}}],
                    "filters": [
                        {
                            "type": "URLRewrite",
                            "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}},
                        }
                    ],
                    "timeouts": {"request": "1h", "backendRequest": "1h"},
                    "backendRefs": [
                        {
                            "group": "",
                            "kind": "Service",
                            "name": f"{wish.name}-predictor",
                            "port": 80,
                            "weight": 1,
                        }
                    ],
                }
            ],
        },
    }


def _network_policy(wish: Wish) -> Object:
    platform = wish.platform
    # Prompts and probes of Slipway itself come through the gateway too.
    sources = (platform.gateway_namespace, platform.monitoring_namespace)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(wish, f"{wish.name}-{MANAGED_BY}"),
        "spec": {
            "podSelector": _selector(wish),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [
                        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
                        for namespace in sources
                    ],
                    "ports": [{"protocol": "TCP", "port": PORT}],
                }
            ],
            # The initializer fetches what users name: outside by HTTPS only, nothing inside the cluster.
            "egress": [
                {
                    "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": _closed_ranges(wish)}}],
                    "ports": [{"protocol": "TCP", "port": 443}],
                }
            ],
        },
    }


def _closed_ranges(wish: Wish) -> list[str]:
    return sorted({*wish.platform.cluster_cidrs, "169.254.0.0/16", "127.0.0.0/8", "100.64.0.0/10"})


def _selector(wish: Wish) -> dict[str, dict[str, str]]:
    return {"matchLabels": {LABEL_DEPLOYMENT: wish.deployment_id}}
