"""Disaggregated serving, as an object of KServe's own: Slipway's strategy for it is not part of this release."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deployments import factories as make
from tests.scenarios.grounds import Object
from tests.scenarios.stage import Stage

pytestmark = pytest.mark.django_db

TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
READY = {"Ready", "MainWorkloadReady", "PrefillWorkloadReady", "RouterReady"}


def test_disaggregated_service_to_ready(stage: Stage):
    # Presets add capabilities and run as root: not for a team's namespace, which admits restricted pods alone.
    name = f"pd-{stage.namespace}"
    stage.ground.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        stage.ground.create(disaggregated(name))
        stage.see(lambda: conditions(stage, name), dict.fromkeys(READY, "True"), within=60)

        pods = stage.ground.list("Pod", name)
        roles = sorted(pod["metadata"]["labels"].get("llm-d.ai/role", "-") for pod in pods)
        assert roles == ["-", "decode", "prefill"]  # and the endpoint picker
        assert all(pod["status"]["phase"] == "Running" for pod in pods)
        deployments = {item["metadata"]["name"] for item in stage.ground.list("Deployment", name)}
        assert deployments == {"pd-kserve", "pd-kserve-prefill", "pd-kserve-router-scheduler"}
        [pool] = stage.ground.list("InferencePool", name)
        [route] = stage.ground.list("HTTPRoute", name)
        backends = {ref["kind"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]}
        assert (pool["metadata"]["name"], "InferencePool" in backends) == ("pd-inference-pool", True)
    finally:
        stage.ground.remove("LLMInferenceService", "pd", name)
        stage.ground.remove("Namespace", name)


def conditions(stage: Stage, namespace: str) -> dict[str, str]:
    """What is said of the service: the status of each condition, and in place of False what is said about it."""
    service = stage.ground.read("LLMInferenceService", "pd", namespace) or {}
    found = service.get("status", {}).get("conditions", [])
    return {
        item["type"]: item.get("message", "False") if item["status"] == "False" else item["status"] for item in found
    }


def disaggregated(namespace: str) -> Object:
    """One decode and one prefill pod of a 7B model, on L4s."""
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": "pd", "namespace": namespace},
        "spec": {
            "model": {"uri": make.QWEN, "name": "Qwen/Qwen2.5-7B-Instruct"},
            "replicas": 1,
            # The endpoint picker too: the sandbox has no other nodes than those with GPUs.
            "router": {
                "route": {},
                "gateway": {},
                "scheduler": {"template": {"containers": [], "tolerations": TOLERATIONS}},
            },
            "template": template("kv_consumer"),
            "prefill": {"replicas": 1, "template": template("kv_producer")},
        },
    }


def template(role: str) -> dict[str, Any]:
    """The pods of one role."""
    amounts = {"cpu": "4", "memory": "24Gi", "nvidia.com/gpu": "1"}
    words = f'--max-model-len=8192 --kv-transfer-config \'{{"kv_connector":"NixlConnector","kv_role":"{role}"}}\''
    side_channel = {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return {
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
        "tolerations": TOLERATIONS,
        "containers": [
            {
                "name": "main",
                "env": [side_channel, {"name": "VLLM_ADDITIONAL_ARGS", "value": words}],
                "resources": {"requests": amounts, "limits": amounts},
            }
        ],
    }
