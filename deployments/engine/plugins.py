"""What the image of an engine can have besides vLLM: packages that bring back what vLLM gave out of its hands."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Plugin(StrEnum):
    """A plugin by the name that it registers with vLLM under (entry points `vllm.general_plugins`)."""

    GGUF = "gguf"
    BITSANDBYTES = "bitsandbytes"

    @property
    def package(self) -> str:
        """What is installed into an image to have it."""
        return PACKAGES[self]


PACKAGES = {Plugin.GGUF: "vllm-gguf-plugin", Plugin.BITSANDBYTES: "vllm-bnb-plugin"}
# What a model or a wish needs it for.
PURPOSES = {
    Plugin.GGUF: "GGUF files, and quantization gguf",
    Plugin.BITSANDBYTES: "weights stored by bitsandbytes, and quantization bitsandbytes",
}
LABELS = {Plugin.GGUF: "GGUF", Plugin.BITSANDBYTES: "bitsandbytes"}


def unknown(name: str) -> str:
    """What is said of a name that is none of them."""
    return f"“{name}” is not a plugin that Slipway knows. Known: {', '.join(Plugin)}."


def plugins_from(names: Iterable[object]) -> tuple[Plugin, ...]:
    """Plugins by their names, each once and in order; ValueError names one that is not known."""
    found = set()
    for name in names:
        try:
            found.add(Plugin(str(name)))
        except ValueError:
            raise ValueError(unknown(str(name)[:60])) from None
    return tuple(sorted(found))
