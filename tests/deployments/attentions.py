"""Models whose layers are not all alike in what they attend to and keep, and GPUs for them."""

from __future__ import annotations

import dataclasses
from typing import Any

from deployments.engine.facts import ModelFacts
from deployments.engine.gpus import gpu_facts
from deployments.sources.huggingface import model_facts

TEXT: dict[str, Any] = {"hidden_size": 5120, "intermediate_size": 20480, "vocab_size": 200_000}
GEMMA_4 = {
    "architectures": ["Gemma4ForConditionalGeneration"],
    "model_type": "gemma4",
    "text_config": {
        **TEXT,
        "model_type": "gemma4_text",
        "num_hidden_layers": 60,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "num_global_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "attention_k_eq_v": True,
        "sliding_window": 1024,
        "max_position_embeddings": 262_144,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10,
    },
}
GEMMA_4_SMALL = {
    "model_type": "gemma4",
    "text_config": {
        **TEXT,
        "model_type": "gemma4_text",
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "num_kv_shared_layers": 20,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
    },
}
GEMMA_3N = {
    "model_type": "gemma3n",
    "text_config": {
        **TEXT,
        "model_type": "gemma3n_text",
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "sliding_window": 512,
    },
}
LLAMA_4 = {
    "model_type": "llama4",
    "text_config": {
        **TEXT,
        "model_type": "llama4_text",
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_chunk_size": 8192,
        "no_rope_layers": [1, 1, 1, 0] * 12,
    },
}
MIMO = {
    **TEXT,
    "model_type": "mimo_v2_flash",
    "num_hidden_layers": 48,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 192,
    "v_head_dim": 128,
    "swa_num_key_value_heads": 8,
    "swa_head_dim": 192,
    "swa_v_head_dim": 128,
    # It names a chunk and does not use it.
    "attention_chunk_size": 128,
    "sliding_window_size": 128,
    "hybrid_layer_pattern": [0, *([1] * 5 + [0]) * 7, *[1] * 4, 0],
}
STEP = {
    **TEXT,
    "model_type": "step3p5",
    "num_hidden_layers": 4,
    "num_attention_heads": 64,
    "num_attention_groups": 8,
    "head_dim": 128,
    "sliding_window": 512,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"],
    "attention_other_setting": {
        "attention_type": "sliding_attention",
        "num_attention_heads": 96,
        "num_attention_groups": 4,
        "head_dim": 128,
    },
}
DEEPSEEK = {
    "architectures": ["DeepseekV32ForCausalLM"],
    "model_type": "deepseek_v32",
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "vocab_size": 129_280,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "index_topk": 2048,
    "index_head_dim": 128,
}
KIMI = {
    "architectures": ["KimiLinearForCausalLM"],
    "model_type": "kimi_linear",
    "num_hidden_layers": 27,
    "num_attention_heads": 32,
    "hidden_size": 2304,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "linear_attn_config": {
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
        "kda_layers": [at for at in range(1, 28) if at not in {4, 8, 12, 16, 20, 24, 27}],
    },
}
GEMMA_3 = ModelFacts(
    id="google/gemma-3-27b-it",
    layers=62,
    heads=32,
    kv_heads=16,
    head_dim=128,
    sliding_window=1024,
    sliding_layers=52,
)
OSS = ModelFacts(
    id="openai/gpt-oss-20b", layers=24, heads=64, kv_heads=8, head_dim=64, sliding_window=128, sliding_layers=12
)
QWEN = ModelFacts(id="Qwen/Qwen2.5-7B-Instruct", layers=28, heads=28, kv_heads=4, head_dim=128)
L4, H100, H200, B200 = map(gpu_facts, ("NVIDIA-L4", "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-B200"))


def read(config: dict[str, Any], **changes: Any) -> ModelFacts:
    """What is read from a configuration, with other values where they are given."""
    return dataclasses.replace(model_facts("org/model", {}, config), **changes)
