"""Flags of vLLM by version: every one classified, values checked, near misses answered."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from deployments.engine.flags import (
    INSTEAD,
    FlagClass,
    check_args,
    classify,
    flags_of,
    gone_flags,
    guarded_args,
    release,
    versions,
)
from deployments.engine.profiles import seeded_profiles
from tests.deployments.test_engine_names import LISTED

VERSION = "0.32.0"
ROOT = Path(__file__).parents[2]
PARSERS = ROOT / "tests/data/engine/parsers"
OLDER = json.loads((ROOT / "tests/data/engine/older-flags.json").read_text())["versions"]

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


@pytest.fixture
def script() -> ModuleType:
    """`scripts/flag_files.py`, which is no package."""
    spec = importlib.util.spec_from_file_location("flag_files", ROOT / "scripts/flag_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_of(version: str) -> set[str]:
    """Every flag that the parser of this version takes, as it was recorded."""
    rows = json.loads((PARSERS / f"{version}.json").read_text())["flags"]
    longs = ([name for name in row["flags"] if name.startswith("--")] for row in rows)
    return {next(name for name in names if not name.startswith("--no-"))[2:] for names in longs}


def test_versions_are_in_order_of_their_numbers():
    assert set(versions()) == {path.stem for path in PARSERS.glob("*.json")}
    assert (versions()[0], versions()[-1]) == ("0.17.0", "0.33.0")
    assert {tuple(version.split(".")[:2]) for version in versions()} == {("0", str(minor)) for minor in range(17, 34)}
    assert sorted(versions(), key=release) == list(versions())
    assert release("0.9.2") < release("0.10.0") == release("0.10.0.post1")


@pytest.mark.parametrize("version", OLDER)
def test_flags_of_older_versions_are_classified_too(version: str):
    classes = json.loads((ROOT / "deployments/data/flag-classes.json").read_text())
    assert set(OLDER[version]) - {name for cls in FlagClass for name in classes[cls]} == set()


@pytest.mark.parametrize("version", versions())
def test_every_flag_of_every_version_is_classified(version: str):
    assert set(flags_of(version)) == names_of(version)
    assert {flag.cls for flag in flags_of(version).values()} == set(FlagClass)


def test_the_files_are_what_the_script_makes_of_parsers_and_classes(script: ModuleType):
    made = script.documents()
    assert set(made) == set(versions())
    for version, text in made.items():
        assert (ROOT / f"deployments/data/flags-vllm-{version}.json").read_text() == text


def test_a_flag_that_nobody_reviewed_stops_the_script(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    classes = json.loads((ROOT / "deployments/data/flag-classes.json").read_text())
    del classes["open"]["seed"]
    (tmp_path / "flag-classes.json").write_text(json.dumps(classes))
    monkeypatch.setattr(script, "DATA", tmp_path)
    with pytest.raises(script.UnclassifiedError, match="seed"):
        script.documents()


def test_a_flag_has_one_class_only():
    classes = json.loads((ROOT / "deployments/data/flag-classes.json").read_text())
    names = [name for cls in FlagClass for name in classes[cls.value]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("version", versions())
def test_only_numbers_switches_and_closed_choices_are_open(version: str):
    for flag in flags_of(version).values():
        if flag.cls in {FlagClass.OPEN, FlagClass.GUARDED}:
            assert flag.kind in {"int", "float", "bool", "choice"}, flag.name
            assert flag.choices or flag.kind != "choice", flag.name
            assert flag.help, flag.name
        if flag.cls is FlagClass.OPEN and flag.kind in {"int", "float"}:
            assert flag.min is not None, flag.name
            assert flag.max is not None, flag.name


def test_choices_of_open_flags_are_those_the_parser_enforces():
    # Parsers it looks up by name alone: which there are stands in the wheel (test_engine_names.py).
    by_name = {flag.name for flag in flags_of(VERSION).values() if flag.name in LISTED}
    assert {name for name in by_name if flags_of(VERSION)[name].cls is FlagClass.OPEN} == {
        "kv-cache-dtype",
        "tool-call-parser",
        "reasoning-parser",
    }
    rows = json.loads((PARSERS / f"{VERSION}.json").read_text())["flags"]
    recorded = {name[2:]: row["choices"] for row in rows for name in row["flags"] if name.startswith("--")}
    for flag in flags_of(VERSION).values():
        if flag.cls is FlagClass.OPEN and flag.kind == "choice" and flag.name not in by_name:
            # Gaudi's number format alone is left out.
            assert list(flag.choices) == [choice for choice in recorded[flag.name] if choice != "fp8_inc"]


def test_defaults_follow_the_version():
    assert [flags_of(version)["gpu-memory-utilization"].default for version in ("0.19.0", "0.20.0")] == [0.9, 0.92]


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


@pytest.mark.parametrize("version", versions())
def test_what_vllm_does_anyway_needs_no_admin(version: str):
    """Of every guarded flag; another value of it, of the same kind, still does."""
    defaults = {
        flag.name: flag.default
        for flag in flags_of(version).values()
        if flag.cls is FlagClass.GUARDED and flag.default not in (None, "")
    }
    other = {"bool": True, "int": 7, "float": 7.5, "choice": "none"}
    assert (defaults["trust-remote-code"], defaults["load-format"]) == (False, "auto")
    assert guarded_args(version, defaults) == []
    assert check_args(version, defaults) == []
    changed = {name: other[flags_of(version)[name].kind] for name in defaults}
    assert guarded_args(version, changed) == sorted(defaults)


def test_a_switch_is_no_number_beside_its_default():
    """To Python false is 0: where preflight was left out, an admin still sees what is no switch."""
    assert guarded_args(VERSION, {"trust-remote-code": 0}) == ["trust-remote-code"]
    assert guarded_args(VERSION, {"cpu-offload-gb": False}) == ["cpu-offload-gb"]
    assert guarded_args(VERSION, {"kv-cache-memory-bytes": 0, "attention-backend": "FLASHINFER"}) == [
        "attention-backend",
        "kv-cache-memory-bytes",
    ]


@pytest.mark.parametrize(
    ("name", "said", "instead"),
    [
        ("swap-space", "gone since vLLM 0.18.0", "kv-offloading-size"),
        ("use-v2-block-manager", "gone since vLLM 0.10.0", ""),
        ("enable-flash-attention", "is not a flag of vLLM", "attention-backend"),
        ("task", "gone since vLLM 0.13.0", "runner"),
        ("max-modle-len", "does not know", "max-model-len"),
        ("tensor-parallel", "does not know", "tensor-parallel-size"),
        ("speculative-model", "gone since vLLM 0.8.5", "spec-method"),
        ("num-speculative-tokens", "gone since vLLM 0.8.5", "spec-tokens"),
        ("ngram-prompt-lookup-max", "gone since vLLM 0.8.5", "spec-method"),
        ("speculative-config", "cannot be set here", "spec-method"),
        ("spec-model", "cannot be set here", "spec-method"),
        ("dp", "is not a flag of vLLM", "data-parallel-size"),
        ("dcp", "is not a flag of vLLM", "decode-context-parallel-size"),
        ("ep", "is not a flag of vLLM", "enable-expert-parallel"),
        ("q", "is not a flag of vLLM", "quantization"),
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


@pytest.mark.parametrize(
    ("version", "name", "code", "instead"),
    [
        ("0.17.0", "swap-space", "flag_forbidden", "kv-offloading-size"),
        ("0.18.0", "swap-space", "flag_removed", "kv-offloading-size"),
        ("0.17.0", "use-v2-block-manager", "flag_removed", ""),
        ("0.17.0", "enable-flash-attention", "flag_removed", "attention-backend"),
        ("0.18.0", "disable-frontend-multiprocessing", "flag_forbidden", ""),
        ("0.19.0", "disable-frontend-multiprocessing", "flag_removed", ""),
        ("0.20.0", "max-num-queued-reqs", "flag_newer", ""),
        ("0.20.0", "spec-method", "flag_newer", ""),
        ("0.20.0", "no-enable-prefix-caching", "flag_negative", "enable-prefix-caching"),
    ],
)
def test_what_is_said_of_a_flag_follows_the_version(version: str, name: str, code: str, instead: str):
    (finding,) = check_args(version, {name: 1})
    assert (finding.code, finding.instead, finding.is_error) == (code, instead, True)
    assert finding.remedy


def test_a_flag_of_a_newer_version_names_that_version():
    (finding,) = check_args("0.17.0", {"watermark": 0.1})
    assert "0.24.0 or newer" in finding.remedy


def test_a_number_of_a_closed_list_is_held_to_it():
    (finding,) = check_args("0.17.0", {"block-size": 24})
    assert (finding.code, finding.value) == ("flag_choice", 16)
    assert check_args("0.17.0", {"block-size": 32}) == []


@pytest.mark.parametrize("version", versions())
def test_no_removed_flag_is_known_to_the_version_and_all_successors_are(version: str):
    known = flags_of(version)
    for gone in gone_flags().values():
        if not gone.gone_by or release(gone.gone_by) <= release(version):
            assert gone.name not in known
            assert not gone.replacement or gone.replacement in known or gone.replacement in flags_of(VERSION)


def test_what_is_proposed_instead_can_be_set():
    settable = {FlagClass.OPEN, FlagClass.GUARDED}
    proposed = {gone.replacement for gone in gone_flags().values() if gone.replacement} | set(INSTEAD.values())
    assert {name for name in proposed if classify(VERSION, name) not in settable} == set()
    assert {name for name in INSTEAD if any(classify(version, name) in settable for version in versions())} == set()


def test_a_successor_that_is_not_there_yet_is_named_with_its_version():
    (finding,) = check_args("0.20.0", {"speculative-model": "x"})
    assert (finding.instead, finding.remedy) == (
        "",
        "Leave it out, or use spec-method on an engine of vLLM 0.22.0 or newer.",
    )


@pytest.mark.parametrize("version", versions())
def test_no_forbidden_flag_is_said_to_come_with_an_engine_profile(version: str):
    forbidden = [flag for flag in flags_of(version).values() if flag.cls is FlagClass.FORBIDDEN]
    for flag in forbidden:
        (finding,) = check_args(version, {flag.name: 1})
        assert (finding.code, finding.is_error) == ("flag_forbidden", True)
        assert "cannot be set here, not by an admin either." in finding.message
        assert finding.remedy == (f"Remove it. {finding.instead} can be set." if finding.instead else "Remove it.")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("lora-modules", "Name adapters in the wish itself, as adapters."),
        ("revision", "Name the revision with the source."),
        ("nnodes", "Set how many nodes a replica spans as nodes."),
        ("data-parallel-rank", "Set data-parallel-size alone."),
        ("port", "Remove it."),
    ],
)
def test_what_slipway_sets_is_told_where_the_wish_says_it(name: str, remedy: str):
    assert [finding.remedy for finding in check_args(VERSION, {name: 1})] == [remedy]


@pytest.mark.parametrize(
    ("args", "value", "remedy"),
    [
        ({"max-model-len": "auto"}, 8192, "Use 8,192: what the engine would choose cannot be checked before."),
        ({"gpu-memory-utilization": "auto"}, 0.92, "Use 0.92: what the engine would choose cannot be checked before."),
        ({"max-num-seqs": "auto"}, None, "Leave it out: vLLM chooses by itself."),
        ({"max-model-len": "long"}, None, "Use 8,192, for example."),
    ],
)
def test_a_word_in_place_of_a_number_is_told_what_to_write(args: dict[str, str], value: object, remedy: str):
    (finding,) = check_args(VERSION, args)  # type: ignore[arg-type]
    assert (finding.code, finding.value, finding.remedy) == ("flag_type", value, remedy)


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
        ({"max-model-len": "8k"}, "flag_type", 8192),
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
    assert [finding.value for finding in check_args(VERSION, args, lambda: usual)] == [32768, 1]


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


@pytest.mark.parametrize(
    ("typed", "said"), [("32k", 32_768), ("8K", 8_192), ("1M", 1_048_576), ("k", None), ("3x", None)]
)
def test_an_abbreviated_number_is_written_out(typed: str, said: int | None):
    (finding,) = check_args("0.32.0", {"max-model-len": typed})
    assert (finding.code, finding.value, finding.is_error) == ("flag_type", said, True)
    assert ("Write it out" in finding.remedy) == (said is not None)
