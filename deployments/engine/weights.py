"""How large the weights are: file sizes where known, else counted from the shape."""

from __future__ import annotations

from deployments.engine.facts import ModelFacts

# Bytes per weight of the linear layers, scales included; embeddings and the output layer stay 16-bit.
LINEAR_BYTES = {
    "fp8": 1.01,
    "fbgemm_fp8": 1.01,
    "modelopt": 1.01,
    "compressed-tensors": 1.01,
    "int8": 1.01,
    "w8a8-int8": 1.0,
    "experts_int8": 1.01,
    "awq": 0.525,
    "gptq": 0.525,
    "int4": 0.525,
    "bitsandbytes": 0.56,
    "mxfp4": 0.53,
    "modelopt_fp4": 0.57,
    "nvfp4": 0.57,
}

# Methods that quantise 16-bit weights while they are loaded, and the bytes that a weight then takes, scales included.
ONLINE_BYTES = {
    "fp8": 1.0,
    "fp8_per_tensor": 1.0,
    "fp8_per_block": 1.001,
    "fp8_per_channel": 1.0,
    "mxfp8": 1.032,
    "int8_per_channel_weight_only": 1.001,
    "experts_int8": 1.001,
    "bitsandbytes": 0.5625,
    "nvfp4_per_token": 0.5625,
}
EXPERTS_ONLY = frozenset({"experts_int8", "int8_per_channel_weight_only", "nvfp4_per_token"})
USUAL_VOCABULARY = 128_000
# At most so much of a model lies in its experts.
MOST_OF_EXPERTS = 0.95


def weights_bytes(model: ModelFacts) -> int | None:
    """Bytes of all weights together; None when neither files nor shape say."""
    if model.weights_bytes:
        return model.weights_bytes
    # Packed weights are counted in words, not in parameters: there the shape knows better.
    counted = parameter_count(model)
    params = (counted or model.params) if model.quantization else (model.params or counted)
    if params is None:
        return None
    wide = 4 if model.dtype in {"float32", "float"} else 2
    if model.quantization is None:
        return params * wide
    embedding = min(params, (1 if model.tied else 2) * (model.vocab or 0) * (model.hidden or 0))
    linear = LINEAR_BYTES.get(model.quantization, 2.0)
    return int((params - embedding) * linear + embedding * wide)


def quantised(model: ModelFacts, method: object, held: float, width: float) -> float:
    """Bytes of weights once the engine has quantised them as it loads; `held` of them, `width` each, where it does not.

    Embeddings and the output layer stay as they are; some methods take the experts alone.
    """
    kept = ONLINE_BYTES.get(str(method)) if model.quantization is None else None
    if kept is None or kept >= width:
        return held
    if method in EXPERTS_ONLY:
        return held - expert_bytes(model, held) * (1 - kept / width)
    hidden = model.hidden or (model.heads or 32) * (model.head_dim or 128)
    embedding = min(held, (1 if model.tied else 2) * (model.vocab or USUAL_VOCABULARY) * hidden * width)
    return embedding + (held - embedding) * kept / width


def expert_bytes(model: ModelFacts, weights: float) -> float:
    """How many of the `weights` (bytes) belong to experts; 0 where there are none, or their shape is not known."""
    if not (model.experts and model.layers and model.hidden and model.expert_intermediate):
        return 0.0
    counted = model.layers * model.experts * 3 * model.hidden * model.expert_intermediate
    width = LINEAR_BYTES.get(model.quantization or "", 4.0 if model.dtype in {"float32", "float"} else 2.0)
    # Some models begin with layers without experts, which the shape does not tell.
    return min(counted * width, MOST_OF_EXPERTS * weights)


def parameter_count(model: ModelFacts) -> int | None:
    """Parameters of a decoder of this shape; None when the shape is not known well enough."""
    needed = (model.layers, model.hidden, model.intermediate, model.vocab, model.heads, model.head_dim)
    if model.is_mla or any(value is None for value in needed):
        return None
    if model.experts and not model.expert_intermediate:
        return None
    layers, hidden, intermediate, vocab, heads, head_dim = (value or 0 for value in needed)
    attention = 2 * hidden * heads * head_dim + 2 * hidden * (model.kv_heads or heads) * head_dim
    mlp = 3 * hidden * intermediate
    if model.experts:
        # Every expert is resident, however few of them one token meets; the router is one row each.
        mlp = model.experts * (3 * hidden * (model.expert_intermediate or 0) + hidden)
    embeddings = (1 if model.tied else 2) * vocab * hidden
    return layers * (attention + mlp + 2 * hidden) + embeddings + hidden
