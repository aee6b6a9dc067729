"""Pairs of flags, and of a flag and a model, that vLLM's configuration refuses as the engine starts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.architectures import known_models
from deployments.findings import Finding, Severity
from deployments.preflight import check
from tests.deployments.preflighting import codes, the
from tests.deployments.test_preflight_architecture import PROFILES, config, named
from tests.deployments.wishes import facts_of, spec_of

ARGS = "/spec/engine/args/"


def found(args: dict[str, Any], version: str = "0.32.0", architecture: str = "", **changes: Any) -> list[Finding]:
    """What is said of a model with these facts, of this architecture, under these flags."""
    model = named(config("llama", architecture or "LlamaForCausalLM"))
    facts = {"max_position": 448, "architecture": architecture or "LlamaForCausalLM", **changes}
    profile = f"vllm-{version}"
    spec = spec_of(engine={"profile": profile, "args": {"max-model-len": 448, **args}})
    known = facts_of(model=dataclasses.replace(model, **facts), profiles={profile: PROFILES[profile]})
    return check(spec, "chat", "search", known)


WHISPER: dict[str, Any] = {"architecture": "WhisperForConditionalGeneration", "encoder_decoder": True}
EMBEDS = {"enable-prompt-embeds": True}


def test_an_encoder_takes_no_embeddings_for_prompts():
    said = the("prompt_embeds_encoder", found(EMBEDS, **WHISPER))
    assert (said.severity, said.pointer, said.value) == (Severity.ERROR, f"{ARGS}enable-prompt-embeds", False)
    assert "prompt_embeds_encoder" not in codes(found({}, **WHISPER))
    assert "prompt_embeds_encoder" not in codes(found(EMBEDS))
    # Older releases do not look at it before they start.
    assert the("prompt_embeds_encoder", found(EMBEDS, "0.20.0", **WHISPER)).severity is Severity.WARNING


def test_a_step_holds_a_whole_prompt_of_an_encoder():
    few = {"max-num-batched-tokens": 256, "max-num-seqs": 8}
    said = the("batch_below_context", found(few, **WHISPER))
    assert (said.pointer, said.value, said.is_error) == (f"{ARGS}max-num-batched-tokens", 448, True)
    assert "batch_below_context" not in codes(found({**few, "max-num-batched-tokens": 448}, **WHISPER))
    assert "batch_below_context" not in codes(found({"max-num-seqs": 8}, **WHISPER))
    assert "batch_below_context" not in codes(found(few))


def test_a_model_that_writes_pools_only_by_an_adapter():
    pooling = {"runner": "pooling", "convert": "none"}
    said = the("pooling_unconverted", found(pooling))
    assert (said.pointer, said.value, said.is_error) == (f"{ARGS}convert", "auto", True)
    assert "pooling_unconverted" not in codes(found({**pooling, "convert": "embed"}))
    assert "pooling_unconverted" not in codes(found({"runner": "pooling"}))
    assert "pooling_unconverted" not in codes(found(pooling, architecture="BertModel"))


@pytest.mark.parametrize(("layers", "count", "value"), [(3, 4, 3), (3, 7, 6), (2, 5, 4)])
def test_layers_that_propose_tokens_propose_in_whole_rounds(layers: int, count: int, value: int):
    said = the("speculation_rounds", found({"spec-method": "mtp", "spec-tokens": count}, mtp_layers=layers))
    assert (said.pointer, said.value, said.is_error) == (f"{ARGS}spec-tokens", value, True)


@pytest.mark.parametrize(("layers", "count"), [(3, 6), (3, 2), (1, 3), (None, 4)])
def test_whole_rounds_and_parts_of_the_first_are_fine(layers: int | None, count: int):
    said = found({"spec-method": "mtp", "spec-tokens": count}, mtp_layers=layers)
    assert "speculation_rounds" not in codes(said)
    assert "speculation_rounds" not in codes(found({"spec-method": "ngram", "spec-tokens": 4}, mtp_layers=3))


def test_older_engines_cut_what_proposes_tokens_into_stages_too():
    args = {"spec-method": "mtp", "spec-tokens": 1, "pipeline-parallel-size": 2}
    model: dict[str, Any] = {"architecture": "DeepseekV3ForCausalLM", "mtp_layers": 1}
    said = the("speculation_stages", found(args, "0.20.0", **model))
    assert (said.pointer, said.is_error) == (f"{ARGS}spec-method", True)
    assert "DeepSeekMTPModel" in said.message
    assert "speculation_stages" not in codes(found(args, "0.32.0", **model))
    assert "speculation_stages" not in codes(found({**args, "pipeline-parallel-size": 1}, "0.20.0", **model))
    old, new = known_models("0.20.0"), known_models("0.32.0")
    assert old is not None
    assert new is not None
    assert (old.drafts_cut, new.drafts_cut) == (True, False)
