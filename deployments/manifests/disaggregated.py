"""The strategy *disaggregated*: one LLMInferenceService whose prefill and decode are pods of their own.

The top level is decode: its pods take the requests, through a sidecar that has the prompt computed by a pod of prefill
first and then fetches the KV cache from there (NIXL). KServe does not turn the connector on: both sides say so here.
"""

from __future__ import annotations

import json
from typing import Any

from deployments.engine.alike import unlike
from deployments.engine.render import quoted, render_args
from deployments.engine.states import layout_variables
from deployments.labels import (
    INITIALIZER,
    LABEL_DEPLOYMENT,
    LABEL_LLM_COMPONENT,
    LABEL_ROLE,
    PREFILL_COMPONENT,
)
from deployments.manifests import adapters, cache, llm
from deployments.manifests.common import (
    Object,
    Wish,
    engine_version,
    metadata_of,
    sealed,
)
from deployments.manifests.downloads import variables_of, way_of_engines
from deployments.manifests.guards import (
    disruption_budget,
    gateway_peer,
    http_route,
    monitoring_peer,
    network_policy,
    pod_monitor,
)
from deployments.manifests.llm import PORT  # of the pods: the sidecar of decode, the engine of prefill
from deployments.manifests.pods import (
    GPU_TAINT,
    PROBE_SECONDS,
    container_security,
    environment,
    pod_security,
    resources,
    shared_memory_gib,
    startup_attempts,
)
from deployments.manifests.presets import API_VERSION, ENGINE, build_preset
from deployments.manifests.scaling import ROLE_LABEL, Workload, fixed_replicas, own_scaler
from deployments.spec import DeploymentSpec, Role

ENGINE_BEHIND_SIDECAR = 8001
PICKER_PORT, PICKER_METRICS = 9002, 9090
KUBERNETES_API = (443, 6443)
HOME = "/home"
TENSOR = "tensor-parallel-size"
KV_ROLES = {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer"}
# How KServe calls the Deployments of each role, after the service.
WORKLOADS = {Role.PREFILL: "-kserve-prefill", Role.DECODE: "-kserve"}
# The sidecar keeps connections to prefill for 90 s; vLLM would close them after 5.
KEEP_ALIVE = {"name": "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "value": "120"}


def build(wish: Wish) -> list[Object]:
    """The signed objects of one deployment, in the order they are applied: what guards comes before what runs.

    The route comes before the service, which refuses to name one that is not there.
    """
    if flags := unlike(*(args for args, _ in wish.spec.engines())):
        raise ValueError(f"Prefill and decode differ in {', '.join(flags)}: no KV cache would be handed over.")
    preset = build_preset(wish)
    pool = {
        "group": "inference.networking.k8s.io",
        "kind": "InferencePool",
        "name": f"{wish.name}-inference-pool",
        "port": PORT,
    }
    return sealed(
        [
            *cache.build(wish),
            network_policy(
                wish, PORT, ingress=_ingress(wish), egress=[{"to": [llm.peers(wish)]}, *way_of_engines(wish)]
            ),
            _api_policy(wish),
            preset,
            disruption_budget(wish),
            pod_monitor(wish, LABEL_ROLE),
            http_route(wish, pool),
            _service(wish, preset["metadata"]["name"]),
            # After the service, of which KServe makes what they scale.
            *_scalers(wish),
        ]
    )


def _scalers(wish: Wish) -> list[Object]:
    """An autoscaler for each role whose replicas are no fixed number, by what its own pods have to do."""
    return [
        scaler
        for role, spec in wish.spec.by_role().items()
        for scaler in own_scaler(
            wish,
            spec,
            f"-{role}",
            Workload("apps/v1", "Deployment", wish.name + WORKLOADS[role]),
            **{ROLE_LABEL: str(role)},
        )
    ]


def _service(wish: Wish, preset: str) -> Object:
    roles = wish.spec.by_role()
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMInferenceService",
        "metadata": metadata_of(wish, wish.name),
        "spec": {
            "baseRefs": [{"name": preset}],
            "model": llm.model_of(wish),
            **_workload(wish, Role.DECODE, roles[Role.DECODE]),
            "prefill": _workload(wish, Role.PREFILL, roles[Role.PREFILL]),
            "router": llm.router(wish, scheduler={**llm.marks(wish), "template": _scheduler(wish)}),
        },
    }


def _workload(wish: Wish, role: Role, spec: DeploymentSpec) -> dict[str, Any]:
    return {
        **llm.marks(wish),
        **fixed_replicas(wish, spec),
        "parallelism": {"tensor": spec.tensor_parallel},
        "template": _template(wish, role, spec),
    }


def _template(wish: Wish, role: Role, spec: DeploymentSpec) -> dict[str, Any]:
    """The pods of one role, laid over the preset: containers, volumes and variables are merged by their names."""
    template: dict[str, Any] = {
        # The sidecar of decode reads the pool and its pods to tell whom it may send to.
        **llm.pod_of(wish, token=role is Role.DECODE),
        **llm.initializers(wish, llm.initializer(wish)),
        "containers": [
            {
                "name": ENGINE,
                "env": _variables(wish, role, spec),
                "resources": resources(wish, spec),
                "securityContext": container_security(),
                "startupProbe": {"periodSeconds": PROBE_SECONDS, "failureThreshold": startup_attempts(wish)},
                # The end of the log becomes the pod's own last words, which the watcher reads.
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
    }
    if shared := shared_memory_gib(spec):
        template["volumes"] = [{"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared}Gi"}}]
    return template


def _variables(wish: Wish, role: Role, spec: DeploymentSpec) -> list[dict[str, Any]]:
    # KServe writes the tensor-parallel size itself, from `parallelism`.
    args = {name: value for name, value in spec.engine.args.items() if name != TENSOR}
    connector = json.dumps({"kv_connector": "NixlConnector", "kv_role": KV_ROLES[role]}, separators=(",", ":"))
    more = adapters.arguments(wish, adapters.KSERVE_FOLDER)
    words = [*render_args(engine_version(wish), args), *more, f"--kv-transfer-config={connector}"]
    return [
        *({"name": name, "value": value} for name, value in environment(HOME).items()),
        *([KEEP_ALIVE] if role is Role.PREFILL else []),
        *({"name": name, "value": value} for name, value in layout_variables(engine_version(wish)).items()),
        # By default the address is “localhost”, where no other pod finds the cache.
        {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        # The preset's script hands this to a shell that reads it once more: quoted once, here and nowhere else.
        {"name": "VLLM_ADDITIONAL_ARGS", "value": quoted(words)},
    ]


def _scheduler(wish: Wish) -> dict[str, Any]:
    """The endpoint picker needs no GPU, but may have to stand where others are kept off."""
    return {
        "securityContext": pod_security(),
        "tolerations": [dict(GPU_TAINT)],
        **llm.initializers(wish, _of_scheduler(wish), engine=False),
        "containers": [],
    }


def _of_scheduler(wish: Wish) -> dict[str, Any]:
    """The scheduler's tokenizer is fetched too."""
    container: dict[str, Any] = {"name": INITIALIZER, "securityContext": container_security()}
    if variables := variables_of(wish):
        container["env"] = variables
    return container


def _ingress(wish: Wish) -> list[dict[str, Any]]:
    """Beside the gateway's way to the pods: to one another (NIXL picks its ports), to the picker, to the metrics."""
    platform = wish.platform
    return [
        {"from": [llm.peers(wish)]},
        _from(gateway_peer(platform), PICKER_PORT),
        _from(monitoring_peer(platform), ENGINE_BEHIND_SIDECAR, PICKER_METRICS),
    ]


def _from(peer: dict[str, Any], *ports: int) -> dict[str, Any]:
    return {"from": [peer], "ports": [{"protocol": "TCP", "port": port} for port in ports]}


def _api_policy(wish: Wish) -> Object:
    """Picker and sidecar follow pods and pools, so they reach the API server, which may stand anywhere in the cluster.

    Pods of prefill ask nothing of it and stay as closed as others.
    """
    outside = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["127.0.0.0/8", "169.254.0.0/16"]}}
    not_prefill = {"key": LABEL_LLM_COMPONENT, "operator": "NotIn", "values": [PREFILL_COMPONENT]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata_of(wish, f"{wish.name}-slipway-api"),
        "spec": {
            "podSelector": {
                "matchLabels": {LABEL_DEPLOYMENT: wish.deployment_id},
                "matchExpressions": [not_prefill],
            },
            "policyTypes": ["Egress"],
            "egress": [{"to": [outside], "ports": [{"protocol": "TCP", "port": port} for port in KUBERNETES_API]}],
        },
    }
