"""PodMonitors become the targets that prometheus-operator's configuration would yield."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from sandbox.metrics.relabel import relabel
from sandbox.metrics.targets import limits, match_labels, node_targets, pod_targets


def monitor(**spec: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "selector": {"matchLabels": {"serving.kserve.io/inferenceservice": "chat"}},
        "podTargetLabels": ["slipway.dev/deployment", "not-there"],
        "podMetricsEndpoints": [{"port": "http1", "path": "/metrics", "interval": "5s", "scrapeTimeout": "4s"}],
    }
    return {"metadata": {"name": "chat", "namespace": "team-a"}, "spec": base | spec}


def pod(
    name: str = "chat-1", namespace: str = "team-a", ip: str = "127.20.0.2", phase: str = "Running"
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": name,
            "labels": {"serving.kserve.io/inferenceservice": "chat", "slipway.dev/deployment": "42"},
        },
        "spec": {
            "nodeName": "gpu-l4-1",
            "containers": [
                {"name": "kserve-container", "ports": [{"name": "http1", "containerPort": 8080}]},
                {"name": "sidecar", "ports": [{"name": "metrics", "containerPort": 9000}]},
            ],
        },
        "status": {"phase": phase, "podIP": ip},
    }


def test_a_target_is_labelled_as_the_operator_labels_it() -> None:
    (target,), wrong = pod_targets([monitor()], [pod()])
    assert not wrong
    assert target.group() == {
        "targets": ["127.20.0.2:8080"],
        "labels": {
            "namespace": "team-a",
            "pod": "chat-1",
            "container": "kserve-container",
            "endpoint": "http1",
            "job": "team-a/chat",
            "slipway_dev_deployment": "42",
            "__metrics_path__": "/metrics",
            "__scrape_interval__": "5s",
            "__scrape_timeout__": "4s",
        },
    }


@pytest.mark.parametrize("other", [pod(ip=""), pod(phase="Failed"), pod(phase="Succeeded"), pod(namespace="team-b")])
def test_pods_without_address_ended_or_of_another_namespace_are_no_targets(other: dict[str, Any]) -> None:
    assert pod_targets([monitor()], [other]) == ([], {})


def test_ended_pods_stay_targets_when_the_monitor_wants_them() -> None:
    wish = monitor(podMetricsEndpoints=[{"port": "http1", "filterRunning": False}])
    assert len(pod_targets([wish], [pod(phase="Failed")])[0]) == 1


def test_namespace_selectors_reach_other_namespaces() -> None:
    pods = [pod(), pod("chat-2", "team-b", "127.20.0.3"), pod("chat-3", "team-c", "127.20.0.4")]
    assert len(pod_targets([monitor(namespaceSelector={"any": True})], pods)[0]) == 3
    named, _ = pod_targets([monitor(namespaceSelector={"matchNames": ["team-b", "gone"]})], pods)
    assert [target.labels["pod"] for target in named] == ["chat-2"]


def test_a_port_number_finds_the_container() -> None:
    (target,), _ = pod_targets([monitor(podMetricsEndpoints=[{"portNumber": 9000}])], [pod()])
    assert (target.address, target.labels["container"], target.labels["endpoint"]) == (
        "127.20.0.2:9000",
        "sidecar",
        "9000",
    )


def test_relabelings_see_what_discovery_knows_and_leave_no_trace_of_it() -> None:
    rules = [
        {"action": "keep", "sourceLabels": ["__meta_kubernetes_pod_container_name"], "regex": "kserve-container"},
        {
            "sourceLabels": ["__meta_kubernetes_pod_label_serving_kserve_io_inferenceservice"],
            "targetLabel": "inferenceservice",
        },
        {"targetLabel": "__tmp_note", "replacement": "x"},
    ]
    endpoints = [{"portNumber": 8080, "relabelings": rules}, {"portNumber": 9000, "relabelings": rules}]
    (target,), _ = pod_targets([monitor(podMetricsEndpoints=endpoints)], [pod()])
    assert target.labels["inferenceservice"] == "chat"
    assert not [name for name in target.labels if name.startswith(("__meta_", "__tmp_"))]


def test_a_monitor_that_cannot_be_read_harms_no_other() -> None:
    broken = monitor(podMetricsEndpoints=[{"port": "http1", "relabelings": [{"regex": "("}]}])
    broken["metadata"]["name"] = "broken"
    targets, wrong = pod_targets([broken, monitor()], [pod()])
    assert len(targets) == 1
    assert list(wrong) == ["team-a/broken"]


def test_what_files_cannot_carry_is_reported() -> None:
    assert limits(monitor(podMetricsEndpoints=[{"port": "a", "metricRelabelings": [{"action": "drop"}]}])) == [
        "metricRelabelings"
    ]
    assert limits(monitor()) == []


def test_honor_labels_is_kept_apart() -> None:
    (target,), _ = pod_targets([monitor(podMetricsEndpoints=[{"port": "http1", "honorLabels": True}])], [pod()])
    assert target.honor_labels


def test_gpu_nodes_have_an_exporter_and_others_none() -> None:
    node: dict[str, Any] = {
        "metadata": {"name": "gpu-l4-1"},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "gpu-l4-1"},
                {"type": "InternalIP", "address": "127.20.255.3"},
            ],
            "capacity": {"nvidia.com/gpu": "8"},
        },
    }
    plain = deepcopy(node) | {"metadata": {"name": "cpu-1"}}
    plain["status"]["capacity"] = {"cpu": "8"}
    (target,) = node_targets([plain, node])
    assert target.address == "127.20.255.3:9400"
    assert target.labels["node"] == "gpu-l4-1"
    assert target.labels["job"] == "nvidia-dcgm-exporter"


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "b", "operator": "Exists"}, False),
        ({"key": "b", "operator": "DoesNotExist"}, True),
        ({"key": "a", "operator": "Nonsense"}, False),
    ],
)
def test_label_expressions(expression: dict[str, Any], fits: bool) -> None:
    assert match_labels({"matchExpressions": [expression]}, {"a": "1"}) is fits


@pytest.mark.parametrize(
    ("rule", "result"),
    [
        ({"sourceLabels": ["a", "b"], "targetLabel": "c"}, {"a": "x1", "b": "y", "c": "x1;y"}),
        ({"sourceLabels": ["a"], "regex": r"x(\d)", "targetLabel": "c", "replacement": "n-${1}-$2"}, {"c": "n-1-"}),
        ({"sourceLabels": ["a"], "regex": "nope", "targetLabel": "c", "replacement": "z"}, {"c": None}),
        ({"sourceLabels": ["a"], "regex": "x", "action": "keep"}, None),
        ({"sourceLabels": ["a"], "regex": "x.", "action": "drop"}, None),
        ({"action": "labelmap", "regex": "(.)", "replacement": "l_$1"}, {"a": "x1", "l_a": "x1", "l_b": "y"}),
        ({"action": "labeldrop", "regex": "a"}, {"a": None, "b": "y"}),
        ({"action": "LabelKeep", "regex": "a"}, {"a": "x1", "b": None}),
        ({"action": "uppercase", "sourceLabels": ["b"], "targetLabel": "b"}, {"b": "Y"}),
        ({"targetLabel": "a", "replacement": ""}, {"a": None}),
        ({"action": "dropequal", "sourceLabels": ["a"], "targetLabel": "a"}, None),
    ],
)
def test_relabelling(rule: dict[str, Any], result: dict[str, str | None] | None) -> None:
    changed = relabel({"a": "x1", "b": "y"}, [rule])
    if result is None:
        assert changed is None
    else:
        assert changed is not None
        assert {name: changed.get(name) for name in result} == result


def test_hashmod_agrees_with_prometheus() -> None:
    # The case of Prometheus' own relabel_test.go.
    rule = {"action": "hashmod", "sourceLabels": ["c"], "targetLabel": "d", "separator": ";", "modulus": 1000}
    changed = relabel({"a": "foo", "b": "bar", "c": "baz"}, [rule])
    assert changed is not None
    assert changed["d"] == "976"


def test_an_unknown_action_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown action"):
        relabel({"a": "b"}, [{"action": "invent"}])
