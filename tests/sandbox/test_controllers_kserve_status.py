"""The status of an InferenceService through its life, against the statuses real KServe wrote."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.lite.controllers import kserve_status as described
from sandbox.lite.controllers.kserve_admission import default, validate
from sandbox.lite.controllers.kserve_children import addresses, cluster_local
from sandbox.lite.controllers.kserve_config import KServeConfig
from sandbox.lite.controllers.kserve_pods import check_uri
from sandbox.lite.controllers.kserve_runtimes import find_runtime
from sandbox.lite.controllers.kserve_status import SpecError
from tests.sandbox.recordings import comparable, read, read_all, recorded

NOW = datetime(2026, 11, 25, 14, 0, tzinfo=UTC)
CONFIG = KServeConfig()
DOWNLOAD_ERROR = (
    'Traceback (most recent call last):\n  File "/storage-initializer/scripts/initializer-entrypoint", line 14, in '
    "<module>\nRuntimeError: 401 Client Error. Access to model is restricted."
)
ENGINE_ERROR = "RuntimeError: Engine core initialization failed. See root cause above."
ENDED = {"terminated": {"exitCode": 1, "reason": "Error", "message": DOWNLOAD_ERROR}}
CRASHED = {"terminated": {"exitCode": 1, "reason": "Error", "message": ENGINE_ERROR}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}
LOOP = {"waiting": {"reason": "CrashLoopBackOff"}}


def pod(
    made: int, *, init: dict[str, Any] | None = None, engine: dict[str, Any] | None = None, ready: bool = False,
    init_before: dict[str, Any] | None = None, engine_before: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A pod as a kubelet describes it; `made` orders pods by age."""
    status: dict[str, Any] = {"phase": "Running" if ready else "Pending"}
    if init is not None:
        status["initContainerStatuses"] = [
            {"name": "storage-initializer", "state": init, "lastState": init_before or {}}
        ]
    if engine is not None:
        status["containerStatuses"] = [{"name": "kserve-container", "state": engine, "lastState": engine_before or {}}]
    status["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"creationTimestamp": f"2026-11-25T13:00:{made:02d}Z"}, "status": status}


WAITING = {"waiting": {"reason": "PodInitializing"}}
OLD = pod(1, init=DONE, engine={"running": {}}, ready=True)
NEW_CRASHING = pod(2, init=DONE, engine=LOOP, engine_before=CRASHED)
# In the order of the recording. None: KServe is not woken by what happens here, as no init container changes.
LIFE: list[tuple[str, list[dict[str, Any]] | None]] = [
    ("scheduled", [pod(1, engine=WAITING)]),
    ("init-running", [pod(1, init={"running": {}}, engine=WAITING)]),
    ("init-error", [pod(1, init=ENDED, engine=WAITING)]),
    ("init-crashloop", [pod(1, init=LOOP, init_before=ENDED, engine=WAITING)]),
    ("image-pull-backoff", [pod(1, init=DONE, engine={"waiting": {"reason": "ImagePullBackOff"}})]),
    ("engine-starting", None),
    ("engine-crashloop", None),
    ("engine-oomkilled", None),
    ("ready", [OLD]),
    ("new-revision-pod-pending", [OLD, pod(2)]),
    ("new-revision-crashloop-old-serving", [OLD, NEW_CRASHING]),
    ("stopped", [OLD, NEW_CRASHING]),
    ("started-again", [OLD, NEW_CRASHING]),
]


def test_every_phase_of_the_recorded_life_has_the_recorded_status() -> None:
    isvc = {"metadata": {"name": "qwen25-7b", "namespace": "life"}}
    status = described.empty_status("Standard")
    life = read("lifecycle.yaml")
    assert list(life) == [phase for phase, _ in LIFE]

    for phase, pods in LIFE:
        if phase == "stopped":
            status = described.stopped(status, NOW)
        elif pods is not None:
            deployment = {"status": life[phase]["deployment_status"]}
            status = settled(status, deployment, pods, isvc)
        ours = {name: value for name, value in status.items() if name not in ("components", "deploymentMode")}
        theirs = life[phase]["inferenceservice_status"]
        assert comparable(ours) == comparable(theirs), phase


def settled(
    status: dict[str, Any], deployment: dict[str, Any], pods: list[dict[str, Any]], isvc: dict[str, Any]
) -> dict[str, Any]:
    """Look until nothing changes, as each write of a status wakes the controller once more."""
    for _ in range(5):
        fresh = described.observed(
            status, deployment, pods, addresses(isvc, CONFIG), NOW, published=not cluster_local(isvc)
        )
        assert fresh is not None
        if described.same(status, fresh):
            return status
        status = fresh
    raise AssertionError("the status never settles")


@pytest.mark.parametrize(
    "recording",
    [
        "objects/01-isvc-standard-vllm.yaml",
        "objects/02-isvc-hf-token.yaml",
        "objects/03-isvc-s3.yaml",
        "objects/04-isvc-pvc.yaml",
        "objects/05-isvc-oci-modelcar.yaml",
        "variants/cluster-local.yaml",
        "variants/ready-while-pending.yaml",
    ],
)
def test_status_is_the_recorded_one(recording: str) -> None:
    isvc, deployment = recorded(recording, "InferenceService"), recorded(recording, "Deployment")
    pods = [item for item in read(recording)["objects"] if item["kind"] == "Pod"]
    assert isvc is not None
    assert deployment is not None
    status = described.runtime_named(described.empty_status("Standard"), "kserve-vllmserver", cluster=True)
    if recording.endswith("04-isvc-pvc.yaml"):
        # Its model state is recorded though the pod has no container status: the first look found no pod at all.
        status = settled(status, deployment, [], isvc)

    ours = settled(status, deployment, pods, isvc)

    assert comparable(ours) == comparable(isvc["status"])


def test_over_quota_the_api_servers_sentence_is_shown() -> None:
    quota = read("quota.yaml")
    isvc = {"metadata": {"name": "qwen25-7b", "namespace": "quota"}}

    ours = settled(described.empty_status("Standard"), {"status": quota["deployment_status"]}, [pod(1)], isvc)

    assert comparable(ours["conditions"]) == comparable(quota["inferenceservice_conditions"])


def test_a_loader_running_again_after_a_failure_is_looked_at_once_more_before_anything_is_written() -> None:
    isvc = {"metadata": {"name": "a", "namespace": "b"}}
    again = pod(1, init={"running": {}}, init_before=ENDED)

    status = described.observed(
        described.empty_status("Standard"), {}, [again], addresses(isvc, CONFIG), NOW, published=True
    )

    assert status is None


def test_moments_alone_do_not_make_a_status_different() -> None:
    status = described.stopped({}, NOW)
    later = described.stopped({}, datetime(2027, 1, 1, tzinfo=UTC))

    assert status != later
    assert described.same(status, later)


# Wrong specs ------------------------------------------------------------------------------------------------

BAD = {name: case for name, case in read("bad-specs.yaml").items() if not name.startswith("llm-")}
DENIED = 'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: '
ANNOTATIONS = {
    "@deploymentMode": "serving.kserve.io/deploymentMode",
    "@autoscalerClass": "serving.kserve.io/autoscalerClass",
}


def broken(name: str) -> dict[str, Any]:
    """Return example 01 with the recorded change made to it."""
    isvc = copy.deepcopy(read_all("examples/01-isvc-standard-vllm.yaml")[0])
    isvc["metadata"].update(name=name, namespace="neg")
    for path, value in BAD[name]["change"].items():
        place: dict[str, Any] = isvc
        *parents, last = path.split(".")
        if path in ANNOTATIONS:
            place, last, parents = isvc["metadata"]["annotations"], ANNOTATIONS[path], []
        for parent in parents:
            place = place[parent]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return isvc


@pytest.mark.parametrize("name", [name for name, case in BAD.items() if DENIED in case["message"]])
def test_what_the_webhook_denied_is_denied_in_its_words(name: str) -> None:
    problems = validate(default(broken(name)), None)

    assert problems
    assert BAD[name]["apply_message"].endswith(DENIED + problems[0])


@pytest.mark.parametrize("name", [name for name, case in BAD.items() if case["accepted"]])
def test_what_the_webhook_let_pass_passes(name: str) -> None:
    assert validate(default(broken(name)), None) == []


@pytest.mark.parametrize(
    "name",
    ["unknown-runtime", "unknown-format-no-runtime", "lowercase-vllm-format", "uri-unknown-scheme", "name-64"],
)
def test_a_spec_nothing_can_serve_gets_the_recorded_status_and_event(name: str) -> None:
    isvc = default(broken(name))
    before = described.empty_status("Standard")

    with pytest.raises(SpecError) as caught:
        look_through(isvc)
    error = caught.value
    ours = described.failed(before, str(error), NOW) if name == "name-64" else described.invalid(before, error, NOW)

    theirs = BAD[name]
    bare = [{key: item[key] for key in item if key != "lastTransitionTime"} for item in ours["conditions"]]
    assert bare == theirs["conditions"]
    assert ours["modelStatus"] == theirs["modelStatus"]
    assert f"Warning InternalError InferenceService: {error}" in theirs["events"]


def look_through(isvc: dict[str, Any]) -> None:
    """Check a spec as the controller does, up to the first thing that is wrong."""
    check_uri(isvc["spec"]["predictor"]["model"]["storageUri"], [])
    find_runtime(isvc, lambda wanted: None, [read("runtime.yaml")], [])
    addresses(isvc, CONFIG)


def test_an_mlflow_uri_counts_as_a_local_path() -> None:
    check_uri("models:/chat/3", [])
    with pytest.raises(SpecError, match=r"StorageUri \[ftp://host/x\] is not supported"):
        check_uri("ftp://host/x", [])


def test_the_deployment_mode_cannot_be_changed_later() -> None:
    isvc = default(read_all("examples/02-isvc-hf-token.yaml")[-1])
    old = {**isvc, "status": {"deploymentMode": "Standard"}}
    assert validate(isvc, old) == []

    isvc["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "Knative"

    assert validate(isvc, old) == ["update rejected: deploymentMode cannot be changed from 'Standard' to 'Knative'"]
