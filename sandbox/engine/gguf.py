"""The shape of a model in a GGUF file, as its `config.json` would have it: read from the beginning of the file.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from typing import Any

FIXED = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
# What vLLM works out of the file's own pairs, by the names of transformers.
NAMES = {
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
}
USUAL_VOCABULARY = 32_000


def config_of(head: bytes) -> dict[str, Any] | None:
    """The configuration in the first bytes of a file; None for what is no GGUF, or an architecture vLLM has not."""
    pairs = _pairs(head)
    family = str(pairs.get("general.architecture", ""))
    if family not in ARCHITECTURES:
        return None
    config: dict[str, Any] = {
        name: pairs[f"{family}.{key}"] for name, key in NAMES.items() if f"{family}.{key}" in pairs
    }
    return {
        "vocab_size": pairs.get("tokenizer.ggml.tokens", USUAL_VOCABULARY),
        **config,
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "torch_dtype": "float16",
        "quantization_config": {"quant_method": "gguf"},
    }


def _pairs(head: bytes) -> dict[str, Any]:
    """The pairs that the bytes hold whole; of a list its length."""
    if head[:4] != b"GGUF" or len(head) < 24:
        return {}
    (count,) = struct.unpack_from("<Q", head, 16)
    found: dict[str, Any] = {}
    at = 24
    for _ in range(min(count, 10_000)):
        try:
            key, at = _text(head, at)
            (kind,) = struct.unpack_from("<I", head, at)
            at += 4
            if kind in FIXED:
                (found[key],) = struct.unpack_from(FIXED[kind], head, at)
                at += struct.calcsize(FIXED[kind])
            elif kind == STRING:
                found[key], at = _text(head, at)
            else:
                inner, found[key] = struct.unpack_from("<IQ", head, at)
                at += 12
                if inner in FIXED:
                    at += struct.calcsize(FIXED[inner]) * found[key]
                else:
                    for _ in range(found[key]):
                        _, at = _text(head, at)
        except (struct.error, IndexError):
            break
    return found


def _text(head: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<Q", head, at)
    at += 8
    if at + size > len(head):
        raise IndexError(size)
    return head[at : at + size].decode(errors="replace"), at + size
