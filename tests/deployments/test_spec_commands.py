"""`manage.py spec check|render` and `diagnose`: JSON in, JSON out, without a database."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from deployments.documents import model_from
from deployments.spec import DeploymentSpec, Strategy, digest
from tests.deployments.pods import LOGS, event, pod, terminated, waiting
from tests.deployments.preflighting import SERVED
from tests.deployments.wishes import LLAMA_CONFIG, request_json, spec_json

FLAVOR = {"product": "NVIDIA-L4", "memory_mib": 23034, "compute_capability": 8.9, "gpus_per_node": 8}


def without_keda() -> dict[str, Any]:
    return {group: served for group, served in SERVED.items() if group != "keda.sh"}


def test_check_gives_findings_with_fields_pointers_and_proposals(run: Any):
    answer = run(
        "spec", "check", request_json(args={"max-model-len": 65536, "swap-space": 4}), "--config", LLAMA_CONFIG
    )
    by_code = {finding["code"]: finding for finding in answer["findings"]}
    assert answer["ok"] is False
    assert by_code["flag_removed"]["pointer"] == "/spec/engine/args/swap-space"
    assert by_code["flag_removed"]["instead"] == "kv-offloading-size"
    assert by_code["memory"]["field"] == "max_model_len"
    assert by_code["memory"]["value"] < 65536
    assert answer["fit"]["state"] == "no"


def test_check_takes_a_bare_spec_and_knows_the_seeded_flavors(run: Any):
    answer = run("spec", "check", spec_json(flavor="h100-80gb"))
    assert answer["ok"] is True
    assert answer["gpus"] == 1
    assert [finding["code"] for finding in answer["findings"]] == ["not_checked"]


def test_check_takes_facts_from_a_file(run: Any):
    facts = {"quotas": {"l4-24gb": {"limit": 1, "reserved": 1}}, "namespace": "search-ab3de", "name_taken": True}
    answer = run("spec", "check", request_json(args={"max-model-len": 4096}), "--facts", facts)
    assert {finding["code"] for finding in answer["findings"]} >= {"quota_exceeded", "name_taken"}


def test_errors_of_the_shape_are_findings_too(run: Any):
    answer = run("spec", "check", {"name": "chat", "spec": {"flavor": "{{x}}", "extra": 1}})
    assert answer["ok"] is False
    assert answer["fit"] is None
    assert {finding["pointer"] for finding in answer["findings"]} == {
        "/spec/source",
        "/spec/flavor",
        "/spec/extra",
    }


def test_render_gives_the_objects_and_the_digest_that_would_be_signed(run: Any):
    answer = run("spec", "render", request_json())
    kinds = [obj["kind"] for obj in answer["objects"]]
    assert "InferenceService" in kinds
    assert "HTTPRoute" in kinds
    assert answer["gpus"] == 1
    assert answer["service_account"]["metadata"]["name"] == "chat"
    assert run("spec", "render", request_json()) == answer
    assert len(answer["digest"]) == 64
    assert answer["digest"] != digest(DeploymentSpec.from_json(request_json()["spec"]), {}, answer["objects"])


@pytest.mark.parametrize(
    ("source", "commit"),
    [
        ({"uri": "hf://a/b", "revision": "c" * 40}, "c" * 40),
        ({"uri": f"hf://a/b:{'d' * 40}"}, "d" * 40),
        ({"uri": "hf://a/b", "revision": "main"}, "0" * 40),
        ({"uri": "hf://a/b:main"}, "0" * 40),
        ({"uri": "hf://a/b"}, "0" * 40),
    ],
)
def test_render_pins_the_commit_that_the_wish_names(run: Any, source: dict[str, str], commit: str):
    answer = run("spec", "render", request_json(source=source))
    (service,) = (obj for obj in answer["objects"] if obj["kind"] == "InferenceService")
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"hf://a/b:{commit}"


@pytest.mark.parametrize(("sha", "commit"), [("e" * 40, "e" * 40), ("main", "0" * 40)])
def test_render_pins_the_commit_that_facts_know_where_the_wish_names_none(run: Any, sha: str, commit: str):
    shape = {"layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128, "hidden": 4096, "weights_bytes": 10**10}
    facts = {"model": {"id": "a/b", "sha": sha, **shape}}
    answer = run("spec", "render", request_json(source={"uri": "hf://a/b", "revision": "v1"}), "--facts", facts)
    assert f"hf://a/b:{commit}" in json.dumps(answer)


@pytest.mark.parametrize(("revision", "commit"), [("c" * 40, "c" * 40), ("main", "0" * 40), (None, "0" * 40)])
def test_render_pins_adapters_at_commits_alone(run: Any, revision: str | None, commit: str):
    adapter = {"name": "haiku", "uri": "hf://owner/adapter", "revision": revision}
    answer = json.dumps(run("spec", "render", request_json(adapters=[adapter])))
    assert f"hf://owner/adapter:{commit}" in answer
    assert "hf://owner/adapter:main" not in answer


@pytest.mark.parametrize(
    ("groups", "class_"),
    [(None, "keda"), (without_keda(), "hpa"), (SERVED, "keda")],
)
def test_render_scales_by_what_the_cluster_has(run: Any, groups: Any, class_: str):
    wish = request_json(replicas={"min": 1, "max": 2})
    facts = ["--facts", {"cluster": {"groups": groups}}] if groups else []
    answer = run("spec", "render", wish, *facts)
    (service,) = (obj for obj in answer["objects"] if obj["kind"] == "InferenceService")
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == class_
    assert answer["problems"] == []


def test_render_gives_the_objects_of_every_strategy(run: Any):
    for strategy in Strategy:
        more: dict[str, Any] = {}
        if strategy is Strategy.DISAGGREGATED:
            more = {"prefill": {}, "decode": {}}
        elif strategy is Strategy.OCI_VOLUME:
            more = {"source": {"uri": "oci://registry.example.com/models/granite:1.0"}}
        answer = run("spec", "render", request_json(strategy=strategy.value, **more))
        kind = "LLMInferenceService" if strategy is Strategy.DISAGGREGATED else "InferenceService"
        assert kind in {obj["kind"] for obj in answer["objects"]}
        assert answer["problems"] == []


@pytest.mark.parametrize("action", ["check", "render"])
@pytest.mark.parametrize(
    ("wrong", "pointer", "words"),
    [
        ({"flavor": ""}, "/spec/flavor", "Must not be empty."),
        ({"flavor": "h999"}, "/spec/flavor", "There is no flavor “h999”."),
        ({"args": {"swap-space": 4}}, "/spec/engine/args/swap-space", "is gone since vLLM 0.18"),
        ({"strategy": "oci-volume"}, "/spec/strategy", "Choose standard"),
    ],
)
def test_what_is_refused_ends_with_one_and_says_why(
    tmp_path: Path, action: str, wrong: dict[str, Any], pointer: str, words: str
):
    path = tmp_path / "wish.json"
    path.write_text(json.dumps(request_json(**wrong)))
    out = StringIO()
    with pytest.raises(CommandError) as refused:
        call_command("spec", action, str(path), stdout=out)
    assert refused.value.returncode == 1
    (line,) = [line for line in str(refused.value).splitlines() if line.startswith(f"{pointer}: ")]
    assert words in line
    answer = json.loads(out.getvalue())
    assert answer["ok"] is False
    assert pointer in {finding["pointer"] for finding in answer["findings"]}
    assert "objects" not in answer


def test_what_is_refused_gives_no_manifests_to_apply(tmp_path: Path):
    path = tmp_path / "wish.json"
    path.write_text(json.dumps(request_json(args={"swap-space": 4})))
    for more in ([], ["--whole"]):
        out = StringIO()
        with pytest.raises(CommandError) as refused:
            call_command("spec", "render", str(path), "--yaml", *more, stdout=out)
        assert (refused.value.returncode, out.getvalue()) == (1, "")


def test_what_nobody_looked_up_is_rendered_with_placeholders(run: Any):
    kept = request_json(source={**spec_json()["source"], "cache": "claim"})
    assert "PersistentVolumeClaim" in {obj["kind"] for obj in run("spec", "render", kept)["objects"]}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"flavors": [{"slug": "x"}]}, "“flavors.x.product”: This field is required."),
        ({"flavors": {"x": 5}}, "“x” must be an object."),
        ({"flavors": [5]}, "“flavors[0]” must be an object."),
        ({"flavors": [{"product": "x"}]}, "“flavors[0]” needs a “slug”"),
        ({"flavors": 5}, "“flavors” must be a list of objects"),
        ({"flavors": {"x": {**FLAVOR, "memory_mib": "much"}}}, "“flavors.x.memory_mib”: Must be a whole number."),
        ({"flavors": {"x": {**FLAVOR, "memory_mib": -5}}}, "“memory_mib” must be a number from 0 on."),
        ({"quotas": {"x": {"nonsense": 1}}}, "“quotas.x” does not know nonsense; known: limit, reserved"),
        ({"quotas": {"x": {"limit": -1}}}, "“limit” must be a number from 0 on."),
        ({"quotas": {"x": 5}}, "“quotas.x” must be an object."),
        ({"quotas": 5}, "“quotas” must be an object."),
        ({"profiles": [{"slug": "x"}]}, "“profiles.x.version”: This field is required."),
        ({"profiles": [{"slug": "x", "plugins": 5}]}, "“plugins” must be a list of words."),
        ({"credentials": 5}, "“credentials” must be a list of words."),
        ({"registries": "ghcr.io"}, "“registries” must be a list of words."),
        ({"model": 5}, "“model” must be an object."),
        ({"namespace": "../x"}, "“namespace” must be a name of at most 63 lower-case letters"),
        ({"cluster": {"groups": {"a": 5}}}, "“a” must be a list of words."),
        ({"cluster": {"claims": "mine"}}, "“claims” must be a list of words."),
        ({"cluster": {"missing": 5}}, "“missing” must be a list of words."),
        ({"cluster": {"storage": 5}}, "“storage” must be a list of objects"),
    ],
)
@pytest.mark.parametrize("action", ["check", "fit"])
def test_facts_of_a_wrong_form_are_said_so(run: Any, action: str, facts: dict[str, Any], words: str):
    with pytest.raises(CommandError) as refused:
        run("spec", action, request_json(), "--facts", facts)
    assert refused.value.returncode == 2
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"revision": "abc"}, "“revision” must be a whole number from 1 on."),
        ({"revision": 0}, "“revision” must be a whole number from 1 on."),
        ({"namespace": "../x"}, "“namespace” must be a name of at most 63 lower-case letters"),
        ({"namespace": "a.b"}, "“namespace” must be a name"),
        ({"install_id": "My Install"}, "“install_id” must be a name"),
        ({"name_space": "x"}, "“wish” does not know name_space; known: install_id, "),
    ],
)
def test_names_that_the_cluster_refuses_are_not_rendered(run: Any, wish: dict[str, Any], words: str):
    with pytest.raises(CommandError) as refused:
        run("spec", "render", request_json(), "--facts", {"wish": wish})
    assert refused.value.returncode == 2
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"team": "Bad Team!"}, "/team", "lower-case letters, digits"),
        ({"team": "search\n x"}, "/team", "control characters"),
        ({"team": 5}, "/team", "Must be text."),
        ({"name": 5}, "/name", "Must be text."),
        ({"name": "n" * 41}, "/name", "At most 40 characters, this has 41."),
        ({"tean": "search"}, "/tean", "Slipway does not know this field. Did you mean “team”?"),
        # Beside the wish of a check it would count for nothing.
        ({"args": {"seed": 1}}, "/args", "Slipway does not know this field."),
    ],
)
@pytest.mark.parametrize("action", ["check", "render"])
def test_what_the_api_refuses_beside_a_spec_is_refused_in_files(
    run: Any, action: str, changes: dict[str, Any], pointer: str, words: str
):
    answer = run("spec", action, {**request_json(), **changes})
    assert answer["ok"] is False
    (said,) = [found["message"] for found in answer["findings"] if found["pointer"] == pointer]
    assert words in said


@pytest.mark.parametrize(
    "beside", ["tokenizer_config", "sentence_config", "hf_quant_config", "safetensors", "siblings"]
)
def test_what_lies_beside_a_configuration_may_lie_beside_it_in_the_file(run: Any, beside: str):
    whole = {
        **request_json(args={"max-model-len": 4096}),
        "config": LLAMA_CONFIG,
        "weights_bytes": 16_060_522_496,
        beside: {},
    }
    assert run("spec", "check", whole)["ok"] is True


def test_stored_facts_of_a_model_may_stand_beside_a_wish(run: Any):
    facts = model_from({"config": LLAMA_CONFIG, "weights_bytes": 16_060_522_496})
    assert facts is not None
    answer = run("spec", "check", {**request_json(args={"max-model-len": 4096}), **facts.as_json()})
    assert answer["fit"]["weights_gib"] == pytest.approx(14.96, abs=0.01)


def test_what_a_model_is_may_stand_beside_a_wish_and_beside_its_spec_alone(run: Any):
    model = {"config": LLAMA_CONFIG, "weights_bytes": 16_060_522_496}
    whole = run("spec", "check", {**request_json(args={"max-model-len": 4096}), **model})
    alone = run("spec", "check", {**request_json(args={"max-model-len": 4096})["spec"], "model": model})
    assert whole["fit"] == alone["fit"]
    assert whole["fit"]["weights_gib"] == pytest.approx(14.96, abs=0.01)


def test_check_takes_what_the_cluster_can_do(run: Any):
    cluster = {"groups": {"serving.kserve.io": ["v1alpha1"]}, "version": "v1.36.3"}
    answer = run("spec", "check", request_json(args={"max-model-len": 4096}), "--facts", {"cluster": cluster})
    assert {"cluster_version", "cluster_missing"} <= {finding["code"] for finding in answer["findings"]}


def test_diagnose_names_code_field_and_value(run: Any):
    crashed = pod(init=terminated(0), engine=waiting("CrashLoopBackOff"), engine_last=terminated(1), restarts=2)
    events = {"kind": "EventList", "items": [event("BackOff", "Back-off restarting failed container")]}
    answer = run("diagnose", "--pod", crashed, "--events", events, "--log", LOGS / "kv-too-small.log")
    assert (answer["code"], answer["field"], answer["value"]) == ("kv_cache_too_small", "max_model_len", 46464)
    assert answer["pod"] == "chat-predictor-5b-aaaaa"
    assert answer["remedy"]


def test_diagnose_of_a_log_or_events_alone(run: Any):
    assert run("diagnose", "--log", LOGS / "swap-space.log")["code"] == "unknown_flag"
    assert run("diagnose", "--log", LOGS / "success.log")["code"] is None
    assert (
        run("diagnose", "--pod", pod(scheduled="0/1 nodes are available: 1 Insufficient nvidia.com/gpu."))["code"]
        == "no_free_gpu"
    )


def test_diagnose_of_nothing_asks_for_something(run: Any):
    with pytest.raises(CommandError):
        run("diagnose")


def test_a_file_that_cannot_be_read_is_said_so(run: Any, tmp_path: Path):
    for action in ("check", "render", "fit"):
        with pytest.raises(CommandError, match="No such file") as failure:
            run("spec", action, tmp_path / "none.json")
        assert failure.value.returncode == 2
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(CommandError):
        run("spec", "check", broken)
    with pytest.raises(CommandError, match="JSON object"):
        run("spec", "check", [1])


def test_check_takes_the_size_of_a_download_and_refuses_json_without_end(run: Any, tmp_path: Path):
    kept = request_json(source={**spec_json()["source"], "cache": "claim"})
    sizes = {"weights_bytes": 15 << 30, "download_bytes": 15 << 30}
    assert "cache_size_unknown" in {item["code"] for item in run("spec", "check", kept)["findings"]}
    told = run("spec", "check", {**kept, "model": {"id": "a/b", **sizes}})
    assert "cache_size_unknown" not in {item["code"] for item in told["findings"]}
    deep = tmp_path / "deep.json"
    deep.write_text('{"spec":' + "[" * 100_000)
    with pytest.raises(CommandError, match=r"deep\.json"):
        call_command("spec", "check", str(deep))


def test_render_names_the_adapters_to_the_engine(run: Any):
    named = request_json(adapters=[{"name": "haiku", "uri": "hf://owner/haiku", "revision": "a" * 40}])
    objects = run("spec", "render", named)["objects"]
    (service,) = [item for item in objects if item["kind"] == "InferenceService"]
    predictor = service["spec"]["predictor"]
    assert "haiku=/mnt/adapters/haiku" in predictor["model"]["args"]
    assert predictor["initContainers"][-1]["args"][0] == f"hf://owner/haiku:{'a' * 40}"


def test_a_revision_in_an_address_gives_way_to_the_commit(run: Any):
    wish = request_json(source={"uri": "hf://owner/model:main"}, adapters=[{"name": "a", "uri": "hf://owner/lora:dev"}])
    objects = run("spec", "render", wish)["objects"]
    (service,) = [item for item in objects if item["kind"] == "InferenceService"]
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == f"hf://owner/model:{'0' * 40}"
    assert predictor["initContainers"][-1]["args"][0] == f"hf://owner/lora:{'0' * 40}"


def errors(run: Any, model: dict[str, Any], **changes: Any) -> set[str]:
    found = run("spec", "check", request_json(**changes), "--facts", {"model": model})["findings"]
    return {item["code"] for item in found if item["severity"] == "error"}


@pytest.mark.parametrize("stored", [True, False], ids=["facts", "config"])
def test_check_knows_what_runs_the_model_and_reads_its_text(run: Any, stored: bool):
    whisper = {**LLAMA_CONFIG, "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"}
    words = {"auto_map": {"AutoTokenizer": ["a.Odd", None]}, "tokenizer_class": "Odd"}
    model = {"id": "a/b", "config": {**whisper, "is_encoder_decoder": True}, "tokenizer_config": words}
    if stored:
        read = model_from({"model": model})
        assert read is not None
        model = json.loads(json.dumps(read.as_json()))
    args = {"pipeline-parallel-size": 2, "enable-prompt-embeds": True}
    found = errors(run, model, engine={"args": args})
    assert {"stages_unsupported", "prompt_embeds_encoder"} <= found
    # Its type has a tokenizer of its own, so that one of a repository is not asked for.
    assert "remote_code_tokenizer" not in found
    odd = (
        {**model, "config": {**whisper, "model_type": "chatglm"}} if not stored else {**model, "model_type": "chatglm"}
    )
    assert "remote_code_tokenizer" in errors(run, odd)


def test_stored_facts_of_the_wrong_form_are_left_out(run: Any):
    wrong = {"architectures": "x", "model_type": 7, "own_tokenizer": "yes", "encoder_decoder": 1}
    assert run("spec", "check", request_json(), "--facts", {"model": {"id": "a/b", "layers": 2, **wrong}})["findings"]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"flavours": []}, "“facts” does not know “flavours”. Did you mean “flavors”?"),
        ({"nonsense": 1}, "“facts” does not know “nonsense”."),
        (
            {"wish": {"namespace": "../x"}},
            "“namespace” must be a name of at most 63 lower-case letters, digits and “-”",
        ),
    ],
)
def test_a_check_refuses_facts_that_nobody_reads(run: Any, facts: dict[str, Any], said: str):
    with pytest.raises(CommandError, match=re.escape(said)):
        run("spec", "check", request_json(), "--facts", facts)
