"""What the engine needs to know of a model: read from its config.json and the sizes of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Rotary scalings that do not lengthen the derived context (vLLM: config/model.py _get_and_verify_max_len).
UNSCALED_ROPE = {"su", "longrope", "llama3", "mrope"}
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}


@dataclass(frozen=True)
class ModelShape:
    """One model. Sizes in elements; `weight_bytes` is the sum of its safetensors files."""

    architecture: str
    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    context_key: str
    dtype: str
    quantization: str | None
    sliding_window: int | None
    full_attention_layers: int
    kv_lora_rank: int | None
    rope_dim: int
    parameters: int
    active_parameters: int
    weight_bytes: int
    checkpoint_files: int
    # The weights ask for a KV cache in fp8, which "auto" then means.
    fp8_cache: bool = False


def read(config: Mapping[str, Any], files: Mapping[str, int]) -> ModelShape:
    """Read a config.json and file sizes; KeyError when the configuration is not a language model's."""
    text = config.get("text_config", config)
    heads, hidden, layers = text["num_attention_heads"], text["hidden_size"], text["num_hidden_layers"]
    weights = _weights(files)
    section = config.get("quantization_config") or {}
    quantization = section.get("quant_method")
    parameters, active = _parameters(text)
    context, key = _context(text)
    window, full = _window(text, layers)
    return ModelShape(
        architecture=config["architectures"][0],
        model_type=config["model_type"],
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or hidden // heads,
        intermediate=text.get("intermediate_size") or 4 * hidden,
        vocab=text["vocab_size"],
        context=context,
        context_key=key,
        dtype=config.get("torch_dtype") or config.get("dtype") or text.get("torch_dtype") or "bfloat16",
        quantization=quantization,
        sliding_window=window,
        full_attention_layers=full,
        kv_lora_rank=text.get("kv_lora_rank"),
        rope_dim=text.get("qk_rope_head_dim", 0),
        parameters=parameters,
        active_parameters=active,
        weight_bytes=sum(weights.values()),
        checkpoint_files=len(weights),
        fp8_cache=quantization == "compressed-tensors" and bool(section.get("kv_cache_scheme")),
    )


def _weights(files: Mapping[str, int]) -> dict[str, int]:
    """What vLLM reads: split safetensors without Mistral's consolidated copy, else a GGUF file, else checkpoints."""
    top = {name: size for name, size in files.items() if "/" not in name and not name.startswith("consolidated")}
    for ending in (".safetensors", ".gguf", ".bin", ".pt"):
        if found := {name: size for name, size in top.items() if name.endswith(ending)}:
            return found
    return {}


def _context(text: Mapping[str, Any]) -> tuple[int, str]:
    key = next((key for key in CONTEXT_KEYS if text.get(key)), "max_position_embeddings")
    context = float(text.get(key) or 2048)
    rope = text.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in UNSCALED_ROPE and kind != "default" and "gemma3" not in str(text.get("model_type")):
        context = float(rope.get("original_max_position_embeddings", context)) * float(rope.get("factor", 1.0))
    return int(context), key


def _window(text: Mapping[str, Any], layers: int) -> tuple[int | None, int]:
    """The sliding window and how many layers attend to everything."""
    window = text.get("sliding_window")
    if not window or text.get("use_sliding_window") is False:
        return None, layers
    pattern = text.get("sliding_window_pattern")
    return window, layers // pattern if pattern else 0


def _parameters(text: Mapping[str, Any]) -> tuple[int, int]:
    """Parameters of the language model, and those a token passes through."""
    hidden, layers, heads = text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]
    dim = text.get("head_dim") or hidden // heads
    kv = text.get("num_key_value_heads") or heads
    attention = 2 * hidden * heads * dim + 2 * hidden * kv * dim
    dense = 3 * hidden * (text.get("intermediate_size") or 4 * hidden)
    mlp = active = dense
    experts = text.get("num_experts") or text.get("n_routed_experts") or text.get("num_local_experts")
    if experts:
        one = 3 * hidden * (text.get("moe_intermediate_size") or text["intermediate_size"])
        mlp, active = experts * one, text.get("num_experts_per_tok", 2) * one
    head = text["vocab_size"] * hidden
    embedding = 0 if text.get("tie_word_embeddings") else head
    return layers * (attention + mlp) + head + embedding, layers * (attention + active) + head
