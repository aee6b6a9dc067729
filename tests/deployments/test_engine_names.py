"""Names that flags take: those of the release at hand, as its wheel has them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from deployments.engine.flags import check_args, flags_of, versions

ROOT = Path(__file__).parents[2]
RECORDED = json.loads((ROOT / "tests/data/engine/names-by-version.json").read_text())["versions"]
CLASSES = json.loads((ROOT / "deployments/data/flag-classes.json").read_text())
LISTED = {
    name: (row["list"], row.get("choices"))
    for cls in ("open", "guarded")
    for name, row in CLASSES[cls].items()
    if isinstance(row, dict) and "list" in row
}
# Made for other chips than NVIDIA's.
ELSEWHERE = ("ROCM", "XPU", "CPU", "AMX", "CUSTOM", "cpu_", "fp8_inc")


@pytest.fixture
def script() -> ModuleType:
    """`scripts/wheel_names.py`, which is no package."""
    spec = importlib.util.spec_from_file_location("wheel_names", ROOT / "scripts/wheel_names.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def codes(version: str, flag: str, value: str) -> list[str]:
    """What is said of one flag, but that an admin has to approve it."""
    return [found.code for found in check_args(version, {flag: value}) if found.code != "flag_guarded"]


def test_the_lists_of_every_version_are_known():
    assert set(RECORDED) == set(versions())
    assert {name for name, _ in LISTED.values()} == set(RECORDED["0.32.0"])
    assert set(LISTED) == {
        "attention-backend",
        "kv-cache-dtype",
        "load-format",
        "quantization",
        "reasoning-parser",
        "tool-call-parser",
    }


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("flag", sorted(LISTED))
def test_a_flag_takes_what_the_release_has_and_nothing_that_only_others_have(flag: str, version: str):
    key, narrowed = LISTED[flag]
    own = {name for name in RECORDED[version][key] if not name.startswith(ELSEWHERE)}
    own &= set(narrowed or own)
    assert set(flags_of(version)[flag].choices) == own
    assert {code for name in own for code in codes(version, flag, name)} == set()
    others = {name for names in RECORDED.values() for name in names[key]} - own
    assert {tuple(codes(version, flag, name)) for name in others} <= {("flag_choice",)}


@pytest.mark.parametrize(
    ("flag", "name", "taken"),
    [
        ("tool-call-parser", "hermes", range(17, 34)),
        ("tool-call-parser", "granite4", range(18, 34)),
        ("tool-call-parser", "gemma4", range(19, 34)),
        ("tool-call-parser", "deepseek_v4", range(20, 34)),
        ("tool-call-parser", "kimi_k3", range(27, 34)),
        ("tool-call-parser", "qwen3_json", range(32, 34)),
        ("tool-call-parser", "minimax", range(17, 24)),
        ("reasoning-parser", "qwen3", range(17, 34)),
        ("reasoning-parser", "hy_v3", range(20, 34)),
        ("reasoning-parser", "glm47", range(24, 34)),
        ("attention-backend", "TREE_ATTN", range(17, 21)),
        ("attention-backend", "TURBOQUANT", range(20, 34)),
        ("attention-backend", "FLASH_ATTN_MLA_SPARSE", range(25, 34)),
        ("attention-backend", "CPU_ATTN", range(0)),
        ("attention-backend", "AMX_MLA", range(0)),
        ("quantization", "mxfp8", range(19, 34)),
        ("quantization", "ptpc_fp8", range(17, 19)),
        ("quantization", "humming", range(20, 34)),
        ("load-format", "runai_streamer", range(17, 34)),
        ("load-format", "dummy", range(0)),
    ],
)
def test_which_versions_take_a_name(flag: str, name: str, taken: range):
    of_minors = [version for version in versions() if int(version.split(".")[1]) in taken]
    assert [version for version in versions() if codes(version, flag, name) == []] == of_minors


def test_a_name_may_come_with_a_patch_release():
    assert codes("0.17.0", "reasoning-parser", "nemotron_v3") == ["flag_choice"]
    assert codes("0.17.1", "reasoning-parser", "nemotron_v3") == []


@pytest.mark.parametrize(
    ("version", "flag", "name", "value", "remedy"),
    [
        ("0.32.0", "tool-call-parser", "minimax", "minimax_m3", "An engine of vLLM 0.23.0 takes “minimax”."),
        ("0.20.0", "tool-call-parser", "kimi_k3", "kimi_k2", "An engine of vLLM 0.27.0 takes “kimi_k3”."),
        ("0.17.0", "reasoning-parser", "gemma4", None, "An engine of vLLM 0.19.0 takes “gemma4”."),
        ("0.17.0", "tool-call-parser", "qwen3_json", "qwen3_coder", "An engine of vLLM 0.32.0 takes “qwen3_json”."),
        ("0.32.0", "tool-call-parser", "qwen3_jsn", "qwen3_json", "Did you mean “qwen3_json”?"),
        ("0.32.0", "load-format", "dumy", None, ""),
    ],
)
def test_what_is_proposed_for_a_name_is_in_the_list_of_the_version(
    version: str, flag: str, name: str, value: str | None, remedy: str
):
    (found,) = check_args(version, {flag: name})
    assert (found.code, found.value) == ("flag_choice", value)
    assert value is None or value in flags_of(version)[flag].choices
    assert remedy in found.remedy


def test_names_are_read_from_the_source_of_a_release_in_each_form_it_has(script: ModuleType, tmp_path: Path):
    source = tmp_path / "vllm"
    for path, name in script.LISTS.values():
        file = source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'{name} = {{\n    "b": ("file", "Class"),  # why\n    "a": 1,\n}}\n')
    (source / "_version.py").write_text("__version__ = version = '1.2.3'\n")
    (source / script.LISTS["load_formats"][0]).write_text('LoadFormats = Literal["auto", "hf"]\n')
    enum = 'class AttentionBackendEnum(Enum, metaclass=M):\n    """Docs."""\n    TWO = ""\n    ONE = None\n'
    (source / script.LISTS["attention_backends"][0]).write_text(enum)

    assert script.version_of(tmp_path) == "1.2.3"
    assert script.lists_of(tmp_path) == {
        "attention_backends": ["ONE", "TWO"],
        "kv_cache_dtypes": ["a", "b"],
        "load_formats": ["auto", "hf"],
        "quantization_methods": ["a", "b"],
        "reasoning_parsers": ["a", "b"],
        "tool_call_parsers": ["a", "b"],
    }


def test_a_release_whose_source_is_laid_out_otherwise_stops_the_script(script: ModuleType, tmp_path: Path):
    file = tmp_path / "names.py"
    file.write_text("OTHER = {}\nNAMES = sorted(found())\n")
    with pytest.raises(LookupError, match="has no MISSING"):
        list(script.words(file, "MISSING"))
    with pytest.raises(LookupError, match="cannot be read"):
        list(script.words(file, "NAMES"))


def test_the_recorded_names_are_written_as_the_script_writes_them(script: ModuleType):
    assert script.document(RECORDED) == script.NAMES.read_text()
