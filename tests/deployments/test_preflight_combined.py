"""Flags that vLLM takes one by one and refuses, or counts otherwise, together."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.flags import flags_of, versions
from deployments.engine.gpus import gpu_facts
from deployments.engine.kv import pool_of
from deployments.engine.profiles import EngineProfile
from deployments.engine.sizing import FitState, batched_tokens, fit, sequences
from deployments.findings import Severity
from deployments.preflight import check
from deployments.preflight.trials import with_changes
from tests.deployments.preflighting import codes, said, the, with_model
from tests.deployments.wishes import H100, L4, facts_of, spec_of

ONE_CACHE = "disable-hybrid-kv-cache-manager"
MIXTURE = {"experts": 8, "expert_intermediate": 1024, "architecture": "MixtralForCausalLM"}
# As Gemma 3 27B: five of six layers have a window of 1,024 tokens.
GEMMA = ModelFacts(
    id="google/gemma-3-27b-it",
    architecture="Gemma3ForConditionalGeneration",
    weights_bytes=54_864_822_784,
    layers=62,
    heads=32,
    kv_heads=16,
    head_dim=128,
    hidden=5376,
    intermediate=21_504,
    vocab=262_208,
    max_position=131_072,
    sliding_window=1024,
    sliding_layers=52,
)


# Speculation, experts, half batches


@pytest.mark.parametrize(("method", "refused"), [("ngram", True), ("mtp", False)])
def test_a_step_is_planned_ahead_only_with_proposals_of_the_gpu(method: str, refused: bool):
    args = {"async-scheduling": True, "spec-method": method, "spec-tokens": 3}
    found = said(with_model(mtp_layers=1), args=args)
    assert ("speculation_async" in codes(found)) is refused
    if refused:
        finding = the("speculation_async", found)
        assert (finding.field, finding.value, finding.is_error) == ("async_scheduling", False, True)
        assert "speculation_async" not in codes(said(args={**args, "async-scheduling": False}))
    assert "speculation_async" not in codes(said(args={"async-scheduling": True}))


@pytest.mark.parametrize(
    ("model", "args", "field", "value"),
    [
        ({}, {"tensor-parallel-size": 2}, "enable_eplb", False),
        (MIXTURE, {"enable-expert-parallel": True}, "enable_eplb", False),
        (MIXTURE, {"tensor-parallel-size": 2}, "enable_expert_parallel", True),
        (MIXTURE, {"data-parallel-size": 2}, "enable_expert_parallel", True),
    ],
)
def test_experts_are_moved_where_there_are_some_over_several_gpus(
    model: dict[str, Any], args: dict[str, Any], field: str, value: bool
):
    facts, args = with_model(**model), {**args, "enable-eplb": True}
    finding = the("experts_moved", said(facts, args=args))
    assert (finding.field, finding.value, finding.is_error) == (field, value, True)
    assert "experts_moved" not in codes(said(facts, args={**args, field.replace("_", "-"): value}))
    spread = {"enable-eplb": True, "enable-expert-parallel": True, "tensor-parallel-size": 2}
    assert "experts_moved" not in codes(said(with_model(**MIXTURE), args=spread))


@pytest.mark.parametrize(
    ("model", "gpus", "words"),
    [
        ({"experts": 60}, 8, "60 do not come out even on 8"),
        ({"experts": 60}, 4, ""),
        ({"quantization": "awq"}, 4, "are moved by no kernel"),
        ({"quantization": "gptq"}, 4, "are moved by no kernel"),
        ({"quantization": "modelopt"}, 4, "are moved by no kernel"),
        ({"quantization": "inc"}, 4, "are moved by no kernel"),
        ({"quantization": "mxfp4", "architecture": "GptOssForCausalLM"}, 4, "are moved by no kernel"),
        ({"quantization": "mxfp4"}, 4, ""),
        ({"quantization": "modelopt_fp4"}, 4, ""),
        ({"quantization": "fp8"}, 4, ""),
    ],
)
def test_experts_are_moved_that_come_out_even_and_have_a_kernel_for_it(model: dict[str, Any], gpus: int, words: str):
    args = {"enable-eplb": True, "enable-expert-parallel": True, "tensor-parallel-size": gpus}
    found = said(with_model(**MIXTURE | model), flavor="l4", args=args)
    moved = [finding for finding in found if finding.code == "experts_moved"]
    assert [(finding.field, finding.value, words in finding.message) for finding in moved] == (
        [("enable_eplb", False, True)] if words else []
    )


@pytest.mark.parametrize(
    ("version", "quantization", "refused"),
    [("0.17.0", "awq", True), ("0.20.0", "gptq", True), ("0.20.0", "mxfp4", True), ("0.20.0", "fp8", False)],
)
def test_older_engines_move_no_more_experts(version: str, quantization: str, refused: bool):
    engine = EngineProfile("old", version, "vllm/vllm-openai@sha256:" + "0" * 64)
    facts = dataclasses.replace(with_model(**MIXTURE | {"quantization": quantization}), profiles={"old": engine})
    flags = {"enable-eplb": True, "enable-expert-parallel": True, "tensor-parallel-size": 4, "max-model-len": 4096}
    found = said(facts, flavor="l4", engine={"profile": "old", "args": flags})
    assert ("experts_moved" in codes(found)) is refused


@pytest.mark.parametrize(
    ("planned", "batch", "value"), [(100_000, 2048, 2048), (2048, 2048, None), (100_000, None, 8192)]
)
def test_no_more_is_planned_for_a_step_than_it_holds(planned: int, batch: int | None, value: int | None):
    given = {} if batch is None else {"max-num-batched-tokens": batch}
    found = said(args={"max-num-scheduled-tokens": planned, "max-num-seqs": 64, **given})
    assert [(item.field, item.value) for item in found if item.code == "planned_over_batch"] == (
        [] if value is None else [("max_num_scheduled_tokens", value)]
    )


def test_half_batches_need_kernels_that_nobody_can_choose():
    finding = the("flag_forbidden", said(args={"enable-dbo": True}))
    assert (finding.field, finding.is_error) == ("enable_dbo", True)
    assert "all-to-all kernels" in finding.message


# One kind of cache for all layers


def test_without_the_manager_layers_with_a_window_keep_everything():
    args = {"max-model-len": 65_536, ONE_CACHE: True}
    pool = pool_of(GEMMA, args, 8192)
    assert pool.token_bytes == 507_904
    assert pool.request(65_536) == 507_904 * 65_536 == 31 * GIB
    # vLLM keeps a window for each step that is under way, and puts ten layers into a group: of the last, two are there.
    assert pool_of(GEMMA, {**args, ONE_CACHE: False}, 8192).request(65_536) == 1_310_720 * (4096 + 6 * 1089)
    assert pool.longest(31 * GIB, 131_072) == 65_536
    assert pool.tokens(31 * GIB, 65_536) == 65_536
    gpu = gpu_facts("NVIDIA-H100-80GB-HBM3")
    assert fit(GEMMA, gpu, args).state is FitState.NO
    assert fit(GEMMA, gpu, {"max-model-len": 65_536}).state is FitState.FITS


def test_what_would_fit_with_caches_of_their_own_is_told_so():
    spec = spec_of(args={"max-model-len": 65_536, ONE_CACHE: True})
    facts = facts_of(model=GEMMA)
    finding = the("memory", check(spec, "chat", "search", facts))
    assert f"{ONE_CACHE} off" in finding.remedy
    changed = with_changes(spec, [(f"/spec/engine/args/{ONE_CACHE}", False)])
    assert changed is not None
    assert "memory" not in codes(check(changed, "chat", "search", facts))


def test_where_all_layers_have_a_window_there_is_one_kind_anyway():
    alike = dataclasses.replace(GEMMA, sliding_layers=62)
    assert pool_of(alike, {ONE_CACHE: True}, 8192) == pool_of(alike, {}, 8192)


def test_layers_that_keep_a_state_need_a_cache_of_their_own():
    facts = with_model(linear_layers=24)
    finding = the("cache_hybrid", said(facts, args={ONE_CACHE: True}))
    assert (finding.field, finding.value, finding.is_error) == (ONE_CACHE.replace("-", "_"), False, True)
    assert "cache_hybrid" not in codes(said(facts, args={ONE_CACHE: False}))
    assert "cache_hybrid" not in codes(said(args={ONE_CACHE: True}))


# Sizes


@pytest.mark.parametrize(("product", "batch", "running"), [("NVIDIA-L4", 2048, 256), ("NVIDIA-H200", 8192, 1024)])
def test_for_throughput_twice_as_much_is_done_at_once(product: str, batch: int, running: int):
    gpu, more = gpu_facts(product), {"performance-mode": "throughput"}
    assert (batched_tokens(gpu, {}, 8192), sequences(gpu, {}, batch)) == (batch, running)
    assert (batched_tokens(gpu, more, 8192), sequences(gpu, more, 2 * batch)) == (2 * batch, 2 * running)
    other = {"performance-mode": "interactivity"}
    assert (batched_tokens(gpu, other, 8192), sequences(gpu, other, batch)) == (batch, running)
    told = {**more, "max-num-batched-tokens": 3000, "max-num-seqs": 100}
    assert (batched_tokens(gpu, told, 8192), sequences(gpu, told, 3000)) == (3000, 100)
    whole = {**more, "enable-chunked-prefill": False}
    assert batched_tokens(gpu, whole, 100_000) == 100_000


@pytest.mark.parametrize("told", [1, 10**12])
@pytest.mark.parametrize("length", range(1000, 30_000, 1777))
def test_the_size_of_the_cache_that_is_proposed_is_taken(length: int, told: int):
    for model in ({}, {"kv_heads": 2, "head_dim": 96}, {"layers": 61, "kv_lora_rank": 512}):
        facts, args = with_model(**model), {"max-model-len": length, "kv-cache-memory-bytes": told}
        finding = the("cache_bytes", said(facts, flavor="l4", args=args))
        again = said(facts, flavor="l4", args={**args, "kv-cache-memory-bytes": finding.value})
        assert {"cache_bytes", "memory"} & codes(again) == set()
        # And so is the most that is named.
        most = int(finding.remedy.split(" to ")[1].split()[0].replace(",", ""))
        again = said(facts, flavor="l4", args={**args, "kv-cache-memory-bytes": most})
        assert {"cache_bytes", "memory"} & codes(again) == set()


# GPUs that are shared by time


def test_on_a_gpu_shared_by_time_the_usual_share_is_a_warning():
    shared = dataclasses.replace(H100, product="NVIDIA-H100-80GB-HBM3-SHARED")
    facts = facts_of(flavors={"h100": shared})
    finding = the("utilization_whole", said(facts))
    assert (finding.field, finding.value, finding.severity) == ("gpu_memory_utilization", 0.4, Severity.WARNING)
    assert "0.92 of its memory" in finding.message
    assert "utilization_whole" not in codes(said(facts, args={"gpu-memory-utilization": 0.4}))
    assert "utilization_whole" not in codes(said(facts, args={"kv-cache-memory-bytes": 2**31}))
    assert "utilization_whole" not in codes(said())
    # Where the part would not hold the model, nobody is sent there.
    small = facts_of(flavors={"l4": dataclasses.replace(L4, product="NVIDIA-L4-SHARED")})
    finding = the("utilization_whole", said(small, flavor="l4"))
    assert (finding.value, "not shared" in finding.remedy) == (None, True)


@pytest.mark.parametrize("version", versions())
def test_what_is_made_for_other_chips_is_not_offered(version: str):
    choices = [choice for flag in flags_of(version).values() for choice in flag.choices]
    assert "fp8_e5m2" in choices
    assert not {"fp8_inc", "cpu_awq", "CPU_ATTN"} & set(choices)
    profile = EngineProfile("vllm", version, "vllm/vllm-openai@sha256:" + "0" * 64)
    engine = {"profile": "vllm", "args": {"max-model-len": 2048, "kv-cache-dtype": "fp8_inc"}}
    assert the("flag_choice", said(facts_of(profiles={"vllm": profile}), engine=engine)).is_error
