"""Tokenizers that are Python code of the repository: how that is read, and what it asks of the wish."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.architectures import known_models
from deployments.engine.facts import ModelFacts
from deployments.engine.flags import versions
from deployments.findings import Finding, Severity
from deployments.sources import Reply, SourceCode
from deployments.sources.huggingface import check
from deployments.sources.identity import MOST_TOKENIZER, tokenizer
from deployments.sources.listing import Place, judge
from tests.deployments.preflighting import said
from tests.deployments.test_preflight_architecture import PROFILES, config, named
from tests.deployments.wishes import facts_of

MODEL, SHA = "owner/odd", "b" * 40
OWN = {"auto_map": {"AutoTokenizer": ["tokenization_odd.OddTokenizer", None]}, "tokenizer_class": "OddTokenizer"}
SIZES = {"config.json": 9, "model.safetensors": 500, "tokenizer_config.json": 200, "tiktoken.model": 50}
OURS = {"remote_code_tokenizer", "remote_code_tokenizer_left_out", "tokenizer_unread"}
TRUST = "/spec/engine/args/trust-remote-code"


def asked(words: Reply, sizes: dict[str, int] | None = None) -> tuple[ModelFacts | None, list[str]]:
    """What a hub with these files tells of the model, and which files were asked for."""
    files = [{"rfilename": name, "size": size} for name, size in (sizes or SIZES).items()]
    paths: list[str] = []

    def get(path: str) -> Reply:
        if path.startswith("/api/models/"):
            return Reply(200, {"sha": SHA, "siblings": files})
        paths.append(path)
        return words if path.endswith("tokenizer_config.json") else Reply(200, {"model_type": "llama"})

    found = check(MODEL, None, get)
    assert found.code is SourceCode.FOUND
    return found.model, [path.rpartition("/")[2] for path in paths]


def test_the_file_of_the_tokenizer_is_read_once_at_the_pinned_commit():
    model, files = asked(Reply(200, OWN))
    assert model is not None
    assert (model.own_tokenizer, model.tokenizer_class, model.tokenizer_json) == (True, "OddTokenizer", False)
    assert files == ["config.json", "tokenizer_config.json"]


def test_where_there_is_none_or_it_is_huge_nobody_asks():
    without = {name: size for name, size in SIZES.items() if name != "tokenizer_config.json"}
    model, files = asked(Reply(404), without)
    assert (model is not None, files) == (True, ["config.json"])
    assert model is not None
    assert model.own_tokenizer is False
    huge, files = asked(Reply(200, OWN), {**SIZES, "tokenizer_config.json": MOST_TOKENIZER + 1})
    assert huge is not None
    assert (huge.own_tokenizer, files) == (None, ["config.json"])


@pytest.mark.parametrize("words", [Reply(403), Reply(0, error="no answer"), Reply(200, None), Reply(200, ["a"])])
def test_what_cannot_be_read_is_not_known_and_the_model_is_found_all_the_same(words: Reply):
    model, _ = asked(words)
    assert model is not None
    assert model.own_tokenizer is None


@pytest.mark.parametrize(
    ("words", "own"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, False),
        ({"auto_map": {"AutoProcessor": "a.B"}}, False),
        ({"auto_map": {"AutoTokenizer": None}}, False),
        ({"auto_map": {"AutoTokenizer": "a.B"}}, True),
        ({"auto_map": ["a.B", None]}, True),
        ({"auto_map": 7, "tokenizer_class": ["x"]}, False),
    ],
)
def test_both_ways_to_name_code_are_known(words: Any, own: bool):
    assert tokenizer(words, SIZES).own is own


def test_folders_of_other_stores_are_read_alike():
    read: list[str] = []

    def of(name: str, first: int | None) -> Reply:
        read.append(name)
        return Reply(200, OWN if name == "tokenizer_config.json" else {"model_type": "llama"})

    found = judge(Place("s3://models/odd", of), SIZES)
    assert found.model is not None
    assert (found.model.own_tokenizer, read) == (True, ["config.json", "tokenizer_config.json"])


def about(model_type: str, architecture: str, version: str = "0.32.0", **changes: Any) -> list[Finding]:
    args = changes.pop("args", {})
    facts = {"own_tokenizer": True, "tokenizer_class": "OddTokenizer", "format": "safetensors", **changes}
    model = dataclasses.replace(named(config(model_type, architecture)), **facts)
    engine = {"profile": f"vllm-{version}", "args": {"max-model-len": 8192, **args}}
    found = said(facts_of(model=model, profiles=PROFILES), engine=engine)
    return [finding for finding in found if finding.code in OURS]


@pytest.mark.parametrize("version", versions())
def test_a_tokenizer_of_the_repository_needs_that_to_be_allowed(version: str):
    (found,) = about("chatglm", "ChatGLMModel", version)
    assert (found.code, found.severity) == ("remote_code_tokenizer", Severity.ERROR)
    assert (found.pointer, found.value) == (TRUST, True)
    assert "an admin approves" in found.remedy
    assert "OddTokenizer" in found.message
    assert about("chatglm", "ChatGLMModel", version, args={"trust-remote-code": True}) == []
    assert about("chatglm", "ChatGLMModel", version, own_tokenizer=False) == []


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("name", ["LlamaTokenizer", "LlamaTokenizerFast", "GPT2Tokenizer", "PreTrainedTokenizerFast"])
def test_a_class_that_transformers_has_needs_none(version: str, name: str):
    assert about("chatglm", "ChatGLMModel", version, tokenizer_class=name) == []


def test_kimi_takes_its_own_code_or_what_stands_in_for_it():
    # transformers 4 stops at a class that it lacks; since 5 it reads tokenizer.json, or makes something of other files.
    (old,) = about("kimi_k2", "DeepseekV3ForCausalLM", "0.18.0")
    (new,) = about("kimi_k2", "DeepseekV3ForCausalLM", "0.32.0")
    assert (old.code, old.severity) == ("remote_code_tokenizer", Severity.ERROR)
    assert (new.code, new.severity, new.value) == ("remote_code_tokenizer_left_out", Severity.WARNING, True)
    assert about("kimi_k2", "DeepseekV3ForCausalLM", "0.32.0", tokenizer_json=True) == []


def test_an_engine_that_reads_it_without_is_named():
    (found,) = about("kimi_k2", "DeepseekV3ForCausalLM", "0.18.0", tokenizer_json=True)
    assert "Or choose the engine “vllm-0.33.0”, whose vLLM 0.33.0 reads it without." in found.remedy


def test_of_a_file_that_was_not_read_nothing_is_refused():
    (found,) = about("chatglm", "ChatGLMModel", own_tokenizer=None)
    assert (found.code, found.severity) == ("tokenizer_unread", Severity.INFO)


def test_what_releases_read_is_what_their_transformers_have():
    old, new = known_models("0.17.0"), known_models("0.32.0")
    assert old is not None
    assert new is not None
    assert (old.tokenizer_instead, new.tokenizer_instead) == (False, True)
    assert {"deepseek_v3", "qwen2"} <= old.tokenizer_types & new.tokenizer_types
    # llama has none of its own any more: what its repositories name counts.
    assert "llama" in old.tokenizer_types - new.tokenizer_types
    assert not {"chatglm", "qwen"} & (old.tokenizer_types | new.tokenizer_types)
    assert {"kimi_k2", "internlm2"} <= new.tokenizer_types - old.tokenizer_types
