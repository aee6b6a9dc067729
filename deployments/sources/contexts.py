"""How many tokens a model takes, from its configuration, as vLLM derives it. Pure.

After `derive_max_model_len_and_key` and `_get_and_verify_max_len` of vLLM 0.32.0; up to 0.20 it multiplied by the
factor of YaRN too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deployments.sources.checks import plain

# Families name it differently; where several stand in one file, the smallest counts.
KEYS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_target_positions", "max_sequence_length", "max_seq_length", "seq_len"),
)
# Where it is given, it counts in place of all others.
DECIDES = "model_max_length"
YARN, LONG = "yarn", "longrope"
# Kinds of rotary embeddings whose context is given after scaling, or that are no scaling by one factor.
SCALED = frozenset({"", "default", "su", LONG, "llama3", "deepseek_yarn", "deepseek_llama_scaling", "telechat3-yarn"})
# Numbers beyond this are nonsense.
MOST_TOKENS, MOST_FACTOR = 10**9, 10**15
Number = Callable[..., int | None]
# Where sentence-transformers say how much of a text a model takes; the first that is there counts.
KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
SENTENCE_CONFIGS = tuple(f"sentence_{kind}_config.json" for kind in KINDS)
SENTENCE_LENGTH, MOST_SENTENCE_CONFIG = "max_seq_length", 64 * 1024
# Positions that were learnt one by one: there the tokenizer has a say in it, too.
LEARNT = "absolute"


@dataclass(frozen=True)
class Contexts:
    """Tokens: the `longest` context of a model, what engines up to 0.20 took for it, and what is taken unasked.

    `stretched` and `unasked` are None where they are the longest.
    """

    longest: int | None = None
    stretched: int | None = None
    unasked: int | None = None


def contexts(shape: Mapping[str, Any], text: Mapping[str, Any], number: Number) -> Contexts:
    """What a `config.json` says; `text` is its part about the language model, `number(where, key)` reads a number."""
    found = [length for key in KEYS if (length := number(text, key))]
    base = number(text, DECIDES) or min(found, default=None)
    # Gemma 3 gives the context after scaling already.
    if base is None or "gemma3" in plain(text.get("model_type")):
        return Contexts(base)
    factor, kinds, stretched = 1.0, set(), None
    for part in _ropes(text):
        kind = plain(part.get("rope_type")) or plain(part.get("type"))
        kinds.add(kind)
        own = part.get("factor")
        if isinstance(own, bool) or not isinstance(own, int | float) or not 1 < own < MOST_FACTOR:
            continue
        if kind == YARN:
            stretched = min(int((number(part, "original_max_position_embeddings") or base) * own), MOST_TOKENS)
        elif kind not in SCALED:
            factor = own
    longest = base if factor == 1.0 else min(int(base * factor), MOST_TOKENS)
    unasked = number(shape, "original_max_position_embeddings") if LONG in kinds else None
    return Contexts(
        longest,
        stretched=stretched if stretched != longest else None,
        unasked=unasked if unasked is not None and unasked < longest else None,
    )


def sentence_config(sizes: Mapping[str, int]) -> str | None:
    """The file that says how much of a text a model of sentence-transformers takes; None where there is none."""
    return next((name for name in SENTENCE_CONFIGS if 0 < sizes.get(name, 0) <= MOST_SENTENCE_CONFIG), None)


def narrowed(found: Contexts, shape: Mapping[str, Any], tokenizer: Any, sentences: Any, number: Number) -> Contexts:
    """The context of a model of embeddings or scores, as files beside its `config.json` have it; None: not read.

    `tokenizer` is its `tokenizer_config.json`, and `sentences` what `sentence_config` names.
    """
    if isinstance(sentences, Mapping) and (length := number(sentences, SENTENCE_LENGTH)):
        return Contexts(length)
    own = number(tokenizer, DECIDES) if isinstance(tokenizer, Mapping) else None
    if own is None or found.longest is None or shape.get("position_embedding_type") != LEARNT:
        return found
    return replace(found, longest=min(found.longest, own))


def _ropes(text: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parameters of the rotary embeddings: one set of them, or one for each kind of layer."""
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if isinstance(scaling, Mapping):
        nested = [part for part in scaling.values() if isinstance(part, Mapping)]
        yield from nested or [scaling]
