"""Typed causes of what KServe's own controllers wrote: wrong specs, each phase of a life, a quota that is used up."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.kube.diagnose import diagnose
from deployments.kube.reasons import Code
from tests.deployments.pods import DONE, RUNNING, crashed, event, first, log, pod, recorded, seen, terminated, waiting


def test_the_recorded_quota_refusal_is_understood():
    record = recorded("quota.yaml")
    status = {"conditions": record["inferenceservice_conditions"]}
    for reason in (first(service=status), first(workload=record["deployment_status"])):
        assert reason.code is Code.QUOTA_EXCEEDED
        assert reason.numbers["limit"] == 1
        assert reason.title == "The team may hold 1 GPU of this kind on the cluster: 1 in use, 1 more asked for."


BAD_SPECS: dict[str, Code | None] = {
    "unknown-runtime": Code.RUNTIME,
    "unknown-format-no-runtime": Code.RUNTIME,
    "lowercase-vllm-format": Code.RUNTIME,
    "uri-unknown-scheme": Code.MODEL_SCHEME,
    "gpu-only-in-requests": Code.RECONCILE,
    "gpu-limit-lt-request": Code.RECONCILE,
    "fraction-gpu": Code.RECONCILE,
    "no-serviceaccount": Code.PODS_REFUSED,
    "uri-mlflow": None,
}


@pytest.mark.parametrize("name", BAD_SPECS)
def test_recorded_bad_specs_are_understood_from_the_service_alone(name: str):
    record = recorded("bad-specs.yaml")[name]
    events = []
    for line in record["events"]:
        _, reason, kind, text = line.split(" ", 3)
        events.append(event(reason, text, "chat", kind.rstrip(":")))
    status = {"conditions": record["conditions"], "modelStatus": record["modelStatus"]}
    reasons = diagnose(seen(service=status, events=events))
    assert [reason.code for reason in reasons] == ([BAD_SPECS[name]] if BAD_SPECS[name] else [])


TRACE = "Traceback (most recent call last):\nRuntimeError: 401 Client Error. Access to model is restricted."
# The pods of the recording as its kubelet wrote them; the recording itself kept only their phase.
PHASES: dict[str, tuple[list[dict[str, Any]], Code | None]] = {
    "scheduled": ([pod()], Code.PULLING),
    "init-running": ([pod(init=RUNNING)], Code.DOWNLOADING),
    "init-error": ([pod(init=terminated(1, "Error", TRACE))], Code.MODEL_ACCESS),
    "init-crashloop": (
        [pod(init=waiting("CrashLoopBackOff"), init_last=terminated(1, "Error", TRACE))],
        Code.MODEL_ACCESS,
    ),
    "image-pull-backoff": ([pod(init=DONE, engine=waiting("ImagePullBackOff"))], Code.IMAGE_PULL),
    "engine-starting": ([pod(init=DONE, engine=RUNNING)], Code.STARTING),
    "engine-crashloop": ([crashed(log("kv-too-small"))], Code.ENGINE_CRASH),
    "engine-oomkilled": ([crashed(code=137, reason="OOMKilled")], Code.HOST_MEMORY),
    "ready": ([pod(init=DONE, engine=RUNNING, ready=True)], None),
    "new-revision-pod-pending": (
        [pod("a", init=DONE, engine=RUNNING, ready=True), pod("b", revision=2)],
        Code.PULLING,
    ),
    "new-revision-crashloop-old-serving": (
        [
            pod("a", init=DONE, engine=RUNNING, ready=True),
            pod("b", init=DONE, engine=waiting("CrashLoopBackOff"), engine_last=terminated(1), revision=2),
        ],
        Code.ENGINE_CRASH,
    ),
    "stopped": ([pod("a", engine=RUNNING, ready=True, terminating=True)], None),
    "started-again": (
        [pod("a", engine=waiting("CrashLoopBackOff"), terminating=True), pod("c", init=RUNNING, revision=2)],
        Code.DOWNLOADING,
    ),
}


def test_all_recorded_phases_are_covered():
    assert set(recorded("lifecycle.yaml")) == set(PHASES)


@pytest.mark.parametrize("phase", PHASES)
def test_each_recorded_phase_is_understood(phase: str):
    record = recorded("lifecycle.yaml")[phase]
    pods, code = PHASES[phase]
    reasons = diagnose(seen(*pods, service=record["inferenceservice_status"], workload=record["deployment_status"]))
    assert [reason.code for reason in reasons[:1]] == ([code] if code else [])


@pytest.mark.parametrize("phase", ["init-error", "init-crashloop"])
def test_kserve_is_believed_of_a_failed_download_while_the_only_pod_shows_nothing(phase: str):
    status = recorded("lifecycle.yaml")[phase]["inferenceservice_status"]
    assert first(pod(), service=status).code is Code.MODEL_ACCESS


@pytest.mark.parametrize("phase", ["image-pull-backoff", "engine-starting", "ready", "new-revision-pod-pending"])
def test_an_old_failure_that_kserve_never_cleared_is_not_shown(phase: str):
    status = recorded("lifecycle.yaml")[phase]["inferenceservice_status"]
    assert status["modelStatus"]["lastFailureInfo"]
    assert Code.MODEL_ACCESS not in {reason.code for reason in diagnose(seen(pod(), service=status))}


def test_ready_while_pending_is_not_believed():
    record = recorded("variants/ready-while-pending.yaml")["objects"]
    by_kind = {obj["kind"]: obj for obj in record}
    reason = first(by_kind["Pod"], service=by_kind["InferenceService"]["status"])
    assert reason.code is Code.NO_MATCHING_NODE
