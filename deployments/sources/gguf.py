"""What a GGUF file says of its model, read from its first bytes. Pure; whatever is in the file is hostile.

The file begins with key-value pairs; those about the shape stand before the long lists of tokens, so the beginning is
enough. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from deployments.engine.facts import ModelFacts

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_PAIRS = 10_000
MOST_KEY = 1024
# Value types of fixed size, by their number: the format to unpack, and its bytes.
_FIXED = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
# What transformers calls the architectures that vLLM serves from GGUF, by the file's own names for them.
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}


class GgufError(ValueError):
    """The file is none, or not one that vLLM serves."""


def facts_of(model_id: str, head: bytes) -> ModelFacts:
    """The shape of a model from the beginning of its file; GgufError for what is no GGUF, or an architecture unknown.

    What stands behind the end of `head` stays unknown.
    """
    pairs = read(head)
    family = str(pairs.get("general.architecture", ""))
    if family not in ARCHITECTURES:
        said = family if family.isalnum() and len(family) < 40 else "without a known name"
        raise GgufError(f"vLLM does not load GGUF files of the architecture {said}.")
    heads, hidden = _whole(pairs, family, "attention.head_count"), _whole(pairs, family, "embedding_length")
    return ModelFacts(
        id=model_id,
        architecture=ARCHITECTURES[family],
        # vLLM computes in float16 with these weights unless it is told otherwise.
        dtype="float16",
        quantization="gguf",
        layers=_whole(pairs, family, "block_count"),
        heads=heads,
        kv_heads=_whole(pairs, family, "attention.head_count_kv") or heads,
        head_dim=_whole(pairs, family, "attention.key_length") or (hidden // heads if hidden and heads else None),
        hidden=hidden,
        intermediate=_whole(pairs, family, "feed_forward_length"),
        vocab=_whole(pairs, family, "vocab_size"),
        max_position=_whole(pairs, family, "context_length"),
        experts=_whole(pairs, family, "expert_count") or 0,
        expert_intermediate=_whole(pairs, family, "expert_feed_forward_length"),
    )


def read(head: bytes) -> dict[str, Any]:
    """The pairs that the first bytes of a file hold whole; lists are left out. GgufError for another kind of file."""
    if len(head) < 24 or head[:4] != MAGIC:
        raise GgufError("This is no GGUF file.")
    version, _, count = struct.unpack_from("<IQQ", head, 4)
    if version not in VERSIONS:
        raise GgufError(f"GGUF of version {version} is not known.")
    found: dict[str, Any] = {}
    at = 24
    for _ in range(min(count, MOST_PAIRS)):
        try:
            key, at = _text(head, at, MOST_KEY)
            (kind,) = struct.unpack_from("<I", head, at)
            value, at = _value(head, at + 4, kind)
        except (struct.error, IndexError):
            break  # Cut off here, or nonsense from here on.
        if value is not None:
            found[key] = value
    return found


def _value(head: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in _FIXED:
        (value,) = struct.unpack_from(_FIXED[kind], head, at)
        return value, at + struct.calcsize(_FIXED[kind])
    if kind == _STRING:
        return _text(head, at, len(head))
    if kind != _ARRAY:
        raise IndexError(kind)
    inner, count = struct.unpack_from("<IQ", head, at)
    at += 12
    if inner in _FIXED:
        return None, at + struct.calcsize(_FIXED[inner]) * count
    if inner != _STRING:
        raise IndexError(inner)
    for _ in range(count):
        _, at = _text(head, at, len(head))
    return None, at


def _text(head: bytes, at: int, longest: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<Q", head, at)
    at += 8
    if size > longest or at + size > len(head):
        raise IndexError(size)
    return head[at : at + size].decode(errors="replace"), at + size


def _whole(pairs: Mapping[str, Any], family: str, name: str) -> int | None:
    value = pairs.get(f"{family}.{name}")
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**12 else None
