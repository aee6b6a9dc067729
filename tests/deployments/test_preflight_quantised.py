"""Rules about quantisation: each method with the formats, weights and caches that vLLM takes with it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from deployments.engine.flags import flags_of, versions
from deployments.engine.profiles import DATA, EngineProfile
from deployments.engine.quantization import Scales, Weights, method, method_of
from deployments.findings import Finding, Severity
from deployments.preflight import Facts
from deployments.sources.huggingface import model_facts
from tests.deployments.preflighting import codes, said, the
from tests.deployments.wishes import LLAMA, facts_of

NEWEST = versions()[-1]
METHODS = json.loads((DATA / "quantization.json").read_text())["methods"]
OFFERED = {version: flags_of(version)["quantization"].choices for version in versions()}


def quantised(method: str | None, version: str = NEWEST, **changes: Any) -> Facts:
    profile = EngineProfile("vllm", version, "vllm/vllm-openai@sha256:" + "0" * 64)
    shape = {"quantization": method, "architecture": "LlamaForCausalLM", **changes}
    return facts_of(model=dataclasses.replace(LLAMA, **shape), profiles={"vllm": profile})


def asked(facts: Facts, flavor: str = "h100", **args: Any) -> list[Finding]:
    flags = {"max-model-len": 2048, **{name.replace("_", "-"): value for name, value in args.items()}}
    return said(facts, flavor=flavor, engine={"profile": "vllm", "args": flags})


# The table


@pytest.mark.parametrize("version", versions())
def test_every_method_that_the_form_offers_is_classed(version: str):
    assert sorted(set(OFFERED[version]) - set(METHODS)) == []


def test_every_method_of_the_table_is_offered_by_some_version():
    assert sorted(set(METHODS) - {name for names in OFFERED.values() for name in names}) == []
    for name in METHODS:
        for version in versions():
            found = method(version, name)
            assert found is not None
            assert set(found.dtypes) <= {"bfloat16", "float16", "float32"}
            assert found.dtypes


def test_what_differs_between_versions_follows_the_version():
    for version, dtypes, capability, weights in (
        ("0.20.0", ("float16",), 8.9, Weights.STORED),
        ("0.32.0", ("float16", "bfloat16"), 8.0, Weights.ONLINE),
    ):
        awq, modelopt, mxfp4 = method(version, "awq"), method(version, "modelopt"), method(version, "mxfp4")
        assert awq is not None
        assert modelopt is not None
        assert mxfp4 is not None
        assert (awq.dtypes, modelopt.capability, mxfp4.weights) == (dtypes, capability, weights)


def test_marlin_is_taken_where_the_gpu_has_it_and_the_flag_names_nothing_else():
    for name, own, capability, dtypes in (
        (None, "awq", 8.9, ("float16", "bfloat16")),
        ("awq", "awq", 8.9, ("float16",)),
        (None, "gptq", 6.1, ("float16",)),
    ):
        found = method_of("0.20.0", name, own, capability)
        assert found is not None
        assert found.dtypes == dtypes
    assert method_of("0.20.0", None, None, 9.0) is None
    assert method_of("0.20.0", None, "of somebody's own", 9.0) is None


# Number formats


@pytest.mark.parametrize(
    ("own", "args", "version", "value"),
    [
        ("mxfp4", {"dtype": "half"}, NEWEST, "bfloat16"),
        ("fp8", {"dtype": "float32"}, NEWEST, "bfloat16"),
        ("awq", {"dtype": "float32"}, NEWEST, "bfloat16"),
        ("modelopt_mxfp8", {"dtype": "float16"}, NEWEST, "bfloat16"),
        ("gptq", {"dtype": "bfloat16", "quantization": "gptq"}, "0.20.0", "half"),
        ("awq", {"dtype": "bfloat16", "quantization": "awq"}, "0.20.0", "half"),
        # Left to itself the engine takes the model's own, and is refused in it.
        ("awq", {"quantization": "awq"}, "0.20.0", "half"),
    ],
)
def test_a_format_that_the_method_does_not_compute_in_is_refused(
    own: str, args: dict[str, Any], version: str, value: str
):
    facts = quantised(own, version)
    finding = the("dtype_quantised", asked(facts, **args))
    assert (finding.field, finding.value, finding.is_error) == ("dtype", value, True)
    assert [item.code for item in asked(facts, **{**args, "dtype": finding.value}) if item.is_error] == []


@pytest.mark.parametrize(
    ("own", "args", "version"),
    [
        ("awq", {"dtype": "bfloat16"}, "0.20.0"),
        ("awq", {"dtype": "bfloat16", "quantization": "awq"}, "0.32.0"),
        ("compressed-tensors", {"dtype": "float32"}, NEWEST),
        ("mxfp4", {}, NEWEST),
        (None, {"quantization": "mxfp4", "dtype": "half"}, "0.32.0"),
        (None, {"dtype": "float32"}, NEWEST),
    ],
)
def test_a_format_that_it_computes_in_is_not(own: str | None, args: dict[str, Any], version: str):
    assert "dtype_quantised" not in codes(asked(quantised(own, version), **args))


def test_where_gpu_family_and_method_have_no_format_in_common_none_is_proposed():
    gemma = quantised("awq", architecture="Gemma3ForCausalLM", weights_bytes=6 << 30)
    finding = the("dtype_quantised", asked(gemma, flavor="t4"))
    assert (finding.value, "8.0 or more" in finding.remedy) == (None, True)
    assert "dtype_falls_back" not in codes(asked(gemma, flavor="t4"))
    assert the("dtype_bfloat16", asked(gemma, flavor="t4", dtype="bfloat16")).value is None
    assert the("dtype_half", asked(gemma, flavor="t4", dtype="half")).value is None
    assert the("dtype_half", asked(gemma, dtype="half")).value == "bfloat16"


# What weights it reads


@pytest.mark.parametrize(("version", "name"), [(version, name) for version, names in OFFERED.items() for name in names])
def test_on_weights_that_are_not_quantised_a_method_quantises_or_is_refused(version: str, name: str):
    found = method(version, name, stored=False)
    assert found is not None
    refused = {item.code for item in asked(quantised(None, version), quantization=name) if item.is_error}
    expected = {
        Weights.STORED: {"quantization_absent"},
        Weights.CONFIGURED: {"quantization_configured"},
        Weights.ONLINE: set(),
    }[found.weights]
    assert refused - {"quantization_gpu", "quantization_deprecated"} == expected


def test_methods_that_read_stored_scales_are_these():
    stored = {name for name in OFFERED["0.32.0"] if (found := method("0.32.0", name)) and found.weights == "stored"}
    assert stored >= {
        *("modelopt", "modelopt_fp4", "quark", "torchao", "gpt_oss_mxfp4", "deepseek_v4_fp8", "moe_wna16"),
        *("awq", "gptq_marlin", "compressed-tensors", "inc"),
    }


@pytest.mark.parametrize(
    ("own", "name", "architecture", "refused"),
    [
        ("awq", "moe_wna16", "MixtralForCausalLM", False),
        ("fp8", "moe_wna16", "MixtralForCausalLM", True),
        ("fp8", "humming", "LlamaForCausalLM", False),
        ("mxfp4", "humming", "GptOssForCausalLM", True),
        ("fp8", "deepseek_v4_fp8", "DeepseekV4ForCausalLM", False),
        ("fp8", "deepseek_v4_fp8", "LlamaForCausalLM", True),
        ("modelopt_fp4", "modelopt", "LlamaForCausalLM", False),
        ("auto-round", "inc", "LlamaForCausalLM", False),
    ],
)
def test_a_method_may_read_what_another_stored(own: str, name: str, architecture: str, refused: bool):
    found = asked(quantised(own, architecture=architecture), quantization=name)
    assert ("quantization_mismatch" in codes(found)) is refused


@pytest.mark.parametrize(("version", "refused"), [("0.19.0", True), ("0.20.0", False)])
def test_what_a_version_gives_up_is_refused(version: str, refused: bool):
    found = asked(quantised(None, version, experts=8, expert_intermediate=1024), quantization="experts_int8")
    assert ("quantization_deprecated" in codes(found)) is refused
    finding = the("quantization_deprecated", asked(quantised("fbgemm_fp8", version)))
    assert (finding.field, finding.is_error) == ("source_uri", True)


@pytest.mark.parametrize(
    ("section", "method", "flavor", "version", "refused"),
    [
        ({"quant_algo": "NVFP4"}, "modelopt_fp4", "a100", "0.20.0", False),
        ({"quantization": {"quant_algo": "W4A8_NVFP4_FP8"}}, "modelopt_fp4", "a100", "0.20.0", False),
        ({"quant_algo": "MXFP8"}, "modelopt_mxfp8", "a100", "0.19.0", True),
        ({"quant_algo": "MIXED_PRECISION"}, "modelopt_mixed", "a100", "0.20.0", True),
        ({"quant_algo": "FP8"}, "modelopt", "a100", "0.20.0", True),
        ({"quant_algo": "FP8"}, "modelopt", "a100", "0.32.0", False),
        ({}, "modelopt", "a100", "0.20.0", True),
    ],
)
def test_the_algorithm_says_which_of_modelopts_formats_it_is(
    section: dict[str, Any], method: str, flavor: str, version: str, refused: bool
):
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "modelopt", **section}}
    assert model_facts("org/model", {}, config).quantization == method
    found = asked(quantised(method, version, weights_bytes=6 << 30), flavor=flavor)
    assert ("quantization_gpu" in codes(found)) is refused


# The cache beside it


@pytest.mark.parametrize("own", ["fp8", "modelopt", "modelopt_fp4", "quark"])
def test_a_cache_in_e5m2_beside_scales_of_the_model_is_refused(own: str):
    finding = the("cache_e5m2", asked(quantised(own), kv_cache_dtype="fp8_e5m2"))
    assert (finding.field, finding.value, finding.is_error) == ("kv_cache_dtype", "fp8", True)
    assert "cache_e5m2" not in codes(asked(quantised(own), kv_cache_dtype="fp8"))


def test_a_cache_in_e5m2_beside_weights_without_scales_is_not():
    for facts, args in (
        (quantised(None), {}),
        (quantised("awq"), {}),
        (quantised(None, "0.32.0"), {"quantization": "fp8"}),
        (quantised("compressed-tensors", "0.32.0"), {}),
    ):
        assert "cache_e5m2" not in codes(asked(facts, kv_cache_dtype="fp8_e5m2", **args))
    for facts, args in (
        (quantised(None, "0.20.0"), {"quantization": "fp8"}),
        (quantised("compressed-tensors", "0.20.0"), {}),
        (quantised(None, kv_lora_rank=512), {}),
    ):
        assert "cache_e5m2" in codes(asked(facts, kv_cache_dtype="fp8_e5m2", **args))
    declared = method("0.32.0", "compressed-tensors")
    assert declared is not None
    assert declared.scales is Scales.DECLARED
    unsure = asked(quantised("compressed-tensors", "0.32.0"), kv_cache_dtype="fp8_e5m2")
    assert the("cache_e5m2_scales", unsure).severity is Severity.WARNING
