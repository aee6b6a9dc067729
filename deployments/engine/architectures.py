"""Which models a vLLM release implements, which it runs by transformers, and whose configuration it can read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from deployments.engine.profiles import DATA


class Way(StrEnum):
    """What runs a model of some architecture."""

    OWN = "own"  # an implementation of vLLM
    TRANSFORMERS = "transformers"  # the one of transformers, with vLLM's attention
    REPOSITORY = "repository"  # code of the model's repository, with vLLM's attention
    NONE = ""


@dataclass(frozen=True)
class Known:
    """The models of one release; `transformers` is the version that it is read with. See the note of the data files."""

    transformers: str
    suffixes: tuple[str, ...]
    architectures: frozenset[str]
    gone: Mapping[str, str]
    plugins: Mapping[str, str]
    pooling: frozenset[str]
    model_types: frozenset[str]
    by_architecture: Mapping[str, str]
    runs: frozenset[str]
    refuses: frozenset[str]

    def reads(self, model_type: str, architectures: Iterable[str]) -> bool:
        """True when a configuration of this type needs no code of its repository; "" where it names no type."""
        if model_type:
            return model_type in self.model_types
        return any(name in self.by_architecture for name in architectures)

    def way(self, architectures: tuple[str, ...], *, own_model: bool) -> Way:
        """What would run a model of these architectures; `own_model`: its repository brings a class for it."""
        if any(map(self._implements, architectures)):
            return Way.OWN
        first = architectures[0]
        if first in self.runs:
            return Way.TRANSFORMERS
        # A class of transformers is taken before one of the repository, and given up where it cannot be run.
        return Way.REPOSITORY if own_model and first not in self.refuses else Way.NONE

    def _implements(self, architecture: str) -> bool:
        """True for a class of vLLM, and for one that it makes of such a class: a classifier of a language model."""
        if architecture in self.architectures:
            return True
        suffix = next((each for each in self.suffixes if architecture.endswith(each)), None)
        if suffix is None:
            return False
        return any(architecture.replace(suffix, other) in self.architectures for other in self.suffixes)


@cache
def known_models(version: str) -> Known | None:
    """The models of a vLLM release; None for one of which nobody wrote them down."""
    file = DATA / f"models-vllm-{version}.json"
    if not file.exists():
        return None
    row = json.loads(file.read_text())
    return Known(
        transformers=row["transformers"],
        suffixes=tuple(row["suffixes"]),
        gone=row["gone"],
        plugins=row["plugins"],
        by_architecture=row["by_architecture"],
        **{name: frozenset(row[name]) for name in ("architectures", "pooling", "model_types", "runs", "refuses")},
    )
