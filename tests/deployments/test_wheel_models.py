"""`scripts/wheel_models.py`: the models of a release, read from the source of two wheels."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
REGISTRY = """
_TEXT = {"OneForCausalLM": ("one", "One")}
_WRAPPED: dict = {"TransformersForCausalLM": ("transformers", "T")}
_UNUSED = {"NoForCausalLM": ("no", "No")}
_VLLM_MODELS = {**_TEXT, **_WRAPPED}
_PREVIOUSLY_SUPPORTED_MODELS = {"OldForCausalLM": "0.9.0"}
"""
CONFIG = """
_CONFIG_REGISTRY: dict[str, type] = LazyConfigDict(one="OddConfig", **{"one-b": "OneConfig"})
"""
MODEL = '_SUFFIX_TO_DEFAULTS: list = [("ForCausalLM", ("generate", "none")), ("Model", ("pooling", "embed"))]\n'
MODELS_CONFIG = """
class Looks:
    @staticmethod
    def verify(model_config):
        config = model_config.hf_config
        config.is_causal = False
class May(Looks):
    @staticmethod
    def verify(model_config):
        if model_config.decoder:
            return
        model_config.hf_config.is_causal = False
MODELS_CONFIG_MAP: dict[str, type] = {"LooksModel": Looks, "MayModel": May}
"""
TOKENIZERS = """
TOKENIZER_MAPPING_NAMES = OrderedDict[str, str | None](
    [("odd", "OddTokenizer" if is_tokenizers_available() else None), ("two", (None, "TwoTokenizerFast"))]
)
MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS: set[str] = {"wrong"}
"""
BASE = """
class DecoratedModel(PreTrainedModel):
    _supports_attention_backend = True
class DecoratedForCausalLM(DecoratedModel, GenerationMixin): ...
class DecoratedOff(DecoratedModel):
    _supports_attention_backend: bool = False
class DecoratedAttention(nn.Module): ...
__all__ = ["DecoratedModel", "DecoratedForCausalLM", "DecoratedOff", "DecoratedAttention"]
"""
SAYS_NOTHING = """
class PlainAttention(nn.Module):
    {call}
class PlainForCausalLM(base.PreTrainedModel): ...
__all__ = ["PlainForCausalLM"]
"""


@pytest.fixture
def script() -> ModuleType:
    """`scripts/wheel_models.py`, which is no package."""
    spec = importlib.util.spec_from_file_location("wheel_models", ROOT / "scripts/wheel_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def made(script: ModuleType, folder: Path, *, call: str, looks: bool) -> dict[str, Any]:
    vllm = written(
        folder / "vllm",
        {
            "vllm/_version.py": "__version__ = version = '9.8.7'\n",
            "vllm/model_executor/models/registry.py": REGISTRY + ("# _can_set_attn_implementation\n" if looks else ""),
            "vllm/model_executor/models/config.py": MODELS_CONFIG,
            "vllm/transformers_utils/config.py": CONFIG,
            "vllm/config/model.py": MODEL,
            "vllm/config/speculative.py": "ParallelConfig(pipeline_parallel_size=1, tensor_parallel_size=size)\n",
        },
    )
    transformers = written(
        folder / "transformers",
        {
            "transformers-5.4.3.dist-info/METADATA": "",
            "transformers/models/auto/auto_mappings.py": 'CONFIG_MAPPING_NAMES = OrderedDict([("llama", "L")])\n',
            "transformers/models/auto/configuration_auto.py": 'CONFIG_MAPPING_NAMES.update({"odd": "OddConfig"})\n'
            'CONFIG_MAPPING_NAMES = OrderedDict(**{"gpt-sw3": "G"}, **CONFIG_MAPPING_NAMES)\nOTHER = {"no": "No"}\n',
            "transformers/models/a/modeling_a.py": BASE,
            "transformers/models/auto/tokenization_auto.py": TOKENIZERS,
            "transformers/models/a/tokenization_a.py": '__all__ = ["ATokenizer", "AConverter"]\n',
            "transformers/models/b/modeling_b.py": SAYS_NOTHING.format(call=call),
            "transformers/models/b/modeling_tf_b.py": "class TFPlain(PreTrainedModel): ...\n__all__ = ['TFPlain']\n",
        },
    )
    found: dict[str, Any] = script.document_of(vllm, transformers)
    return found


def test_the_models_of_a_release_are_read_from_its_tables(script: ModuleType, tmp_path: Path):
    found = made(script, tmp_path, call="pass", looks=False)
    assert (found["vllm"], found["transformers"]) == ("9.8.7", "5.4.3")
    assert found["architectures"] == ["OneForCausalLM", "TransformersForCausalLM"]
    assert (found["gone"], found["plugins"], found["by_architecture"]) == ({"OldForCausalLM": "0.9.0"}, {}, {})
    assert found["model_types"] == ["gpt-sw3", "llama", "odd", "one", "one-b"]
    assert found["suffixes"] == ["ForCausalLM", "Model"]
    built_in = ["PreTrainedTokenizer", "PreTrainedTokenizerFast"]
    assert found["tokenizers"] == ["ATokenizer", "OddTokenizer", *built_in, "TwoTokenizerFast"]
    # vLLM's own type whose configuration has the name of one of transformers.
    assert found["tokenizer_types"] == ["odd", "one", "two", "wrong"]
    assert found["tokenizer_instead"] is False
    assert found["drafts_cut"] is False
    assert json.loads(script.text_of(found)) == found


@pytest.mark.parametrize(
    ("call", "looks", "runs"),
    [
        ("pass", False, False),
        ("pass", True, False),
        ("f = ALL_ATTENTION_FUNCTIONS.get_interface(x)", False, False),
        ("f = ALL_ATTENTION_FUNCTIONS.get_interface(x)", True, True),
    ],
)
def test_a_class_runs_where_its_attention_can_be_exchanged(
    script: ModuleType, tmp_path: Path, call: str, looks: bool, runs: bool
):
    found = made(script, tmp_path, call=call, looks=looks)
    assert {"DecoratedModel", "DecoratedForCausalLM"} <= set(found["runs"])
    assert ("PlainForCausalLM" in found["runs"]) is runs
    assert ("PlainForCausalLM" in found["refuses"]) is not runs
    # A file whose own attention is no interface says nothing against a class that says it can.
    assert "DecoratedOff" in found["refuses"]
    assert not {"DecoratedAttention", "TFPlain"} & {*found["runs"], *found["refuses"]}


def test_architectures_without_stages_or_adapters_are_named(script: ModuleType, tmp_path: Path):
    written(
        tmp_path / "vllm/vllm/model_executor/models",
        {
            "interfaces.py": "class SupportsPP: ...\nclass SupportsLoRA: ...\n",
            "one.py": "from .interfaces import SupportsPP\nclass One(SupportsPP):\n  def forward(self, **rest): ...\n",
        },
    )
    found = made(script, tmp_path, call="pass", looks=False)
    assert (found["whole"], found["plain"]) == ([], ["OneForCausalLM"])
    # Its module is not in the wheel.
    assert found["maybe_whole"] == found["maybe_plain"] == ["TransformersForCausalLM"]


@pytest.mark.parametrize(
    ("body", "undivided"),
    [
        ("@default_pooling_type(seq_pooling_type='CLS')\nclass One: ...\n", True),
        ("@default_pooling_type(seq_pooling_type='MEAN', tok_pooling_type='ALL')\nclass One: ...\n", True),
        ("@default_pooling_type(tok_pooling_type='ALL')\nclass One: ...\n", False),
        ("@attn_type('encoder_only')\n@default_pooling_type(tok_pooling_type='ALL')\nclass One: ...\n", True),
        ("class One:\n  attn_type = 'encoder_only'\n", True),
        ("class One:\n  default_seq_pooling_type: str = 'LAST'\n", False),
        # What is said nearest counts.
        ("@default_pooling_type(seq_pooling_type='CLS')\nclass Base: ...\nclass One(Base): ...\n", True),
        (
            "@default_pooling_type(seq_pooling_type='CLS')\nclass Base: ...\n"
            "@default_pooling_type(seq_pooling_type='LAST')\nclass One(Base): ...\n",
            False,
        ),
    ],
)
def test_models_that_read_a_prompt_whole_are_told_by_how_they_pool(
    script: ModuleType, tmp_path: Path, body: str, undivided: bool
):
    written(tmp_path / "vllm/vllm/model_executor/models", {"one.py": body})
    found = made(script, tmp_path, call="pass", looks=False)
    # And the one whose configuration is always changed, not the one where that depends.
    assert found["undivided"] == ["LooksModel", *(["OneForCausalLM"] if undivided else [])]
