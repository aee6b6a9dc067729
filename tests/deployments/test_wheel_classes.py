"""`scripts/wheel_classes.py`: what classes of a wheel descend from, across modules and conditions, read from source."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
MODELS = "vllm/model_executor/models"
INTERFACES = """
from typing import ClassVar, Protocol
class SupportsLoRA(Protocol):
    supports_lora: ClassVar[bool] = True
class SupportsPP(Protocol):
    supports_pp: ClassVar[bool] = True
    def forward(self, input_ids, positions, *, intermediate_tensors): ...
class SupportsQuant:
    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)
"""
BASE = """
import torch.nn as nn
from torch import nn as layers
from . import interfaces
from .interfaces import SupportsLoRA, SupportsPP as Stages, SupportsQuant

class Both(nn.Module, SupportsLoRA, Stages, SupportsQuant):
    def forward(self, ids, positions, intermediate_tensors=None): ...
class ByAttribute(layers.Module, interfaces.SupportsPP):
    def forward(self, ids, **kwargs): ...
class Neither(nn.Module):
    def forward(self, ids, positions): ...
class Inherits(Neither, Both): ...
class DropsTheTensors(Both):
    def forward(self, ids, positions): ...
class WithoutForward(nn.Module, Stages): ...
class SaysSo(nn.Module):
    supports_pp = True
    supports_lora = True
    make_empty_intermediate_tensors = None
    def forward(self, ids, intermediate_tensors): ...
class Others(Both):
    def __new__(cls, config):
        return Neither(config)
class Odd(make_base(), nn.Module): ...
class Foreign(transformers_model.Thing, Stages): ...
from transformers import thing as transformers_model
"""
FAMILY = """
from vllm.platforms import current_platform
from .adapters import as_embedding_model
from .base import Both, Neither
Alias = Both
Embeds = as_embedding_model(Alias)
class OfCall(Embeds): ...
if current_platform.is_rocm():
    Here = Neither
elif current_platform.is_cuda():
    Here = Both
else:
    Here = Neither
if compiled():
    Either = Both
else:
    Either = Neither
try:
    from .gone import Tried
except ImportError:
    Tried = Both
"""
LAZY = """
from typing import TYPE_CHECKING
from vllm.platforms import current_platform
if TYPE_CHECKING:
    if current_platform.is_rocm():
        from vllm.model_executor.models.base import Neither as Late
    else:
        from vllm.model_executor.models.base import Both as Late
def __getattr__(name): ...
"""
STRICT = LAZY.replace("__getattr__", "other")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheel_classes", ROOT / "scripts/wheel_classes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "wheel_classes", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        f"{MODELS}/interfaces.py": INTERFACES,
        f"{MODELS}/base.py": BASE,
        f"{MODELS}/family.py": FAMILY,
        "vllm/models/lazy/__init__.py": LAZY,
        "vllm/models/strict/__init__.py": STRICT,
    }
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "name", "stages", "adapters"),
    [
        ("base", "Both", "yes", "yes"),
        ("base", "ByAttribute", "yes", "no"),
        ("base", "Neither", "no", "no"),
        # Of two parents the first one's forward pass counts.
        ("base", "Inherits", "no", "yes"),
        ("base", "DropsTheTensors", "no", "yes"),
        ("base", "WithoutForward", "no", "no"),
        ("base", "SaysSo", "yes", "unknown"),
        # Objects of another class.
        ("base", "Others", "yes", "unknown"),
        ("base", "Odd", "unknown", "unknown"),
        ("base", "Foreign", "unknown", "no"),
        ("family", "Alias", "yes", "yes"),
        ("family", "OfCall", "yes", "yes"),
        ("family", "Here", "yes", "yes"),
    ],
)
def test_interfaces_are_found_as_python_would(
    script: ModuleType, folder: Path, module: str, name: str, stages: str, adapters: str
):
    (found,) = script.Wheel(folder).classes(f"vllm.model_executor.models.{module}", name)
    assert (script.pipeline(found), script.adapters(found)) == (stages, adapters)


def test_what_a_condition_decides_is_both(script: ModuleType, folder: Path):
    found = script.Wheel(folder).classes("vllm.model_executor.models.family", "Either")
    assert [each.name.rpartition(".")[2] for each in found] == ["Both", "Neither"]


def test_names_that_are_looked_up_late_are_those_that_type_checkers_are_told(script: ModuleType, folder: Path):
    (found,) = script.Wheel(folder).classes("vllm.models.lazy", "Late")
    assert found.name == "vllm.model_executor.models.base.Both"
    for module, name in (("vllm.models.strict", "Late"), ("vllm.models.none", "Late"), ("vllm.models.lazy", "Never")):
        with pytest.raises(script.UnreadableError):
            script.Wheel(folder).classes(module, name)


def test_a_name_that_stands_for_itself_is_unreadable(script: ModuleType, folder: Path):
    (folder / f"{MODELS}/loop.py").write_text("from .loop import A as B\nfrom .loop import B as A\n")
    with pytest.raises(script.UnreadableError):
        script.Wheel(folder).classes("vllm.model_executor.models.loop", "A")
