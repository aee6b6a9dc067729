"""What an image with vLLM has: its version, and plugins.

Flags, methods of quantisation and what is read of GGUF files follow it. Everything else, the wording of log lines and
the metrics among it, is that of the newest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

NEWEST_VERSION = "0.32.0"
# From this one on vLLM reads GGUF files only by its plugin, which takes the configuration from a file beside.
GGUF_OUT = (0, 24)


@dataclass(frozen=True)
class Build:
    """One image: `plugins` are those that register with vLLM as it starts."""

    version: str = NEWEST_VERSION
    plugins: frozenset[str] = frozenset()

    @property
    def methods(self) -> list[str]:
        """The methods of quantisation, in the order in which vLLM lists them; plugins add theirs at the end."""
        own: list[str] = difference(self.version)["methods"]
        return [*own, *sorted(self.plugins.difference(own))]

    @property
    def reads_gguf(self) -> bool:
        """Whether it knows what a GGUF file is."""
        return "gguf" in self.methods

    @property
    def needs_config(self) -> bool:
        """Whether a GGUF file alone is not enough."""
        return tuple(int(part) for part in self.version.split(".")[:2]) >= GGUF_OUT


NEWEST = Build()


def known() -> list[str]:
    """The versions there are."""
    return [version for version in _document() if version != "note"]


def difference(version: str) -> dict[str, Any]:
    """What this version takes and lacks beside the list of flags of the newest, and its methods of quantisation."""
    found: dict[str, Any] = _document()[version]
    return found


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(Path(__file__).with_name("builds.json").read_bytes())
    return document
