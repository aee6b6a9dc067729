"""How weights that are fetched ahead are seen: their pods, how far they have come, and why they do not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from deployments.kube.observe import FETCH, Observed, event_view, pod_view
from deployments.kube.pod_causes import percent_in
from deployments.kube.reasons import Code
from deployments.manifests.cache import with_keys
from deployments.manifests.deployment import build
from deployments.state import Outcome, OutcomeKind, StateName, Want, Wanted, state_of
from deployments.views import present
from deployments.watcher.seen import service_name_of
from deployments.watcher.world import World
from tests.deployments.manifest_cases import WISHES

NAME = "chat-weights-0a1b2c3d4e"
NOW = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)
WAITING = Outcome(OutcomeKind.NONE, code="waiting", title="The weights are fetched ahead.")
FULL = "OSError: [Errno 28] No space left on device"


def raw(suffix: str, phase: str = "Running", *, second: int = 0, **state: Any) -> dict[str, Any]:
    """A pod that fetches; `state` is that of its one container."""
    return {
        "metadata": {
            "name": f"{NAME}-{suffix}",
            "namespace": "ns",
            "uid": suffix,
            "creationTimestamp": f"2026-11-26T08:00:{second:02d}Z",
            "labels": {"slipway.dev/deployment": "7", "slipway.dev/component": "fetch"},
        },
        "spec": {"nodeName": "gpu-1", "containers": [{"name": "storage-initializer"}]},
        "status": {
            "phase": phase,
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                # Without a probe a container is ready as long as it runs.
                {"type": "Ready", "status": "True" if "running" in state else "False"},
            ],
            "containerStatuses": [{"name": "storage-initializer", "state": state}],
        },
    }


RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-11-26T08:00:00Z"}}


def ended(code: int, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message}}


def state(*pods: dict[str, Any], outcome: Outcome = WAITING, **tails: str) -> Any:
    views = tuple(pod_view(pod) for pod in pods)
    observed = Observed(pods=views, log_tails={f"{NAME}-{name}": text for name, text in tails.items()})
    return state_of(Wanted(Want.RUN, 1, 1), outcome, observed, None, NOW)


@pytest.mark.parametrize(
    ("log", "percent"),
    [
        ("Fetching 12 files:  25%|██▌       | 3/12 [00:03<00:09,  1.0it/s]\r", 25),
        ("Fetching 10 files:  30%| 3/10 [00:02<00:05] 0.90G/2.10G (900/2100 bytes)\n", 42),
        ("Fetching 4 files:   0%|\rFetching 4 files:  50%|█████     | 2/4\r", 50),
        ("Copying contents of hf://a/b to local", None),
    ],
)
def test_progress_is_what_the_loader_wrote_last(log: str, percent: int | None):
    assert percent_in(log) == percent


def test_a_download_ahead_of_all_pods_is_shown_with_its_progress():
    found = state(raw("aaaaa", **RUNNING), aaaaa="Fetching 4 files:  50%|█████     | 2/4\n")
    assert found.state is StateName.DOWNLOADING
    assert found.detail == "The weights are being fetched ahead: 50 %."
    assert found.reason.numbers == {"percent": 50}


def test_why_it_failed_is_said_by_the_pod_that_tried_last():
    first = raw("aaaaa", "Failed", **ended(1, "GatedRepoError: gated repo"))
    found = state(first, raw("bbbbb", "Failed", second=9, **ended(1, FULL)))
    assert found.state is StateName.FAILED
    assert found.reason.code is Code.DOWNLOAD_DISK
    assert "claim is full" in found.reason.title
    again = state(first, raw("bbbbb", second=9, **RUNNING))
    assert again.state is StateName.DOWNLOADING


def test_after_the_last_try_the_cause_stays_the_pods_own():
    blocked = Outcome(OutcomeKind.BLOCKED, code="download_failed", title="The weights could not be fetched ahead.")
    found = state(raw("aaaaa", "Failed", **ended(1, "GatedRepoError: gated repo")), outcome=blocked)
    assert (found.state, found.reason.code) == (StateName.FAILED, Code.MODEL_ACCESS)
    found = state(outcome=blocked)
    assert (found.state, found.reason.code) == (StateName.FAILED, Code.DOWNLOAD_FAILED)
    assert found.reason.title == blocked.title


def test_pods_that_fetch_are_no_engines_and_belong_to_their_deployment():
    view = pod_view(raw("aaaaa", **RUNNING))
    assert (view.role, view.is_engine, view.revision) == (FETCH, False, None)
    for kind, name in (("Pod", f"{NAME}-aaaaa"), ("Job", NAME), ("PersistentVolumeClaim", NAME)):
        assert service_name_of(kind, name) == "chat"
    assert service_name_of("Pod", "my-weights-predictor-5b-aaaaa") == "my-weights"


def test_the_watcher_reads_how_far_it_has_come_and_its_last_words_after():
    world = World()
    world._put_pod(("ns", f"{NAME}-aaaaa"), pod_view(raw("aaaaa", **RUNNING)))
    (asked,) = world.fetching()
    world.hear(asked, "Fetching 4 files:  50%|")
    assert world.observed(("ns", "chat"), "7", complete=True).log_tails == {f"{NAME}-aaaaa": "Fetching 4 files:  50%|"}
    world._put_pod(("ns", f"{NAME}-aaaaa"), pod_view(raw("aaaaa", "Failed", **ended(1))))
    assert world.fetching() == []
    (crash,) = world.crashes([("ns", "chat")])
    assert crash != asked


def test_what_the_cluster_says_of_the_claim_is_shown_with_the_deployment():
    view = event_view({"involvedObject": {"kind": "PersistentVolumeClaim", "name": NAME, "namespace": "ns"}})
    assert service_name_of(view.kind, view.name) == "chat"


@pytest.mark.parametrize(
    ("kind", "settings", "env", "volumes"),
    [
        ("hf", {}, {"HF_TOKEN"}, 1),
        (
            "s3",
            {"endpoint": "http://minio.storage:9000", "region": "eu"},
            {
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
                "S3_USE_HTTPS",
                "S3_ENDPOINT",
                "AWS_ENDPOINT_URL",
                "AWS_DEFAULT_REGION",
            },
            1,
        ),
        ("gs", {}, {"GOOGLE_APPLICATION_CREDENTIALS"}, 2),
    ],
)
def test_the_job_gets_the_keys_that_kserve_would_give_an_initializer(
    kind: str, settings: dict[str, str], env: set[str], volumes: int
):
    (job,) = (obj for obj in build(WISHES["fetched-ahead"]) if obj["kind"] == "Job")
    pod = with_keys(job, kind, "store-x1", settings)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    named = {item["name"]: item for item in container["env"]}
    assert set(named) - {"HOME", "HF_HOME"} == env
    assert len(pod["volumes"]) == volumes
    refs = [item["valueFrom"]["secretKeyRef"]["name"] for item in named.values() if "valueFrom" in item]
    assert set(refs) <= {"store-x1"}
    if kind == "s3":
        assert named["AWS_ENDPOINT_URL"]["value"] == "http://minio.storage:9000"
    assert all(item["name"] in {"HOME", "HF_HOME"} for item in job["spec"]["template"]["spec"]["containers"][0]["env"])


def test_the_page_names_what_a_pod_that_fetches_does():
    words = [
        present.replicas(Observed(pods=(pod_view(pod),)))[0].word
        for pod in (raw("a", **RUNNING), raw("b", "Succeeded", **ended(0)), raw("c", "Failed", **ended(1)))
    ]
    assert words == ["Downloading", "Fetched", "Failed"]
