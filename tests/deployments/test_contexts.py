"""How long a model's context is, as vLLM derives it from `config.json`, and what engines of other versions take."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.defaults import defaults_of
from deployments.engine.gpus import gpu_facts
from deployments.engine.profiles import EngineProfile
from deployments.engine.sizing import fit
from deployments.preflight import Facts, check
from deployments.sources import Reply
from deployments.sources.huggingface import check as hub_check
from deployments.sources.huggingface import model_facts
from deployments.sources.listing import Place, judge
from tests.deployments.preflighting import codes, the
from tests.deployments.wishes import LLAMA, facts_of, spec_of

IMAGE = "vllm/vllm-openai@sha256:" + "1" * 64
PROFILES = {slug: EngineProfile(slug, slug.removeprefix("vllm-"), IMAGE) for slug in ("vllm-0.20.0", "vllm-0.32.0")}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def read(**config: Any) -> tuple[int | None, int | None, int | None]:
    facts = model_facts("org/model", {}, config)
    return facts.max_position, facts.max_position_stretched, facts.context_unasked


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"max_position_embeddings": 32768}, 32768),
        # Several names: the smallest, but for the one that decides.
        ({"n_positions": 8192, "max_seq_len": 2048}, 2048),
        ({"max_position_embeddings": 1500, "max_target_positions": 448}, 448),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        # What scales, and what says its context scaled already.
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "mrope", "factor": 2.0}}, 8192),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "dynamic", "factor": None}}, 4096),
        (
            {
                "max_position_embeddings": 131072,
                "model_type": "gemma3",
                "rope_scaling": {"type": "linear", "factor": 8},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 4096,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            32768,
        ),
        ({}, None),
    ],
)
def test_a_context_is_read_as_the_engine_does(config: dict[str, Any], longest: int | None):
    assert read(**config) == (longest, None, None)


def test_yarn_stretches_in_old_engines_alone():
    assert read(max_position_embeddings=32768, rope_scaling=YARN) == (32768, 131072, None)
    # As DeepSeek says it, both come to the same.
    told = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}
    assert read(max_position_embeddings=163840, rope_scaling=told) == (163840, None, None)


def yarn(profile: str, **args: int) -> list[Any]:
    model = dataclasses.replace(LLAMA, max_position=32768, max_position_stretched=131072)
    facts: Facts = facts_of(model=model, profiles=PROFILES)
    return check(spec_of(engine={"profile": profile, "args": args}), "chat", "search", facts)


def test_a_context_stretched_by_yarn_is_refused_where_the_engine_does():
    assert "context_over_model" not in codes(yarn("vllm-0.20.0", **{"max-model-len": 131072}))
    finding = the("context_over_model", yarn("vllm-0.32.0", **{"max-model-len": 131072}))
    assert (finding.field, finding.value, finding.is_error) == ("max_model_len", 32768, True)
    assert "context_over_model" not in codes(yarn("vllm-0.32.0", **{"max-model-len": 32768}))


def test_the_fit_takes_the_context_of_its_engine():
    model = dataclasses.replace(LLAMA, max_position=32768, max_position_stretched=131072)
    gpu = gpu_facts("NVIDIA-H100-80GB-HBM3")
    assert fit(model, gpu, {}, defaults=defaults_of("0.20.0")).max_model_len == 131072
    assert fit(model, gpu, {}, defaults=defaults_of("0.32.0")).max_model_len == 32768


def test_two_sets_of_factors_mean_the_short_context_where_nobody_asks():
    # As Phi-4-mini says it.
    long = {"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}
    config = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rope_scaling": long}
    assert read(**config) == (131072, None, 4096)

    facts = facts_of(model=dataclasses.replace(LLAMA, context_unasked=4096))
    found = check(spec_of(args={}, flavor="l4"), "chat", "search", facts)
    assert "memory" not in codes(found), "4,096 tokens fit"
    assert "4,096 tokens of" in the("context_unasked", found).message
    assert "131,072" in the("context_unasked", found).message
    told = check(spec_of(args={"max-model-len": 131072}, flavor="l4"), "chat", "search", facts)
    assert "context_unasked" not in codes(told)
    assert "memory" in codes(told)


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"num_attention_heads": 71, "model_type": "falcon", "multi_query": True}, 1),
        (
            {
                "num_attention_heads": 128,
                "model_type": "falcon",
                "multi_query": True,
                "new_decoder_architecture": True,
                "num_kv_heads": 8,
            },
            8,
        ),
        ({"num_attention_heads": 48, "model_type": "gpt_bigcode", "multi_query": True}, 1),
        ({"num_attention_heads": 32, "multi_query_group_num": 2}, 2),
        ({"n_head": 48, "n_head_kv": 4}, 4),
        ({"num_attention_heads": 48, "attn_config": {"kv_n_heads": 8}}, 8),
        ({"num_attention_heads": 32}, 32),
    ],
)
def test_heads_with_keys_of_their_own_are_read_by_all_their_names(config: dict[str, Any], heads: int):
    assert model_facts("org/model", {}, config).kv_heads == heads


@pytest.mark.parametrize(
    ("config", "states"),
    [
        # As Jamba: attention in one layer of eight.
        ({"num_hidden_layers": 32, "attn_layer_period": 8, "attn_layer_offset": 4}, 28),
        # As Nemotron-H: M is Mamba, - a layer without either, * attention.
        ({"num_hidden_layers": 8, "hybrid_override_pattern": "M-M-M*M-"}, 7),
        ({"num_hidden_layers": 8, "full_attention_interval": 4}, 6),
        ({"num_hidden_layers": 8}, 0),
    ],
)
def test_layers_without_a_cache_are_read_by_all_their_names(config: dict[str, Any], states: int):
    assert model_facts("org/model", {}, config).linear_layers == states


BERT = {"model_type": "bert", "max_position_embeddings": 512, "position_embedding_type": "absolute"}


@pytest.mark.parametrize(
    ("config", "tokenizer", "sentences", "longest"),
    [
        # As all-MiniLM-L6-v2.
        (BERT, {"model_max_length": 512}, {"max_seq_length": 256}, 256),
        (BERT, {"model_max_length": 128}, None, 128),
        (BERT, {"model_max_length": 1000000000000000019884624838656}, {}, 512),
        (BERT, None, {"max_seq_length": "all"}, 512),
        # As XLM-RoBERTa, whose first positions are none of a text's.
        ({**BERT, "max_position_embeddings": 514}, {"model_max_length": 512}, None, 512),
        # Of rotary positions a tokenizer has no say.
        ({"model_type": "qwen3", "max_position_embeddings": 32768}, {"model_max_length": 2048}, None, 32768),
        ({"model_type": "qwen3", "max_position_embeddings": 32768}, {}, {"max_seq_length": 8192}, 8192),
    ],
)
def test_files_beside_the_configuration_narrow_the_context_of_embeddings(
    config: dict[str, Any], tokenizer: Any, sentences: Any, longest: int
):
    assert model_facts("x/y", {}, config, tokenizer, sentences).max_position == longest


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        ({"sentence_roberta_config.json": 53, "sentence_bert_config.json": 53}, ["sentence_bert_config.json"]),
        ({"sentence_bert_config.json": 70_000}, []),
        ({}, []),
    ],
)
def test_of_sentence_transformers_the_file_is_read_that_the_engine_reads(files: dict[str, int], asked: list[str]):
    names: list[str] = []
    sizes = {"config.json": 9, "model.safetensors": 500, **files}
    siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]

    def get(path: str) -> Reply:
        if path.startswith("/api/"):
            return Reply(200, {"sha": "a" * 40, "siblings": siblings})
        names.append(path.rpartition("/")[2])
        return Reply(200, BERT if names[-1] == "config.json" else {"max_seq_length": 256})

    found = hub_check("x/y", None, get)
    assert names == ["config.json", *asked]
    assert found.model is not None
    assert found.model.max_position == (256 if asked else 512)

    def read(name: str, most: int | None) -> Reply:
        return Reply(200, BERT if name == "config.json" else {"max_seq_length": 256})

    kept = judge(Place("s3://bucket/m/", read), sizes)
    assert kept.model is not None
    assert kept.model.max_position == (256 if asked else 512)
