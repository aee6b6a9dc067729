"""What vLLM's connector takes over from prefill to decode, checked before two roles are made that cannot."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.profiles import EngineProfile
from deployments.findings import Finding
from deployments.preflight import Facts, check
from deployments.spec import DeploymentSpec
from tests.deployments.preflighting import codes, the, with_model
from tests.deployments.wishes import facts_of, roles_json

SHARED = "decode-context-parallel-size"
SPLIT = "tensor-parallel-size"
LATENT = {"kv_lora_rank": 512, "rope_head_dim": 64, "heads": 128, "kv_heads": 128}


def of_roles(facts: Facts | None = None, *, flavor: str = "l4", **spec: Any) -> list[Finding]:
    wish = DeploymentSpec.from_json(roles_json(flavor=flavor, **spec))
    return check(wish, "chat", "search", facts or facts_of())


def older(facts: Facts) -> Facts:
    profile = EngineProfile("vllm-0.20.0", "0.20.0", "vllm/vllm-openai@sha256:" + "1" * 64)
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
