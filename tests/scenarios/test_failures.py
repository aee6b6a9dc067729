"""What goes wrong with pods: the portal names the cause, the field, and a value where there is one."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest

from tests.deployments import factories as make
from tests.scenarios.stage import Says, Stage, engine

pytestmark = pytest.mark.django_db

GATED = "hf://meta-llama/Llama-3.1-8B-Instruct"
GATED_COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
NO_FREE_GPU = Says("Stalled", "no_free_gpu", "flavor")
TOO_SMALL = Says("Failed", "kv_cache_too_small", "max_model_len", 18976)
GATED_ACCESS = Says("Failed", "model_access", "credential")
# On an L4 its weights leave less for the KV cache than this context needs.
CROWDED = {"gpu_memory_utilization": 0.75, "max_model_len": 32768}


def test_download_of_a_gated_model(stage: Stage):
    # Known from before it was gated.
    shapeless(GATED, GATED_COMMIT)
    row = stage.ask(source={"uri": GATED}, flavor="l40s-48gb")

    row = stage.comes_to(row, GATED_ACCESS, within=12)

    assert "GatedRepo" in row.reason["evidence"] or "restricted" in row.reason["evidence"]
    assert row.reason["pod"].startswith("chat-predictor-")


def test_download_from_a_missing_volume(stage: Stage):
    def change(service: dict[str, Any]) -> None:
        predictor = service["spec"]["predictor"]
        predictor.pop("storageContainerName")  # it is for downloads alone
        predictor["model"]["storageUri"] = "pvc://models/smollm2"

    stage.building(change)
    row = stage.comes_to(stage.ask(), Says("Stalled", "volume", "source_uri"), within=12)
    assert "models" in row.reason["evidence"]


def test_download_of_an_unknown_scheme(stage: Stage):
    stage.building(lambda service: service["spec"]["predictor"]["model"].update(storageUri="ftp://models/smollm2"))
    row = stage.comes_to(stage.ask(), Says("Failed", "model_scheme", "source_uri"), within=12)
    assert stage.pods() == []
    assert "ftp://" in row.reason["evidence"]


def test_engine_crash_loop(stage: Stage):
    shapeless(make.QWEN)
    row = stage.ask(source={"uri": make.QWEN}, engine=engine(**CROWDED))
    row = stage.comes_to(row, TOO_SMALL, within=18)
    assert row.reason["numbers"]["exit_code"] == 1
    # The proposed value helps.
    row = stage.revise(
        row, source={"uri": make.QWEN}, engine=engine(**{**CROWDED, "max_model_len": row.reason["value"]})
    )
    stage.comes_to(row, Says("Running"), within=24, note="with the proposed value")


def test_engine_out_of_memory(stage: Stage):
    def change(service: dict[str, Any]) -> None:
        resources = service["spec"]["predictor"]["model"]["resources"]
        for amounts in resources.values():
            amounts["memory"] = "1Gi"

    stage.building(change)
    row = stage.comes_to(stage.ask(), Says("Failed", "host_memory", "cpu_offload_gb"), within=12)
    assert row.reason["numbers"]["exit_code"] == 137


def test_image_not_found(stage: Stage):
    def change(runtime: dict[str, Any]) -> None:
        runtime["spec"]["containers"][0]["image"] = "docker.io/vllm/vllm-openai-gpu:v0.32.0"

    stage.building(change, runtime=True)
    row = stage.comes_to(stage.ask(), Says("Stalled", "image_pull", "profile"), within=12)
    assert "vllm-openai-gpu" in row.reason["evidence"]


def test_pod_security_refuses_the_pod(stage: Stage):
    stage.building(lambda runtime: runtime["spec"]["containers"][0].pop("securityContext"), runtime=True)
    row = stage.comes_to(stage.ask(), Says("Blocked", "pod_security"), within=12)
    assert stage.pods() == []
    assert "restricted" in row.reason["title"]
    assert "allowPrivilegeEscalation" in row.reason["evidence"]


def test_quota_of_the_team_is_used_up(stage: Stage):
    stage.open_namespace()
    stage.stranger_pod("greedy", gpus=16)
    row = stage.comes_to(stage.ask(), Says("Blocked", "quota_exceeded", "replicas_max"), within=12)
    assert row.reason["numbers"] == {"asked": 1, "used": 16, "limit": 16, "quota": "slipway"}

    stage.ground.remove("Pod", "greedy", stage.namespace)
    stage.comes_to(row, Says("Running"), within=18, note="after room was made")


def test_unschedulable_for_want_of_gpus(stage: Stage):
    stage.open_namespace()
    stage.stranger_pod("greedy", gpus=4, product="NVIDIA-H100-80GB-HBM3", namespace="default")
    try:
        row = stage.comes_to(stage.ask(flavor="h100-80gb"), NO_FREE_GPU, within=12)
        assert row.reason["numbers"]["gpus"] == 1
    finally:
        stage.ground.remove("Pod", "greedy", "default")
    stage.comes_to(row, Says("Running"), within=18, note="after room was made")


def test_unschedulable_for_want_of_a_node(stage: Stage):
    make.Flavor.objects.filter(slug="h100-80gb").update(product="NVIDIA-B200")
    row = stage.comes_to(stage.ask(flavor="h100-80gb"), Says("Stalled", "no_matching_node", "flavor"), within=12)
    assert row.reason["numbers"]["nodes"] == 4


def test_old_revision_serves_while_the_new_one_fails(stage: Stage):
    shapeless(make.QWEN)
    two: dict[str, Any] = {"source": {"uri": make.QWEN}, "replicas": {"min": 2, "max": 2}}
    row = stage.running(**two)
    row = stage.revise(row, **two, engine=engine(**CROWDED))

    row = stage.comes_to(row, Says("Degraded", *astuple(TOO_SMALL)[1:]), within=24)

    assert row.detail["failing_revision"] == 2
    assert row.detail["serving_revision"] == 1
    assert row.detail["ready_replicas"] == 1


def test_stop_and_start_again_after_a_failure(stage: Stage):
    """KServe keeps `lastFailureInfo` for ever; the portal must not show it of a start that goes well."""
    shapeless(GATED, GATED_COMMIT)
    row = stage.ask(source={"uri": GATED}, flavor="l40s-48gb")
    row = stage.until(row, lambda: stage.fresh(row).reason.get("code") == "model_access", within=60)
    row = stage.revise(row)
    row = stage.comes_to(row, Says("Running"), within=18, note="mended")
    row = stage.comes_to(stage.stop(row), Says("Stopped"), within=12, note="stopped")
    assert stage.pods() == []

    row = stage.start(row)
    said: set[str] = set()

    def running() -> bool:
        now = stage.fresh(row)
        said.add(f"{now.state}/{(now.reason or {}).get('code', '')}")
        return now.state == "Running"

    row = stage.comes_to_pass(row, running, within=15, note="started again")
    assert not [words for words in said if words.startswith(("Failed", "Blocked", "Degraded"))], said


def shapeless(uri: str, commit: str = make.COMMIT) -> None:
    """Have a model known without its shape, so that nobody can say beforehand whether it fits or may be loaded."""
    make.make_check(uri, commit=commit, facts={"id": uri.removeprefix("hf://"), "sha": commit})
