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


# What stands for every model that vLLM runs by transformers, or by code of a repository.
WRAPPER = "TransformersForCausalLM"


# Of the suffixes by which the engine tells what a model is for, those of models that write text.
WRITING = frozenset({"ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel"})


@dataclass(frozen=True)
class Known:
    """The models of one release; `transformers` is the version that it is read with. See the note of the data files."""

    transformers: str
    suffixes: tuple[str, ...]
    architectures: frozenset[str]
    gone: Mapping[str, str]
    plugins: Mapping[str, str]
    pooling: frozenset[str]
    undivided: frozenset[str]
    model_types: frozenset[str]
    by_architecture: Mapping[str, str]
    runs: frozenset[str]
    refuses: frozenset[str]
    # Of the architectures: layers stay on one stage, no LoRA adapters; `maybe`: their source does not tell.
    whole: frozenset[str]
    plain: frozenset[str]
    maybe_whole: frozenset[str]
    maybe_plain: frozenset[str]
    # Whether layers that propose tokens are cut into stages with the rest.
    drafts_cut: bool
    # Classes of tokenizers; model types that have one whatever a repository names, and whether it is taken then.
    tokenizers: frozenset[str]
    tokenizer_types: frozenset[str]
    tokenizer_instead: bool

    def reads(self, model_type: str, architectures: Iterable[str]) -> bool:
        """True when a configuration of this type needs no code of its repository; "" where it names no type."""
        if model_type:
            return model_type in self.model_types
        return any(name in self.by_architecture for name in architectures)

    def pools(self, architecture: str) -> bool:
        """True for what the engine takes for a model of embeddings or scores where nobody says otherwise."""
        if architecture in self.architectures:
            return architecture in self.pooling
        ending = next((each for each in self.suffixes if architecture.endswith(each)), None)
        return ending is not None and ending not in WRITING

    def way(self, architectures: tuple[str, ...], *, own_model: bool) -> Way:
        """What would run a model of these architectures; `own_model`: its repository brings a class for it."""
        if self._implementation(architectures):
            return Way.OWN
        first = architectures[0]
        if first in self.runs:
            return Way.TRANSFORMERS
        # A class of transformers is taken before one of the repository, and given up where it cannot be run.
        return Way.REPOSITORY if own_model and first not in self.refuses else Way.NONE

    def cuts(self, architectures: tuple[str, ...]) -> bool | None:
        """Whether the layers of such a model can be cut into stages; None where nobody knows."""
        return self._can(architectures, self.whole, self.maybe_whole)

    def adapts(self, architectures: tuple[str, ...]) -> bool | None:
        """Whether LoRA adapters can be laid over such a model; None where nobody knows."""
        return self._can(architectures, self.plain, self.maybe_plain)

    def reads_tokenizer(self, model_type: str, tokenizer_class: str, *, file: bool) -> bool | None:
        """Whether a tokenizer that is code of the repository is read without that code; None where it may be.

        `file`: a tokenizer.json lies there, which needs no class of its own.
        """
        word = tokenizer_class.removesuffix("Fast")
        if word and self.tokenizers & {word, f"{word}Fast"}:
            return True
        if model_type not in self.tokenizer_types:
            return False
        if word and not self.tokenizer_instead:
            return False
        return True if file else None

    def _can(self, architectures: tuple[str, ...], cannot: frozenset[str], unknown: frozenset[str]) -> bool | None:
        name = self._implementation(architectures) or WRAPPER
        return None if name in unknown else name not in cannot

    def _implementation(self, architectures: Iterable[str]) -> str:
        """The class of vLLM that runs a model of these architectures; empty where none does."""
        return next(filter(None, map(self._class_for, architectures)), "")

    def _class_for(self, architecture: str) -> str:
        """A class of vLLM, or the one that it makes such a class of: a classifier of a language model."""
        if architecture in self.architectures:
            return architecture
        suffix = next((each for each in self.suffixes if architecture.endswith(each)), None)
        others = (architecture.replace(suffix, other) for other in self.suffixes) if suffix is not None else ()
        return next((other for other in others if other in self.architectures), "")


SETS = (
    *("architectures", "pooling", "undivided", "model_types", "runs", "refuses"),
    *("whole", "plain", "maybe_whole", "maybe_plain"),
    *("tokenizers", "tokenizer_types"),
)


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
        drafts_cut=row["drafts_cut"],
        tokenizer_instead=row["tokenizer_instead"],
        **{name: frozenset(row[name]) for name in SETS},
    )
