"""Where pods go, and what the scheduler says when they go nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.lite.controllers.scheduling import place, rooms

GPU = "nvidia.com/gpu"
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
TOLERATES_GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def node(name: str, gpus: int = 0, *, cpu: str = "64", **spec: Any) -> dict[str, Any]:
    labels = spec.pop("labels", {})
    allocatable = {"cpu": cpu, "memory": "512Gi", "pods": spec.pop("pods", "110")}
    if gpus:
        allocatable[GPU] = str(gpus)
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable},
    }


def pod(gpus: int = 0, *, on: str | None = None, cpu: str = "4", **spec: Any) -> dict[str, Any]:
    limits = {GPU: str(gpus)} if gpus else {}
    resources = {"requests": {"cpu": cpu, "memory": "32Gi"}, "limits": limits}
    whole = {"containers": [{"name": "kserve-container", "resources": resources}], **spec}
    if on:
        whole["nodeName"] = on
    return {
        "metadata": {"name": f"pod-{on}-{gpus}", "namespace": "team"},
        "spec": whole,
        "status": {"phase": "Running"},
    }


def verdict(wanted: dict[str, Any], nodes: list[dict[str, Any]], *running: dict[str, Any]) -> Any:
    return place(wanted, rooms(nodes, running), set())


def test_a_small_pod_goes_where_the_fewest_gpus_stay_free() -> None:
    nodes = [node("a", 8), node("b", 8), node("c", 4)]

    assert verdict(pod(1), nodes, pod(2, on="a"), pod(6, on="b")).node == "b"


def test_a_pod_without_gpus_keeps_off_the_gpu_nodes() -> None:
    assert verdict(pod(), [node("gpu", 8), node("plain")]).node == "plain"


def test_finished_pods_hold_nothing() -> None:
    done = pod(8, on="a")
    done["status"]["phase"] = "Succeeded"

    assert verdict(pod(8), [node("a", 8)], done).node == "a"


def test_init_containers_count_with_their_largest_and_sidecars_with_all() -> None:
    wanted = pod(cpu="1")
    wanted["spec"]["initContainers"] = [
        {"name": "sidecar", "restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}},
        {"name": "loader", "resources": {"requests": {"cpu": "5"}}},
    ]

    assert verdict(wanted, [node("a", cpu="6999m")]).node is None  # the loader beside the sidecar: 7 cores
    assert verdict(wanted, [node("a", cpu="7")]).node == "a"


def test_each_node_names_its_own_first_objection() -> None:
    nodes = [
        node("busy-1", 8, labels=H100),
        node("busy-2", 8, labels=H100),
        node("other-1", 8),
        node("other-2", 8),
    ]
    wanted = pod(1, nodeSelector=H100)

    said = verdict(wanted, nodes, pod(8, on="busy-1"), pod(8, on="busy-2"))

    assert said.node is None
    assert said.message == (
        "0/4 nodes are available: 2 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node "
        "affinity/selector. no new claims to deallocate, preemption: 0/4 nodes are available: "
        "2 No preemption victims found for incoming pod., 2 Preemption is not helpful for scheduling."
    )


def test_more_than_a_node_has_is_not_helped_by_preemption() -> None:
    said = verdict(pod(9), [node("a", 8)])

    assert said.message == (
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )


def test_the_recorded_sentence_of_a_missing_gpu_kind() -> None:
    said = verdict(pod(1, nodeSelector={"gpu": "B200"}), [node(f"n{i}", 8) for i in range(6)])

    assert said.message == (
        "0/6 nodes are available: 6 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, "
        "preemption: 0/6 nodes are available: 6 Preemption is not helpful for scheduling."
    )


def test_the_recorded_sentence_of_a_missing_claim() -> None:
    wanted = pod(1, volumes=[{"name": "m", "persistentVolumeClaim": {"claimName": "model-store"}}])
    nodes = rooms([node(f"n{i}", 8) for i in range(6)], [])

    said = place(wanted, nodes, set())

    assert said.message == '0/6 nodes are available: persistentvolumeclaim "model-store" not found. not found'
    assert place(wanted, nodes, {"model-store"}).node is not None


def test_a_claim_without_a_volume_keeps_its_pod_waiting() -> None:
    wanted = pod(1, volumes=[{"name": "m", "persistentVolumeClaim": {"claimName": "model-store"}}])
    nodes = rooms([node(f"n{i}", 8) for i in range(6)], [])

    said = place(wanted, nodes, {"model-store"}, {"model-store"})

    assert said.message == "0/6 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"


def test_taints_need_tolerations() -> None:
    nodes = [node("a", 8, taints=[GPU_TAINT])]

    assert "1 node(s) had untolerated taint(s)" in verdict(pod(1), nodes).message
    assert verdict(pod(1, tolerations=[TOLERATES_GPU]), nodes).node == "a"


def test_a_cordoned_node_takes_nothing() -> None:
    said = verdict(pod(1), [node("a", 8, unschedulable=True)])

    assert said.message.startswith("0/1 nodes are available: 1 node(s) were unschedulable.")


def test_a_full_node_says_too_many_pods() -> None:
    said = verdict(pod(), [node("a", pods="1")], pod(on="a"))

    assert "1 Too many pods" in said.message


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["L4", "L40S"], True),
        ("In", ["H100"], False),
        ("NotIn", ["L4"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("Gt", ["20000"], True),
        ("Lt", ["20000"], False),
    ],
)
def test_node_affinity(operator: str, values: list[str], fits: bool) -> None:
    key = "memory" if operator in ("Gt", "Lt") else "product"
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}

    chosen = verdict(
        pod(1, affinity={"nodeAffinity": required}),
        [node("a", 8, labels={"product": "L4", "memory": "23034"})],
    )

    assert (chosen.node == "a") is fits


def test_no_nodes_at_all() -> None:
    assert verdict(pod(1), []).message == "no nodes available to schedule pods"
