"""Replicas of the strategy *standard* that span nodes: one LLMInferenceService with a leader and its workers.

KServe makes a LeaderWorkerSet of it, whose controller makes the pods and tells each its number and where its leader is.
The first pod of a group takes the requests; the others compute for it (`--headless`). KServe ships no preset for groups
that are split by layers, so both templates are written out here, without what a preset would add to them.
"""

from __future__ import annotations

from typing import Any

from deployments.engine.render import render_args
from deployments.manifests import adapters, cache, llm
from deployments.manifests.common import Object, Wish, engine_version, metadata_of, sealed
from deployments.manifests.downloads import model_arguments, way_of_engines
from deployments.manifests.guards import PORT_NAME, disruption_budget, http_route, network_policy, pod_monitor
from deployments.manifests.llm import PORT
from deployments.manifests.pods import (
    PROBE_SECONDS,
    container_security,
    environment,
    resources,
    shared_memory_gib,
    startup_attempts,
)
from deployments.manifests.presets import API_VERSION, ENGINE
from deployments.manifests.scaling import Workload, fixed_replicas, own_scaler

HOME = "/home/slipway"
LWS = "leaderworkerset.x-k8s.io/v1"
# Written by the controller of LeaderWorkerSets into every container of a group.
RANK, LEADER = "$(LWS_WORKER_INDEX)", "$(LWS_LEADER_ADDRESS)"


def build(wish: Wish) -> list[Object]:
    """The signed objects of one deployment, in the order they are applied: what guards comes before what runs.

    The route comes before the service, which refuses to name one that is not there.
    """
    backend = {"group": "", "kind": "Service", "name": f"{wish.name}-kserve-workload-svc", "port": PORT}
    among = [llm.peers(wish)]
    return sealed(
        [
            *cache.build(wish),
            # Among one another on any port: NCCL picks its own.
            network_policy(wish, PORT, ingress=[{"from": among}], egress=[{"to": among}, *way_of_engines(wish)]),
            disruption_budget(wish),
            pod_monitor(wish),
            http_route(wish, backend),
            _service(wish),
            # After the service, of which KServe makes what it scales.
            *own_scaler(wish, wish.spec, "", Workload(LWS, "LeaderWorkerSet", f"{wish.name}-kserve-mn")),
        ]
    )


def _service(wish: Wish) -> Object:
    spec = wish.spec
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMInferenceService",
        "metadata": metadata_of(wish, wish.name),
        "spec": {
            "model": llm.model_of(wish),
            **llm.marks(wish),
            **fixed_replicas(wish, spec),
            # KServe makes as many pods of a replica as it has stages here; how the engine splits is in its flags.
            "parallelism": {"tensor": llm.tensor_split(spec), "pipeline": spec.nodes},
            "template": _pod(wish, leads=True),
            "worker": _pod(wish, leads=False),
            "router": llm.router(wish),
        },
    }


def _pod(wish: Wish, *, leads: bool) -> dict[str, Any]:
    shared = shared_memory_gib(wish.spec)
    volumes: list[dict[str, Any]] = [{"name": "home", "emptyDir": {}}]
    mounts = [{"name": "home", "mountPath": HOME}]
    if shared:
        volumes.append({"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared}Gi"}})
        mounts.append({"name": "dshm", "mountPath": "/dev/shm"})  # noqa: S108 - where NCCL looks
    # “vllm serve” takes the model as a word of its own.
    path, *tokenizer = (word.removeprefix("--model=") for word in model_arguments(wish))
    engine: dict[str, Any] = {
        "name": ENGINE,
        "image": wish.resolution.image,
        "command": ["vllm", "serve", path],
        "args": [*tokenizer, *_args(wish, leads=leads)],
        "env": [{"name": name, "value": value} for name, value in environment(HOME).items()],
        "resources": resources(wish, wish.spec),
        "securityContext": container_security(),
        # The end of the log becomes the pod's own last words, which the watcher reads.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if leads:
        engine |= {
            "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
            "startupProbe": _probe("/v1/models", startup_attempts(wish)),
            "readinessProbe": _probe("/v1/models", 3),
            "livenessProbe": {**_probe("/health", 6), "periodSeconds": 20, "timeoutSeconds": 10},
        }
    return {
        **llm.pod_of(wish, token=False),
        **llm.initializers(wish, llm.initializer(wish)),
        "containers": [engine],
        "volumes": volumes,
    }


def _args(wish: Wish, *, leads: bool) -> list[str]:
    return [
        f"--served-model-name={wish.name}",
        f"--port={PORT}",
        *render_args(engine_version(wish), wish.spec.engine.args),
        # Every node lays its own part of the adapters over its part of the model.
        *adapters.arguments(wish, adapters.KSERVE_FOLDER),
        f"--nnodes={wish.spec.nodes}",
        f"--node-rank={RANK}",
        f"--master-addr={LEADER}",
        *([] if leads else ["--headless"]),
    ]


def _probe(path: str, attempts: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
        "periodSeconds": PROBE_SECONDS,
        "timeoutSeconds": 5,
        "failureThreshold": attempts,
    }
