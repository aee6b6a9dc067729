"""The page must read like kube-state-metrics' own: names, labels, units."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandbox.metrics import kube_state
from sandbox.metrics.exposition import label_name, object_label, quantity

Samples = dict[str, list[tuple[dict[str, str], float]]]

POD: dict[str, Any] = {
    "metadata": {
        "name": "chat-predictor-7d9-x2x",
        "namespace": "search-abcde",
        "uid": "u-1",
        "creationTimestamp": "2026-11-25T15:00:00Z",
        "labels": {"slipway.dev/deployment": "42", "isvc.generation": "1", "pod-template-hash": "7d9"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "chat-predictor-7d9", "controller": True}],
    },
    "spec": {
        "nodeName": "gpu-h100-1",
        "containers": [
            {
                "name": "kserve-container",
                "resources": {
                    "requests": {"cpu": "500m", "memory": "2Gi", "nvidia.com/gpu": "2"},
                    "limits": {"nvidia.com/gpu": "2"},
                },
            }
        ],
    },
    "status": {
        "phase": "Running",
        "hostIP": "127.20.255.1",
        "podIP": "127.20.0.2",
        "conditions": [{"type": "Ready", "status": "False"}, {"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [
            {
                "name": "kserve-container",
                "ready": False,
                "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"reason": "Error", "exitCode": 1}},
            }
        ],
        "initContainerStatuses": [
            {
                "name": "storage-initializer",
                "ready": True,
                "restartCount": 0,
                "state": {"terminated": {"reason": "Completed", "exitCode": 0}},
            }
        ],
    },
}
NODE: dict[str, Any] = {
    "metadata": {"name": "gpu-h100-1", "labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}},
    "spec": {"unschedulable": True},
    "status": {
        "addresses": [{"type": "InternalIP", "address": "127.20.255.1"}],
        "allocatable": {"nvidia.com/gpu": "4", "memory": "512Gi", "cpu": "64", "pods": "110"},
        "capacity": {"nvidia.com/gpu": "4"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
DEPLOYMENT: dict[str, Any] = {
    "metadata": {"name": "chat-predictor", "namespace": "search-abcde", "labels": {"slipway.dev/deployment": "42"}},
    "spec": {"replicas": 2},
    "status": {"replicas": 2, "readyReplicas": 1, "observedGeneration": 5},
}
QUOTA: dict[str, Any] = {
    "metadata": {"name": "slipway", "namespace": "search-abcde"},
    "status": {"hard": {"requests.nvidia.com/gpu": "8"}, "used": {"requests.nvidia.com/gpu": "2"}},
}


def samples(page: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


@pytest.fixture
def page() -> Samples:
    return samples(kube_state.page(pods=[POD], nodes=[NODE], deployments=[DEPLOYMENT], quotas=[QUOTA]))


WHO = {"namespace": "search-abcde", "pod": "chat-predictor-7d9-x2x", "uid": "u-1"}
CONTAINER = WHO | {"container": "kserve-container"}


def test_a_pod_has_one_phase_of_five(page: Samples) -> None:
    phases = {labels["phase"]: value for labels, value in page["kube_pod_status_phase"]}
    assert phases == {"Running": 1, "Pending": 0, "Succeeded": 0, "Failed": 0, "Unknown": 0}


def test_requests_carry_sanitised_names_and_units(page: Samples) -> None:
    where = CONTAINER | {"node": "gpu-h100-1"}
    assert (where | {"resource": "nvidia_com_gpu", "unit": "integer"}, 2) in page[
        "kube_pod_container_resource_requests"
    ]
    assert (where | {"resource": "cpu", "unit": "core"}, 0.5) in page["kube_pod_container_resource_requests"]
    assert (where | {"resource": "memory", "unit": "byte"}, 2 * 2**30) in page["kube_pod_container_resource_requests"]
    assert len(page["kube_pod_container_resource_limits"]) == 1


def test_only_allowed_labels_are_exported(page: Samples) -> None:
    ((labels, value),) = page["kube_pod_labels"]
    assert labels == WHO | {"label_slipway_dev_deployment": "42", "label_isvc_generation": "1"}
    assert value == 1


def test_container_statuses_tell_reasons_and_restarts(page: Samples) -> None:
    assert page["kube_pod_container_status_restarts_total"] == [(CONTAINER, 3)]
    assert page["kube_pod_container_status_waiting_reason"] == [(CONTAINER | {"reason": "CrashLoopBackOff"}, 1)]
    assert page["kube_pod_container_status_last_terminated_reason"] == [(CONTAINER | {"reason": "Error"}, 1)]
    initializer = WHO | {"container": "storage-initializer", "reason": "Completed"}
    assert page["kube_pod_init_container_status_terminated_reason"] == [(initializer, 1)]


def test_nodes_tell_what_can_be_given_out(page: Samples) -> None:
    gpus = {"node": "gpu-h100-1", "resource": "nvidia_com_gpu", "unit": "integer"}
    assert (gpus, 4) in page["kube_node_status_allocatable"]
    assert page["kube_node_spec_unschedulable"] == [({"node": "gpu-h100-1"}, 1)]
    ready = {labels["status"]: value for labels, value in page["kube_node_status_condition"]}
    assert ready == {"true": 1, "false": 0, "unknown": 0}


def test_a_quota_keeps_the_name_of_its_resource(page: Samples) -> None:
    base = {"resourcequota": "slipway", "namespace": "search-abcde", "resource": "requests.nvidia.com/gpu"}
    assert sorted(page["kube_resourcequota"], key=str) == [(base | {"type": "hard"}, 8), (base | {"type": "used"}, 2)]


def test_deployments_count_replicas_and_absent_counts_are_zero(page: Samples) -> None:
    who = {"namespace": "search-abcde", "deployment": "chat-predictor"}
    assert page["kube_deployment_spec_replicas"] == [(who, 2)]
    assert page["kube_deployment_status_replicas_ready"] == [(who, 1)]
    assert page["kube_deployment_status_replicas_unavailable"] == [(who, 0)]


def test_a_pod_that_was_just_made_is_described_too() -> None:
    bare = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}}
    page = samples(kube_state.page(pods=[bare], nodes=[], deployments=[], quotas=[]))
    assert ({"namespace": "n", "pod": "p", "uid": "u", "phase": "Pending"}, 1) in page["kube_pod_status_phase"]


def test_label_values_are_escaped() -> None:
    hostile = {"metadata": {"name": 'a"b\\c\nd', "namespace": "n", "uid": "u"}, "spec": {"containers": []}}
    page = samples(kube_state.page(pods=[hostile], nodes=[], deployments=[], quotas=[]))
    assert page["kube_pod_created"][0][0]["pod"] == 'a"b\\c\nd'


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("2Gi", 2 * 2**30), ("1e3", 1000), ("5k", 5000), (4, 4), ("1.5", 1.5), ("3E", 3e18)],
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "five", "1Zi", "--1", "1 Gi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


def test_label_names_follow_discovery_and_kube_state_metrics() -> None:
    assert label_name("slipway.dev/deployment") == "slipway_dev_deployment"
    assert object_label("app.kubernetes.io/managedBy") == "label_app_kubernetes_io_managed_by"
