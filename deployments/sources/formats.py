"""How weights are stored, told from the names of files, and what each format means. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum


class WeightFormat(StrEnum):
    """How weights are stored."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    PYTORCH = "pytorch"


# What each means for who serves it.
MEANING = {
    WeightFormat.SAFETENSORS: "safetensors: read straight into GPU memory, and nothing in them is run",
    WeightFormat.GGUF: "GGUF: one file with weights, shape and tokenizer",
    WeightFormat.PYTORCH: "PyTorch checkpoints: slower to load, and they are pickles",
}
_PYTORCH = re.compile(r"(?:pytorch_model|model|consolidated)[A-Za-z0-9._-]*\.(?:bin|pt|pth)")


def format_of(sizes: Mapping[str, int]) -> WeightFormat | None:
    """The format of the weights at the top of a folder; what vLLM prefers where there are several."""
    names = [name for name in sizes if "/" not in name]
    if any(name.endswith(".safetensors") for name in names):
        return WeightFormat.SAFETENSORS
    if any(name.endswith(".gguf") for name in names):
        return WeightFormat.GGUF
    return WeightFormat.PYTORCH if any(_PYTORCH.fullmatch(name) for name in names) else None


def weights_bytes(sizes: Mapping[str, int], kind: WeightFormat | None) -> int:
    """Bytes of the weights of one format; `consolidated` safetensors are a second copy."""
    return sum(size for name, size in sizes.items() if _counts(name, kind))


def _counts(name: str, kind: WeightFormat | None) -> bool:
    if "/" in name:
        return False
    if kind is WeightFormat.SAFETENSORS:
        return name.endswith(".safetensors") and not name.startswith("consolidated")
    if kind is WeightFormat.GGUF:
        return name.endswith(".gguf")
    return kind is WeightFormat.PYTORCH and _PYTORCH.fullmatch(name) is not None
