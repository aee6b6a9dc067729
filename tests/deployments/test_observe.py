"""Objects of the API become slim views; odd and missing parts become empty ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deployments.kube.observe import MAX_MESSAGE, event_view, observe, pod_view, service_view, workload_view
from tests.deployments.pods import RUNNING, event, pod, recorded, terminated, waiting


def test_a_pod_keeps_what_states_and_reasons_need():
    view = pod_view(
        pod(
            init=terminated(0), engine=waiting("CrashLoopBackOff"), engine_last=terminated(137, "OOMKilled"), restarts=3
        )
    )
    assert (view.name, view.deployment, view.revision, view.service) == (
        "chat-predictor-5b-aaaaa",
        "42",
        1,
        "chat",
    )
    assert (view.node, view.gpus, view.scheduled, view.ready) == ("gpu-h100-1", 2, True, False)
    assert view.engine is not None
    assert (view.engine.state, view.engine.reason, view.engine.last_reason) == (
        "waiting",
        "CrashLoopBackOff",
        "OOMKilled",
    )
    assert (view.engine.last_exit_code, view.engine.restarts, view.engine.died) == (137, 3, True)
    assert view.initializer is not None
    assert view.initializer.exit_code == 0


def test_a_recorded_pod_is_unschedulable_in_the_schedulers_words():
    objects = recorded("variants/ready-while-pending.yaml")["objects"]
    (raw,) = [obj for obj in objects if obj["kind"] == "Pod"]
    view = pod_view(raw)
    assert view.scheduled is False
    assert view.unschedulable.startswith("0/6 nodes are available")
    assert view.template_hash == "7f94fc47cb"


def test_a_recorded_service_keeps_its_conditions_and_failure():
    status = recorded("lifecycle.yaml")["init-error"]["inferenceservice_status"]
    view = service_view({"metadata": {"name": "chat"}, "status": status})
    assert view.transition == "BlockedByFailedLoad"
    assert view.failure_exit_code == 1
    ready = view.condition("Ready")
    assert ready is not None
    assert ready.status == "False"
    assert view.condition("Nonsense") is None
    assert not view.stopped


def test_a_stopped_service_is_told_from_one_asked_to_stop():
    status = recorded("lifecycle.yaml")["stopped"]["inferenceservice_status"]
    assert service_view({"status": status}).stopped
    asked = service_view({"metadata": {"annotations": {"serving.kserve.io/stop": "true"}}})
    assert (asked.stop_asked, asked.stopped) == (True, False)


def test_a_recorded_workload_counts_its_replicas():
    status = recorded("lifecycle.yaml")["new-revision-pod-pending"]["deployment_status"]
    view = workload_view({"kind": "Deployment", "spec": {"replicas": 1}, "status": status})
    assert (view.desired, view.replicas, view.ready, view.updated) == (1, 2, 1, 1)


def test_an_event_of_either_api_is_read():
    view = event_view(event("BackOff", "Back-off"))
    assert (view.reason, view.kind, view.count) == ("BackOff", "Pod", 2)
    assert view.last_seen == datetime(2026, 11, 25, 13, 54, 30, tzinfo=UTC)
    newer = {
        "reason": "BackOff",
        "note": "Back-off",
        "regarding": {"kind": "Pod", "name": "p"},
        "series": {"count": 5, "lastObservedTime": "2026-11-25T13:54:30.123456Z"},
    }
    assert (event_view(newer).message, event_view(newer).count, event_view(newer).name) == ("Back-off", 5, "p")


def test_of_a_long_message_the_end_is_kept():
    long = "x" * MAX_MESSAGE + "the cause"
    view = pod_view(pod(engine=terminated(1, "Error", long)))
    assert view.engine is not None
    assert view.engine.message.endswith("the cause")
    assert len(view.engine.message) <= MAX_MESSAGE + 1


def test_gone_means_a_complete_list_without_service_and_pods_that_hold_gpus():
    assert observe().gone
    assert not observe(complete=False).gone
    assert not observe(pods=[pod(terminating=True)]).gone
    assert observe(pods=[pod(phase="Succeeded")]).gone
    assert not observe(service={"metadata": {"name": "chat"}}).gone


def test_terminating_pods_are_seen_but_not_live():
    view = observe(pods=[pod("b"), pod("a", terminating=True)])
    assert [item.name for item in view.pods] == ["a", "b"]
    assert [item.name for item in view.live_pods] == ["b"]


KEYS = [
    "metadata", "spec", "status", "conditions", "containerStatuses", "initContainerStatuses", "state", "lastState",
    "waiting", "running", "terminated", "labels", "type", "reason", "message", "exitCode", "restartCount",
    "containers", "resources", "limits", "nvidia.com/gpu", "modelStatus", "states", "lastFailureInfo", "replicas",
    "involvedObject", "series", "count", "deletionTimestamp", "lastTransitionTime", "startedAt",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(RUNNING),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@given(raw=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5))
def test_no_object_breaks_a_view(raw: dict[str, Any]):
    for view in (pod_view, service_view, workload_view, event_view):
        view(raw)
