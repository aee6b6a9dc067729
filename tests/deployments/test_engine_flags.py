"""Flags of vLLM by version: every one classified, values checked, near misses answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.engine.flags import (
    FlagClass,
    check_args,
    classify,
    flags_of,
    gone_flags,
    guarded_args,
    versions,
)
from deployments.engine.profiles import seeded_profiles

VERSION = "0.32.0"
RECORDED = json.loads((Path(__file__).parents[1] / "data/engine/flags-0.32.0.json").read_text())["flags"]

# Reviewed by hand: these carry code, paths or text into the engine, and nobody may ever open them.
DANGEROUS = [
    "allowed-local-media-path",
    "tool-parser-plugin",
    "reasoning-parser-plugin",
    "middleware",
    "chat-template",
    "hf-overrides",
    "hf-config-path",
    "tokenizer",
    "code-revision",
    "model-loader-extra-config",
    "download-dir",
    "lora-modules",
    "kv-transfer-config",
    "config",
    "root-path",
    "allowed-origins",
    "api-key",
    "worker-cls",
    "worker-extension-cls",
    "scheduler-cls",
    "logits-processors",
    "speculative-config",
    "compilation-config",
    "additional-config",
    "otlp-traces-endpoint",
    "served-model-name",
    "model",
    "host",
    "port",
]


def recorded_names() -> set[str]:
    return {
        next(name for name in item["flags"] if name.startswith("--") and not name.startswith("--no-"))[2:]
        for item in RECORDED
    }


def test_every_flag_of_the_recorded_version_is_classified():
    assert set(flags_of(VERSION)) == recorded_names()
    assert {flag.cls for flag in flags_of(VERSION).values()} == set(FlagClass)


def test_only_numbers_switches_and_closed_choices_are_open():
    for flag in flags_of(VERSION).values():
        if flag.cls in {FlagClass.OPEN, FlagClass.GUARDED}:
            assert flag.kind in {"int", "float", "bool", "choice"}, flag.name
            assert flag.help, flag.name
        if flag.cls is FlagClass.OPEN and flag.kind in {"int", "float"}:
            assert flag.min is not None, flag.name
            assert flag.max is not None, flag.name


def test_choices_of_open_flags_are_those_the_parser_enforces():
    recorded = {name[2:]: item["choices"] for item in RECORDED for name in item["flags"] if name.startswith("--")}
    for flag in flags_of(VERSION).values():
        if flag.cls is FlagClass.OPEN and flag.kind == "choice":
            assert list(flag.choices) == recorded[flag.name]


@pytest.mark.parametrize("name", DANGEROUS)
def test_flags_that_carry_code_paths_or_text_are_closed(name: str):
    assert classify(VERSION, name) in {FlagClass.MANAGED, FlagClass.FORBIDDEN}
    assert [finding.is_error for finding in check_args(VERSION, {name: "x"})] == [True]


def test_an_unclassified_flag_is_forbidden():
    assert classify(VERSION, "flag-of-tomorrow") is FlagClass.FORBIDDEN


def test_code_of_the_model_needs_an_admin():
    assert guarded_args(VERSION, {"trust-remote-code": True, "seed": 1}) == ["trust-remote-code"]
    (finding,) = check_args(VERSION, {"trust-remote-code": True})
    assert not finding.is_error
    assert "approval of an admin" in finding.message


@pytest.mark.parametrize(
    ("name", "said", "instead"),
    [
        ("swap-space", "gone since vLLM 0.18.0", "kv-offloading-size"),
        ("use-v2-block-manager", "gone since vLLM 0.10.0", ""),
        ("enable-flash-attention", "is not a flag of vLLM", "attention-backend"),
        ("task", "gone since vLLM 0.13.0", "runner"),
        ("max-modle-len", "does not know", "max-model-len"),
        ("tensor-parallel", "does not know", "tensor-parallel-size"),
        ("qqqqqqqq", "does not know", ""),
    ],
)
def test_removed_and_misspelt_flags_are_answered_with_what_to_use(name: str, said: str, instead: str):
    (finding,) = check_args(VERSION, {name: 1})
    assert finding.is_error
    assert said in finding.message
    assert finding.instead == instead
    assert finding.pointer == f"/spec/engine/args/{name}"
    assert finding.remedy


def test_no_removed_flag_is_known_to_the_version_and_all_successors_are():
    known = flags_of(VERSION)
    for gone in gone_flags().values():
        assert gone.name not in known
        assert not gone.replacement or gone.replacement in known


@pytest.mark.parametrize(
    ("args", "code", "value"),
    [
        ({"max-model-len": 0}, "flag_range", 8192),
        ({"max-model-len": -5}, "flag_range", 8192),
        ({"max-model-len": 10**9}, "flag_range", 8192),
        ({"max-num-seqs": -3}, "flag_range", None),
        ({"max-num-seqs": 10**6}, "flag_range", 8192),
        ({"kv-cache-memory-bytes": 0}, "flag_range", None),
        ({"seed": -1}, "flag_range", 0),
        ({"max-model-len": 8192.5}, "flag_type", 8192),
        ({"max-model-len": True}, "flag_type", None),
        ({"max-model-len": "8k"}, "flag_type", None),
        ({"gpu-memory-utilization": 1.5}, "flag_range", 0.92),
        ({"gpu-memory-utilization": 0}, "flag_range", 0.92),
        ({"enforce-eager": 1}, "flag_type", None),
        ({"enforce-eager": "true"}, "flag_type", None),
        ({"dtype": "int8"}, "flag_choice", None),
        ({"dtype": "bflot16"}, "flag_choice", "bfloat16"),
        ({"dtype": 16}, "flag_choice", None),
        ({"quantization": "awqq"}, "flag_choice", "awq"),
    ],
)
def test_a_wrong_value_is_told_what_the_flag_takes(args: dict[str, object], code: str, value: object):
    (finding,) = check_args(VERSION, args)  # type: ignore[arg-type]
    assert (finding.code, finding.value) == (code, value)


def test_a_flag_that_vllm_decides_about_is_better_left_out():
    (finding,) = check_args(VERSION, {"max-num-seqs": -3})
    assert finding.remedy == "Leave it out: vLLM chooses by itself."


def test_what_the_caller_knows_is_proposed_where_the_flag_takes_it():
    args = {"max-model-len": -5, "tensor-parallel-size": 99}
    usual = {"max-model-len": 32768, "tensor-parallel-size": 64}
    assert [finding.value for finding in check_args(VERSION, args, usual)] == [32768, 1]


def test_right_values_have_nothing_to_complain_about():
    args = {
        "max-model-len": 16384,
        "gpu-memory-utilization": 0.9,
        "enable-prefix-caching": False,
        "dtype": "bfloat16",
        "tensor-parallel-size": 2,
        "kv-cache-dtype": "fp8",
    }
    assert check_args(VERSION, args) == []


def test_seeded_profiles_name_their_image_by_digest_and_a_known_version():
    for profile in seeded_profiles().values():
        assert profile.pinned
        assert profile.version in versions()
