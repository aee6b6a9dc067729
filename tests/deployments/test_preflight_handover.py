"""What vLLM's connector takes over from prefill to decode, checked before two roles are made that cannot."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.facts import ModelFacts
from deployments.engine.profiles import EngineProfile
from deployments.findings import Finding
from deployments.preflight import Facts, check
from deployments.sources.huggingface import model_facts
from deployments.spec import DeploymentSpec
from tests.deployments.preflighting import codes, said, the, with_model
from tests.deployments.wishes import facts_of, roles_json

SHARED = "decode-context-parallel-size"
SPLIT = "tensor-parallel-size"
LATENT = {"kv_lora_rank": 512, "rope_head_dim": 64, "heads": 128, "kv_heads": 128}


def of_roles(facts: Facts | None = None, *, flavor: str = "l4", **spec: Any) -> list[Finding]:
    wish = DeploymentSpec.from_json(roles_json(flavor=flavor, **spec))
    return check(wish, "chat", "search", facts or facts_of())


def older(facts: Facts, version: str = "0.20.0") -> Facts:
    profile = EngineProfile(f"vllm-{version}", version, "vllm/vllm-openai@sha256:" + "1" * 64)
    return dataclasses.replace(facts, profiles={profile.slug: profile})


@pytest.mark.parametrize(
    ("model", "shared", "value"),
    [
        (LATENT, 2, 8),
        (LATENT, 4, 8),
        (LATENT, 8, None),
        (LATENT, 1, None),
        # Four copies of each of two KV heads: an engine by itself can share the context between them.
        ({"kv_heads": 2}, 4, 1),
    ],
)
def test_a_context_is_handed_over_that_all_gpus_share_or_none(model: dict[str, Any], shared: int, value: int | None):
    found = of_roles(with_model(**model), args={SPLIT: 8, SHARED: shared})
    assert [item.value for item in found if item.code == "handover_context"] == ([] if value is None else [value])
    assert [item.code for item in found if item.is_error] == ([] if value is None else ["handover_context"])


def test_what_the_context_of_one_role_is_shared_by_is_mended_there():
    found = of_roles(
        with_model(**LATENT),
        prefill={"args": {SPLIT: 8, SHARED: 8}},
        decode={"args": {SPLIT: 4, SHARED: 2}},
    )
    finding = the("handover_context", found)
    assert (finding.pointer, finding.value, finding.is_error) == (f"/spec/decode/args/{SHARED}", 4, True)
    assert finding.message.startswith("Decode: ")


def test_of_a_model_that_nobody_knows_the_number_is_checked_all_the_same():
    found = of_roles(facts_of(model=None), args={SPLIT: 8, SHARED: 4})
    assert the("handover_context", found).pointer == f"/spec/engine/args/{SHARED}"
    assert "handover_context" not in codes(of_roles(facts_of(model=None), args={SPLIT: 8, SHARED: 8}))


def test_older_engines_hand_over_no_shared_context():
    args = {SPLIT: 8, SHARED: 8}
    found = of_roles(older(with_model(**LATENT)), args=args, engine={"profile": "vllm-0.20.0", "args": args})
    finding = the("handover_context", found)
    assert (finding.value, finding.remedy) == (1, "Leave it out.")
    assert "vLLM 0.20.0 hands the KV cache over as if every GPU held the whole context" in finding.message


def test_layers_that_keep_a_state_are_handed_over_by_as_many_shares():
    model = with_model(**LATENT, linear_layers=20)
    one = {"prefill": {"args": {SPLIT: 4, SHARED: 4}}, "decode": {"args": {SPLIT: 4}}}
    finding = the("handover_context_differs", of_roles(model, **one))
    assert (finding.pointer, finding.is_error) == (f"/spec/decode/args/{SHARED}", True)
    assert "4 do in prefill and 1 in decode" in finding.message
    assert "handover_context_differs" not in codes(of_roles(model, args={SPLIT: 4, SHARED: 4}))
    assert "handover_context_differs" not in codes(of_roles(with_model(**LATENT), **one))


@pytest.mark.parametrize(
    ("architecture", "version", "refused"),
    [
        ("Qwen3NextForCausalLM", "0.32.0", False),
        ("Qwen3NextForCausalLM", "0.21.0", True),
        ("Mamba2ForCausalLM", "0.20.0", False),
        ("MambaForCausalLM", "0.24.0", True),
        ("JambaForCausalLM", "0.25.0", False),
        ("KimiLinearForCausalLM", "0.22.0", True),
        ("KimiLinearForCausalLM", "0.32.0", False),
        ("Lfm2ForCausalLM", "0.32.0", True),
        ("MiniMaxText01ForCausalLM", "0.22.0", True),
    ],
)
def test_states_are_handed_over_of_the_kinds_that_the_engine_takes_apart(
    architecture: str, version: str, refused: bool
):
    facts = older(with_model(architecture=architecture, linear_layers=20), version)
    found = of_roles(facts, engine={"profile": f"vllm-{version}", "args": {}})
    assert ("handover_states" in codes(found)) is refused
    if refused:
        finding = the("handover_states", found)
        assert (finding.pointer, finding.value, finding.is_error) == ("/spec/strategy", "standard", True)
    assert "handover_states" not in codes(of_roles(older(with_model(), version), engine={"profile": f"vllm-{version}"}))


@pytest.mark.parametrize(
    ("model", "prefill", "decode", "code", "value"),
    [
        ({"heads": 24, "kv_heads": 24}, 3, 2, "handover_split", 3),
        ({"heads": 24, "kv_heads": 24}, 4, 6, "handover_split", 8),
        ({"heads": 24, "kv_heads": 24}, 3, 6, "", None),
        ({}, 8, 1, "", None),
        # More GPUs than KV heads: each head lies on several.
        ({"kv_heads": 4}, 8, 4, "handover_copies", 4),
        ({"kv_heads": 1}, 2, 1, "handover_copies", 1),
        ({"kv_heads": 4}, 8, 8, "", None),
        ({"kv_heads": 4}, 4, 8, "", None),
        ({"kv_heads": 1, "linear_layers": 20}, 2, 1, "", None),
        (LATENT, 8, 1, "", None),
    ],
)
def test_the_gpus_of_one_role_take_over_from_whole_gpus_of_the_other(
    model: dict[str, Any], prefill: int, decode: int, code: str, value: int | None
):
    spec = {"prefill": {"args": {SPLIT: prefill}}, "decode": {"args": {SPLIT: decode}}}
    found = of_roles(with_model(**model), args={"max-model-len": 8192}, **spec)
    assert [item.code for item in found if item.code.startswith("handover")] == ([code] if code else [])
    if code:
        finding = the(code, found)
        role = "decode" if code == "handover_split" else "prefill"
        assert (finding.pointer, finding.value) == (f"/spec/{role}/args/{SPLIT}", value)
        mended = {**spec, role: {"args": {SPLIT: value}}}
        after = of_roles(with_model(**model), args={"max-model-len": 8192}, **mended)
        assert not [item for item in after if item.is_error]


@pytest.mark.parametrize(("flag", "value"), [("runner", "pooling"), ("convert", "embed")])
def test_what_is_made_to_pool_has_nothing_to_decode(flag: str, value: str):
    finding = the("roles_pooling", of_roles(args={flag: value}))
    assert (finding.field, finding.is_error) == (flag, True)
    assert "roles_pooling" not in codes(said(args={flag: value}))
    # A model that is told to write is not converted.
    assert "roles_pooling" not in codes(of_roles(args={"runner": "generate", "convert": "embed"}))


@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "BertModel"},
        {"architecture": "Qwen2ForRewardModel"},
        {"architecture": "Qwen3ForSequenceClassification"},
        # As sentence-transformers keep a language model with a layer that pools.
        {"architecture": "Qwen3ForCausalLM", "pooled": True},
    ],
)
def test_a_model_that_pools_by_itself_is_not_cut_into_roles(model: dict[str, Any]):
    facts = with_model(**model)
    finding = the("roles_pooling", of_roles(facts))
    assert (finding.pointer, finding.value, finding.is_error) == ("/spec/strategy", "standard", True)
    assert "roles_pooling" not in codes(said(facts))
    assert the("no_text", said(facts)).field == "source_uri"


@pytest.mark.parametrize("architecture", ["Qwen3ForCausalLM", "InternVLChatModel", "ChatGLMModel", "Unheard"])
def test_a_model_that_writes_is_decoded(architecture: str):
    assert "roles_pooling" not in codes(of_roles(with_model(architecture=architecture)))
    pooled = with_model(architecture="Qwen3ForCausalLM", pooled=True)
    assert not codes(of_roles(pooled, args={"runner": "generate"})) & {"roles_pooling", "no_text"}


def test_an_encoder_with_a_decoder_has_no_connector():
    whisper = with_model(architecture="WhisperForConditionalGeneration", encoder_decoder=True)
    finding = the("roles_encoder", of_roles(whisper))
    assert (finding.pointer, finding.value, finding.is_error) == ("/spec/strategy", "standard", True)
    assert "roles_encoder" not in codes(said(whisper))
    offloaded = the("offload_encoder", said(whisper, args={"kv-offloading-size": 8}))
    assert (offloaded.field, offloaded.is_error) == ("kv_offloading_size", True)
    assert "offload_encoder" not in codes(said(args={"kv-offloading-size": 8}))


@pytest.mark.parametrize(
    ("flag", "prefill", "decode", "role", "value"),
    [
        ("attention-backend", "FLASHINFER", "FLASH_ATTN", "decode", "FLASHINFER"),
        ("attention-backend", "FLASH_ATTN", None, "decode", "FLASH_ATTN"),
        # No value says what holds without it: prefill gets it too.
        ("attention-backend", None, "FLASH_ATTN", "prefill", "FLASH_ATTN"),
        ("attention-backend", "FLASH_ATTN", "FLASH_ATTN", "", None),
        ("disable-hybrid-kv-cache-manager", True, None, "decode", True),
        ("disable-hybrid-kv-cache-manager", None, True, "decode", False),
        ("disable-hybrid-kv-cache-manager", None, False, "", None),
        ("disable-sliding-window", None, True, "decode", False),
        ("disable-sliding-window", False, True, "decode", False),
        ("disable-sliding-window", True, None, "decode", True),
        ("language-model-only", None, True, "decode", False),
        ("kv-cache-dtype", "fp8", None, "decode", "fp8"),
        ("kv-cache-dtype", None, "fp8", "decode", "auto"),
        # One and the same format, but the connectors compare the words.
        ("kv-cache-dtype", "fp8", "fp8_e4m3", "decode", "fp8"),
        ("kv-cache-dtype", "auto", None, "", None),
        ("dtype", "half", "float16", "", None),
        ("dtype", None, "auto", "", None),
        ("dtype", None, "half", "decode", "auto"),
        ("block-size", 32, None, "decode", 32),
        ("block-size", None, 32, "prefill", 32),
        ("block-size", 32, 32, "", None),
        ("spec-method", "mtp", None, "decode", "mtp"),
        ("spec-method", None, "mtp", "prefill", "mtp"),
        ("spec-method", None, "ngram", "", None),
        ("gpu-memory-utilization", 0.8, 0.9, "", None),
    ],
)
def test_the_engines_of_both_roles_keep_their_cache_alike(
    flag: str, prefill: object, decode: object, role: str, value: object
):
    given = {"prefill": prefill, "decode": decode}
    spec = {each: {"args": {} if said is None else {flag: said}} for each, said in given.items()}
    found = [item for item in of_roles(with_model(mtp_layers=1), **spec) if item.code == "handover_differs"]
    assert [(item.pointer, item.value) for item in found] == ([(f"/spec/{role}/args/{flag}", value)] if role else [])
    assert all(item.is_error and item.remedy for item in found)
    if role:
        mended = {**spec, role: {"args": {flag: value}}}
        assert "handover_differs" not in codes(of_roles(with_model(mtp_layers=1), **mended))


@pytest.mark.parametrize(
    ("args", "prefill", "decode", "value"),
    [
        ({"kv-cache-dtype": "turboquant_3bit_nc"}, 2, 1, 2),
        ({"kv-cache-dtype": "turboquant_k8v4"}, 1, 2, 1),
        ({"kv-cache-dtype": "turboquant_3bit_nc"}, 2, 2, None),
        ({"attention-backend": "FLEX_ATTENTION"}, 2, 1, 2),
        ({"attention-backend": "FLASH_ATTN"}, 2, 1, None),
        ({"kv-cache-dtype": "fp8"}, 2, 1, None),
        ({}, 2, 1, None),
    ],
)
def test_heads_that_lie_apart_are_handed_over_between_equal_splits(
    args: dict[str, Any], prefill: int, decode: int, value: int | None
):
    spec = {"prefill": {"args": {SPLIT: prefill}}, "decode": {"args": {SPLIT: decode}}}
    found = [item for item in of_roles(args=args, **spec) if item.code == "handover_heads"]
    assert [(item.pointer, item.value) for item in found] == (
        [] if value is None else [(f"/spec/decode/args/{SPLIT}", value)]
    )
    assert "handover_heads" not in codes(of_roles(with_model(**LATENT), args=args, **spec))


def test_what_proposes_tokens_is_proposed_with_its_number():
    one = {"decode": {"args": {"spec-method": "mtp", "spec-tokens": 1}}}
    finding = the("handover_differs", of_roles(with_model(mtp_layers=1), **one))
    assert (finding.pointer, finding.value) == ("/spec/prefill/args/spec-method", "mtp")
    assert finding.also == (("/spec/prefill/args/spec-tokens", 1),)


def test_roles_that_differ_are_told_beside_everything_else():
    found = of_roles(args={"max-model-len": 10**6}, prefill={"args": {"kv-cache-dtype": "fp8"}})
    assert {"handover_differs", "context_over_model"} <= codes(found)


@pytest.mark.parametrize(
    ("config", "files", "encoder_decoder", "pooled"),
    [
        ({"model_type": "whisper", "is_encoder_decoder": True}, (), True, False),
        ({"model_type": "whisper"}, (), True, False),
        # As Voxtral says of what it took over from Whisper.
        ({"model_type": "whisper", "is_encoder_decoder": False}, (), False, False),
        ({"model_type": "outer", "text_config": {"is_encoder_decoder": True}}, (), True, False),
        ({"model_type": "llama", "is_encoder_decoder": "yes"}, (), False, False),
        ({"model_type": "qwen3"}, ("modules.json", "1_Pooling/config.json"), False, True),
        ({"model_type": "qwen3"}, ("modules.json",), False, False),
        ({"model_type": "qwen3"}, ("1_Pooling/config.json",), False, False),
    ],
)
def test_what_a_repository_says_of_encoders_and_pooling_is_read(
    config: dict[str, Any], files: tuple[str, ...], encoder_decoder: bool, pooled: bool
):
    metadata = {"siblings": [{"rfilename": name, "size": 1} for name in ("model.safetensors", *files)]}
    facts = model_facts("x/y", metadata, config)
    assert (facts.encoder_decoder, facts.pooled) == (encoder_decoder, pooled)
    assert ModelFacts.from_json(facts.as_json()) == facts
