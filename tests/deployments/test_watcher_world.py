"""What the watcher keeps in memory: slim, found by place, and suspicious of what changed hands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from deployments.kube import slim
from deployments.kube.kinds import Ref
from deployments.kube.observe import event_view, pod_view, service_view, workload_view
from deployments.kube.reflector import Changed, Listed
from deployments.watcher import seen
from deployments.watcher.world import Crash, World

NOW = "2026-11-25T12:00:00Z"


def decoded(struct: type[Any], raw: dict[str, Any]) -> Any:
    return msgspec.json.decode(json.dumps(raw), type=struct)


def raw_pod(name: str = "chat-predictor-abc-1", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "resourceVersion": "5",
            "creationTimestamp": NOW,
            "labels": {"serving.kserve.io/inferenceservice": "chat", "slipway.dev/deployment": "7"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {
            "nodeName": "gpu-1",
            "containers": [{"name": "kserve-container", "resources": {"limits": {"nvidia.com/gpu": "2"}}}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1", **status},
    }


def raw_service(*, fields: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "chat",
            "namespace": "ns",
            "uid": "s",
            "resourceVersion": "9",
            "generation": 2,
            "labels": {"slipway.dev/deployment": "7", "slipway.dev/revision": "1"},
            "annotations": {"slipway.dev/spec-hash": "h"},
            "managedFields": [
                {"manager": "slipway", "operation": "Apply", "fieldsV1": fields or {"f:spec": {"f:a": {}}}},
                {"manager": "manager", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
            ],
        },
        "spec": {"predictor": {"huge": ["x"] * 100}},
        "status": status,
    }


def crashed(**container: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "kserve-container", "ready": False, **container}]}


@pytest.fixture
def world() -> World:
    world = World()
    world.take(Listed("InferenceService", {("ns", "chat"): seen.service(decoded(slim.Service, raw_service()))}))
    world.take(Listed("Pod", {("ns", "chat-predictor-abc-1"): seen.pod(decoded(slim.Pod, raw_pod()))}))
    world.dirty.clear()
    world.suspects.clear()
    return world


def put_pod(world: World, raw: dict[str, Any]) -> None:
    pod = seen.pod(decoded(slim.Pod, raw))
    world.take(Changed("Pod", ("ns", raw["metadata"]["name"]), pod))


def test_slim_objects_show_what_whole_ones_show():
    pod = raw_pod(
        conditions=[{"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}],
        initContainerStatuses=[{"name": "storage-initializer", "state": {"running": {"startedAt": NOW}}}],
        containerStatuses=[
            {
                "name": "kserve-container",
                "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "end of log"}},
            }
        ],
    )
    assert seen.pod(decoded(slim.Pod, pod)) == pod_view(pod)
    service = raw_service(conditions=[{"type": "Stopped", "status": "True"}], modelStatus={"transitionStatus": "X"})
    assert seen.service(decoded(slim.Service, service)).view == service_view(service)
    workload = {
        "metadata": {"name": "chat-predictor", "namespace": "ns"},
        "spec": {"replicas": 2, "template": {"metadata": {"labels": {"slipway.dev/revision": "2"}}}},
        "status": {"readyReplicas": 1, "conditions": [{"type": "Progressing", "status": "False"}]},
    }
    assert seen.workload(decoded(slim.Workload, workload)) == workload_view({"kind": "Deployment", **workload})
    event = {
        "metadata": {"name": "e", "namespace": "ns", "creationTimestamp": NOW},
        "involvedObject": {"kind": "Pod", "name": "chat-predictor-abc-1", "namespace": "ns"},
        "reason": "Failed",
        "message": "no",
        "count": 4,
        "lastTimestamp": NOW,
    }
    assert seen.event(decoded(slim.Event, event)) == event_view(event)


def test_what_is_of_no_service_is_not_kept():
    foreign = {"metadata": {"name": "x", "namespace": "other"}, "spec": {"containers": [{}]}, "status": {}}
    assert seen.pod(decoded(slim.Pod, foreign)) is None
    event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "x"}}
    assert seen.event(decoded(slim.Event, event)) is None


def test_a_node_is_counted_by_the_gpus_it_has():
    raw = {
        "metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": "L4", "nvidia.com/gpu.memory": "23034"}},
        "spec": {"unschedulable": True},
        "status": {
            "capacity": {"cpu": "8", "nvidia.com/gpu": "8"},
            "allocatable": {"nvidia.com/gpu": "7"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    node = seen.node(decoded(slim.Node, raw))
    assert node is not None
    assert (node.product, node.memory_mib, node.capacity, node.allocatable) == ("L4", 23034, 8, 7)
    assert (node.ready, node.unschedulable) == (True, True)
    assert seen.node(decoded(slim.Node, {"metadata": {"name": "cpu"}, "status": {"capacity": {"cpu": "8"}}})) is None


def test_a_changed_pod_makes_its_place_dirty_and_the_same_again_does_not(world):
    put_pod(world, raw_pod())
    assert world.dirty == set()
    put_pod(world, raw_pod(phase="Failed"))
    assert world.dirty == {("ns", "chat")}


def test_everything_of_a_deployment_is_found_by_its_place(world):
    observed = world.observed(("ns", "chat"), "7", complete=True)
    assert observed.service is not None
    assert [pod.name for pod in observed.pods] == ["chat-predictor-abc-1"]


def test_pods_of_an_earlier_deployment_of_that_name_are_not_its_own(world):
    assert world.observed(("ns", "chat"), "8", complete=True).pods == ()


def test_a_list_without_an_object_means_that_it_is_gone(world):
    world.take(Listed("Pod", {}))
    assert world.observed(("ns", "chat"), "7", complete=True).pods == ()
    assert world.dirty == {("ns", "chat")}
    assert world.nodes_changed


def test_a_pod_that_becomes_ready_changes_what_its_node_says(world):
    world.nodes_changed = False
    put_pod(world, raw_pod(conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": NOW}]))
    assert world.nodes_changed
    world.nodes_changed = False
    put_pod(
        world, raw_pod(conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-25T12:09:00Z"}])
    )
    assert not world.nodes_changed


def test_a_field_that_changed_hands_is_suspect_and_a_status_is_not(world):
    ref = Ref("serving.kserve.io/v1beta1", "InferenceService", "ns", "chat")
    status = seen.service(decoded(slim.Service, raw_service(conditions=[{"type": "Ready", "status": "True"}])))
    world.take(Changed("InferenceService", ("ns", "chat"), status))
    assert world.suspects == {}
    edited = seen.service(decoded(slim.Service, raw_service(fields={"f:spec": {}})))
    world.take(Changed("InferenceService", ("ns", "chat"), edited))
    assert ref in world.suspects


def test_an_object_that_went_is_suspect(world):
    world.take(Changed("InferenceService", ("ns", "chat"), None))
    assert set(world.suspects.values()) == {"gone"}


def test_events_are_found_through_what_they_are_about(world):
    for kind, name in [
        ("InferenceService", "chat"),
        ("Pod", "chat-predictor-abc-1"),
        ("ReplicaSet", "chat-predictor-abc"),
    ]:
        raw = {
            "metadata": {"name": f"e-{kind}", "namespace": "ns"},
            "involvedObject": {"kind": kind, "name": name, "namespace": "ns"},
            "reason": kind,
            "lastTimestamp": NOW,
        }
        world.take(Changed("Event", ("ns", f"e-{kind}"), seen.event(decoded(slim.Event, raw))))
    reasons = {event.reason for event in world.observed(("ns", "chat"), "7", complete=True).events}
    assert reasons == {"InferenceService", "Pod", "ReplicaSet"}
    world.forget_old_events(datetime(2026, 11, 25, 14, 0, tzinfo=UTC))
    assert world.observed(("ns", "chat"), "7", complete=True).events == ()


def test_last_words_are_wanted_once_per_death(world):
    place = ("ns", "chat")
    last = {"terminated": {"exitCode": 1, "reason": "Error"}}
    loop = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": last}
    put_pod(world, raw_pod(**crashed(**loop, restartCount=2)))

    [crash] = world.crashes([place])
    assert crash == Crash("ns", "chat-predictor-abc-1", "uid-chat-predictor-abc-1", "kserve-container", 2, True)

    world.hear(crash, "ValueError: To serve at least one request")
    assert world.crashes([place]) == []
    assert "To serve" in world.observed(place, "7", complete=True).log_tails["chat-predictor-abc-1"]

    put_pod(world, raw_pod(**crashed(**loop, restartCount=3)))
    assert [again.restarts for again in world.crashes([place])] == [3]


def test_a_container_that_just_ended_is_read_itself(world):
    put_pod(world, raw_pod(**crashed(state={"terminated": {"exitCode": 1}}, restartCount=0)))
    [crash] = world.crashes([("ns", "chat")])
    assert crash.previous is False


def test_last_words_go_with_their_pod(world):
    put_pod(world, raw_pod(**crashed(state={"terminated": {"exitCode": 1}})))
    [crash] = world.crashes([("ns", "chat")])
    world.take(Changed("Pod", ("ns", "chat-predictor-abc-1"), None))
    world.hear(crash, "late")
    assert world.tails == {}
