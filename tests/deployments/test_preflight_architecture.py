"""What runs a model: vLLM itself, transformers in its place, code of the repository, or nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from deployments.engine.architectures import Way, known_models
from deployments.engine.facts import ModelFacts
from deployments.engine.flags import release, versions
from deployments.engine.profiles import EngineProfile
from deployments.findings import Finding, Severity
from deployments.preflight import check
from deployments.sources.huggingface import model_facts
from deployments.spec import DeploymentSpec
from tests.deployments.preflighting import codes, said, the
from tests.deployments.wishes import LLAMA, facts_of, roles_json

ROOT = Path(__file__).parents[2]
OURS = {
    "remote_code_config",
    "remote_code_model",
    "model_type_unknown",
    "model_type_unsaid",
    "architecture_unknown",
    "architecture_of_repository",
    "architecture_of_transformers",
}
OWN_CODE = {"AutoConfig": "configuration_odd.OddConfig", "AutoModelForCausalLM": "modeling_odd.OddForCausalLM"}
ALLOWED = {"trust-remote-code": True}
PROFILES = {
    f"vllm-{version}": EngineProfile(f"vllm-{version}", version, f"vllm/vllm-openai:v{version}@sha256:{'1' * 64}")
    for version in versions()
}


def named(config: dict[str, Any], files: tuple[str, ...] = ("model.safetensors",)) -> ModelFacts:
    """A model of a known shape whose config.json names these things, beside these files."""
    read = model_facts(LLAMA.id, {"siblings": [{"rfilename": name, "size": 1} for name in files]}, config)
    kind = ("model_type", "architectures", "own_config", "own_model")
    return dataclasses.replace(LLAMA, **{name: getattr(read, name) for name in kind})


def config(model_type: str | None, *architectures: str, **more: Any) -> dict[str, Any]:
    typed = {} if model_type is None else {"model_type": model_type}
    return {**typed, "architectures": list(architectures), **more}


def about(
    config: dict[str, Any],
    version: str = "0.32.0",
    args: dict[str, Any] | None = None,
    offered: tuple[str, ...] | None = None,
) -> list[Finding]:
    """What these rules say of a model whose config.json this is."""
    slugs = [f"vllm-{each}" for each in offered or (version,)]
    profiles = {slug: PROFILES[slug] for slug in slugs}
    engine = {"profile": f"vllm-{version}", "args": {"max-model-len": 8192, **(args or {})}}
    found = said(facts_of(model=named(config), profiles=profiles), engine=engine)
    return [finding for finding in found if finding.code in OURS]


@pytest.mark.parametrize("version", versions())
def test_a_model_that_the_engine_has_is_left_alone(version: str):
    assert about(config("llama", "LlamaForCausalLM"), version) == []
    assert about(config("qwen2", "Qwen2ForCausalLM"), version) == []
    # Classifiers and embeddings are made of language models.
    assert about(config("qwen2", "Qwen2ForSequenceClassification"), version) == []
    assert about(config("qwen3", "Qwen3Model"), version) == []


@pytest.mark.parametrize("version", versions())
def test_a_configuration_that_is_code_of_the_repository_needs_that_to_be_allowed(version: str):
    odd = config("internlm2", "InternLM2ForCausalLM", auto_map=OWN_CODE)

    (found,) = about(odd, version)

    assert (found.code, found.severity) == ("remote_code_config", Severity.ERROR)
    assert (found.pointer, found.value) == ("/spec/engine/args/trust-remote-code", True)
    assert "model type “internlm2”" in found.message
    assert "an admin approves" in found.remedy
    # vLLM has the model; only its configuration is read with code.
    assert about(odd, version, ALLOWED) == []


def test_code_that_the_engine_does_not_need_is_not_asked_for():
    assert about(config("deepseek_v3", "DeepseekV3ForCausalLM", auto_map=OWN_CODE)) == []
    assert about(config("chatglm", "ChatGLMModel", auto_map=OWN_CODE)) == []
    assert about(config("kimi_k2", "DeepseekV3ForCausalLM", auto_map=OWN_CODE)) == []
    # The type follows from the architecture.
    assert about(config(None, "LongcatFlashForCausalLM", auto_map=OWN_CODE)) == []


def test_an_older_engine_may_need_what_a_newer_one_has():
    kimi = config("kimi_k2", "DeepseekV3ForCausalLM", auto_map=OWN_CODE)
    (found,) = about(kimi, "0.17.0", offered=("0.17.0", "0.20.0"))
    assert found.code == "remote_code_config"
    assert "choose the engine “vllm-0.20.0”" in found.remedy
    assert about(kimi, "0.18.0") == []


def test_code_of_another_kind_does_not_help_where_the_configuration_is_unknown():
    odd = config("odd", "LlamaForCausalLM", auto_map={"AutoTokenizer": ["tokenization_odd.Odd", None]})
    (found,) = about(odd, args=ALLOWED)
    assert (found.code, found.severity, found.pointer) == ("model_type_unknown", Severity.ERROR, "/spec/source/uri")


def test_a_type_that_only_a_newer_engine_knows_names_that_engine():
    hy = config("hy_v4", "HYV4ForCausalLM")
    (alone,) = about(hy, "0.20.0")
    assert (alone.code, alone.remedy) == ("model_type_unknown", "Choose a model that vLLM has itself.")
    (found,) = about(hy, "0.20.0", offered=("0.20.0", "0.32.0"))
    assert "Choose the engine “vllm-0.32.0”, whose vLLM 0.32.0 has the model itself." in found.remedy
    assert about(hy, "0.32.0") == []


@pytest.mark.parametrize(
    ("version", "code"),
    [("0.17.0", "architecture_unknown"), ("0.20.0", "architecture_of_transformers")],
)
def test_transformers_runs_what_its_version_can(version: str, code: str):
    (found,) = about(config("phimoe", "PhimoeForCausalLM"), version)
    assert found.code == code
    assert found.pointer == "/spec/source/uri"
    assert found.is_error == (code == "architecture_unknown")


def test_what_only_transformers_runs_is_told_with_what_it_means():
    (found,) = about(config("helium", "HeliumForCausalLM"))
    assert (found.code, found.severity) == ("architecture_of_transformers", Severity.WARNING)
    assert "no implementation of HeliumForCausalLM" in found.message
    assert "transformers 5.19.0" in found.message
    assert "several GPUs" in found.message


def test_what_was_given_up_is_told_with_its_last_release_and_the_engine_that_has_it():
    (found,) = about(config("mpt", "MPTForCausalLM"), offered=("0.20.0", "0.32.0"))
    assert (found.code, found.severity) == ("architecture_unknown", Severity.ERROR)
    assert "the last that had one is 0.28.0" in found.message
    assert "“vllm-0.20.0”" in found.remedy
    assert about(config("mpt", "MPTForCausalLM"), "0.20.0") == []


def test_what_a_plugin_has_names_it():
    (found,) = about(config("florence2", "Florence2ForConditionalGeneration"))
    assert "vllm-project/bart-plugin" in found.message


def test_an_architecture_that_nothing_knows_is_refused():
    (found,) = about(config("llama", "FooForCausalLM"))
    assert (found.code, found.severity, found.pointer) == (
        "architecture_unknown",
        Severity.ERROR,
        "/spec/source/uri",
    )
    # Any of those that are named will do.
    assert about(config("llama", "FooForCausalLM", "LlamaForCausalLM")) == []


def test_a_model_that_is_code_of_the_repository_needs_that_to_be_allowed():
    odd = config("llama", "OddForCausalLM", auto_map=OWN_CODE)
    (found,) = about(odd)
    assert (found.code, found.pointer, found.value) == (
        "remote_code_model",
        "/spec/engine/args/trust-remote-code",
        True,
    )
    assert found.is_error
    (allowed,) = about(odd, args=ALLOWED)
    assert (allowed.code, allowed.severity) == ("architecture_of_repository", Severity.WARNING)


def test_both_configuration_and_model_of_the_repository():
    odd = config("odd", "OddForCausalLM", auto_map=OWN_CODE)
    assert [finding.code for finding in about(odd)] == ["remote_code_config"]
    assert [finding.code for finding in about(odd, args=ALLOWED)] == ["architecture_of_repository"]
    refused = about(odd, args={"trust-remote-code": False})
    assert [finding.code for finding in refused] == ["remote_code_config"]


def test_a_class_of_transformers_goes_before_one_of_the_repository():
    known = known_models("0.32.0")
    assert known is not None
    assert known.way(("GPTNeoForCausalLM",), own_model=True) is Way.NONE
    assert known.way(("OddForCausalLM",), own_model=True) is Way.REPOSITORY
    assert known.way(("HeliumForCausalLM",), own_model=True) is Way.TRANSFORMERS


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({}, ("model.safetensors",)),
        (config("odd", "OddForCausalLM"), ("params.json", "consolidated.safetensors", "model.safetensors")),
        (config("odd", "OddForCausalLM", speculators_config={}), ("model.safetensors",)),
    ],
)
def test_nothing_is_said_where_the_engine_reads_something_else(config: dict[str, Any], files: tuple[str, ...]):
    facts = facts_of(model=named(config, files), profiles=PROFILES)
    assert codes(said(facts, engine={"profile": "vllm-0.32.0", "args": {"max-model-len": 8192}})) & OURS == set()


@pytest.mark.parametrize("config", [{"blocks": 1}, {"model_type": "odd"}, {"architectures": ["LlamaForCausalLM"]}])
def test_a_configuration_that_does_not_say_what_it_is_can_be_asked_for(config: dict[str, Any]):
    (found,) = about(config)
    assert (found.code, found.severity) == ("model_type_unsaid", Severity.WARNING)


def test_a_model_that_nobody_looked_up_is_not_judged():
    assert codes(said(facts_of(model=LLAMA))) & OURS == set()
    assert codes(said(facts_of(model=None))) & OURS == set()


def test_an_engine_whose_models_nobody_wrote_down_is_not_judged():
    strange = EngineProfile("own", "0.99.0", f"vllm/vllm-openai:own@sha256:{'1' * 64}")
    facts = facts_of(model=named(config("odd", "OddForCausalLM")), profiles={"own": strange})
    assert known_models("0.99.0") is None
    assert codes(said(facts, engine={"profile": "own", "args": {"max-model-len": 8192}})) & OURS == set()


def test_each_role_of_a_wish_is_looked_at_and_the_model_told_once():
    facts = facts_of(model=named(config("llama", "FooForCausalLM")), profiles=PROFILES)
    wish = {"profile": "vllm-0.32.0", "args": {"max-model-len": 8192}}
    found = said(facts, engine=wish, strategy="disaggregated", prefill={}, decode={})
    assert the("architecture_unknown", found).pointer == "/spec/source/uri"


def test_what_config_json_names_is_kept_as_facts():
    facts = named(config("odd", "OddForCausalLM", 7, auto_map=OWN_CODE))  # type: ignore[arg-type]
    assert (facts.model_type, facts.architectures) == ("odd", ("OddForCausalLM",))
    assert (facts.own_config, facts.own_model) == (True, True)
    assert ModelFacts.from_json(json.loads(json.dumps(facts.as_json()))) == facts
    assert named({"auto_map": 7, "architectures": "x", "model_type": ["y"]}).model_type == ""


def test_every_version_has_its_models_written_down():
    newest = "4.57.6"
    for version in versions():
        row = json.loads((ROOT / f"deployments/data/models-vllm-{version}.json").read_text())
        assert row["vllm"] == version
        assert {"LlamaForCausalLM", "Qwen2ForCausalLM", "TransformersForCausalLM"} <= set(row["architectures"])
        assert {"llama", "qwen2", "gpt-sw3", "chatglm"} <= set(row["model_types"])
        assert set(row["runs"]).isdisjoint(row["refuses"])
        assert "LlamaForCausalLM" in row["runs"]
        assert "GPTNeoForCausalLM" in row["refuses"]
        # The newest of transformers that the release takes, on the day when it came out.
        assert release(row["transformers"]) >= release(newest), version
        newest = row["transformers"]
    assert newest == "5.20.2"


HAIKU = {"name": "haiku", "uri": "hf://owner/haiku"}
CAN = {"stages_unsupported", "stages_unsaid", "adapter_architecture", "adapter_architecture_unsaid"}


def able(architecture: str, version: str, *, model_type: str = "llama", **spec: Any) -> list[Finding]:
    """What is said of stages and adapters of a model of this architecture."""
    engine = {"profile": f"vllm-{version}", "args": {"max-model-len": 4096, **spec.pop("args", {})}}
    facts = facts_of(model=named(config(model_type, architecture)), profiles=spec.pop("profiles", PROFILES))
    return [finding for finding in said(facts, engine=engine, **spec) if finding.code in CAN]


@pytest.mark.parametrize(
    ("architecture", "version", "stages", "adapters"),
    [
        ("LlamaForCausalLM", "0.17.0", True, True),
        ("LlamaForCausalLM", "0.32.0", True, True),
        ("BertModel", "0.17.0", False, False),
        ("BertModel", "0.32.0", False, True),
        ("WhisperForConditionalGeneration", "0.17.0", False, False),
        ("WhisperForConditionalGeneration", "0.32.0", False, True),
        ("MiniMaxM1ForCausalLM", "0.20.0", False, False),
        ("DeepseekV4ForCausalLM", "0.20.0", False, False),
        ("DeepseekV4ForCausalLM", "0.32.0", True, True),
        ("GPTNeoXForCausalLM", "0.17.0", True, False),
        ("GPTNeoXForCausalLM", "0.32.0", True, True),
        ("Idefics3ForConditionalGeneration", "0.32.0", False, True),
        ("FalconForCausalLM", "0.32.0", True, False),
        ("MiniCPMV", "0.32.0", True, None),
        # Made of a language model, and run by transformers.
        ("Qwen2ForSequenceClassification", "0.32.0", True, True),
        ("HeliumForCausalLM", "0.32.0", True, True),
    ],
)
def test_stages_and_adapters_are_those_of_the_class_in_that_release(
    architecture: str, version: str, stages: bool, adapters: bool | None
):
    known = known_models(version)
    assert known is not None
    assert known.cuts((architecture,)) is stages
    assert known.adapts((architecture,)) is adapters


def test_stages_of_a_model_that_has_none_are_refused_with_as_many_gpus_split_otherwise():
    (found,) = able("WhisperForConditionalGeneration", "0.32.0", args={"pipeline-parallel-size": 2})
    assert (found.code, found.severity) == ("stages_unsupported", Severity.ERROR)
    assert (found.pointer, found.value) == ("/spec/engine/args/pipeline-parallel-size", 1)
    assert found.also == (("/spec/engine/args/tensor-parallel-size", 2),)
    assert "tensor-parallel-size 2." in found.remedy
    assert able("WhisperForConditionalGeneration", "0.32.0") == []
    assert able("LlamaForCausalLM", "0.32.0", args={"pipeline-parallel-size": 2}) == []


def test_stages_over_nodes_go_back_to_one_node():
    args = {"pipeline-parallel-size": 2}
    (found,) = able("WhisperForConditionalGeneration", "0.32.0", args=args, nodes=2, replicas={"min": 1, "max": 1})
    assert dict(found.also)["/spec/nodes"] == 1
    assert "on one node" in found.remedy


def test_what_another_engine_can_is_named():
    args = {"pipeline-parallel-size": 2}
    some = {slug: PROFILES[slug] for slug in ("vllm-0.20.0", "vllm-0.32.0")}
    model = {"model_type": "deepseek_v4", "profiles": some}
    (stages,) = able("DeepseekV4ForCausalLM", "0.20.0", args=args, **model)
    (adapters,) = able("DeepseekV4ForCausalLM", "0.20.0", adapters=[HAIKU], **model)
    assert "Or choose the engine “vllm-0.32.0”, whose vLLM 0.32.0 can." in stages.remedy
    assert "Or choose the engine “vllm-0.32.0”, whose vLLM 0.32.0 does." in adapters.remedy


def test_adapters_over_a_model_that_takes_none_are_refused_at_their_field():
    (found,) = able("FalconForCausalLM", "0.32.0", adapters=[HAIKU])
    assert (found.code, found.severity) == ("adapter_architecture", Severity.ERROR)
    assert (found.pointer, found.field) == ("/spec/adapters", "adapters")
    assert "merge one into the model's weights" in found.remedy
    assert able("FalconForCausalLM", "0.32.0") == []
    (maybe,) = able("MiniCPMV", "0.32.0", adapters=[HAIKU])
    assert (maybe.code, maybe.severity) == ("adapter_architecture_unsaid", Severity.WARNING)


def test_adapters_of_two_roles_are_refused_once():
    (profile,) = facts_of().profiles
    assert PROFILES[profile].version == "0.32.0"
    facts = facts_of(model=named(config("falcon", "FalconForCausalLM")))
    found = check(DeploymentSpec.from_json(roles_json(adapters=[HAIKU])), "chat", "search", facts)
    assert the("adapter_architecture", found).pointer == "/spec/adapters"


def test_of_a_model_that_nothing_runs_nothing_more_is_said():
    found = able("FooForCausalLM", "0.32.0", args={"pipeline-parallel-size": 2}, adapters=[HAIKU])
    assert found == []
