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
    """Bytes of all weights together as they are stored; None when neither files nor shape say."""
    if model.weights_bytes:
        return model.weights_bytes
    # Packed weights are counted in words, not in parameters: there the shape knows better.
    main = parameter_count(model)
    counted = main + mtp_parameters(model) if main is not None else None
    params = (counted or model.params) if model.quantization else (model.params or counted)
    if params is None:
        return None
    tables = _main_tables(model) + (2 * (model.mtp_layers or 0) * _table(model) if mtp_parameters(model) else 0)
    return int(_bytes(model, params, tables))


def mtp_bytes(model: ModelFacts, weights: float) -> float:
    """How many of the `weights` (bytes) belong to layers that only propose tokens, which are not loaded otherwise."""
    own, main = mtp_parameters(model), parameter_count(model)
    if not own or not main:
        return 0.0
    mine = _bytes(model, own, 2 * (model.mtp_layers or 0) * _table(model))
    return weights * mine / (mine + _bytes(model, main, _main_tables(model)))


def _bytes(model: ModelFacts, params: int, tables: int) -> float:
    """Bytes of so many parameters, of which `tables` are embeddings and output layers: those are not quantised."""
    tables = min(params, tables)
    return (params - tables) * _linear_width(model) + tables * _wide(model)


def _wide(model: ModelFacts) -> int:
    return 4 if model.dtype in {"float32", "float"} else 2


def copied_bytes(model: ModelFacts) -> float | None:
    """Bytes that every GPU holds whole: inner projections of latent attention, routers and norms.

    None where the shape does not tell; there a share of all weights stands for them.
    """
    if not model.is_mla or parameter_count(model) is None:
        return None
    layers, hidden = model.layers or 0, model.hidden or 0
    inner = hidden * ((model.q_lora_rank or 0) + (model.kv_lora_rank or 0) + (model.rope_head_dim or 0))
    norms = (model.q_lora_rank or 0) + (model.kv_lora_rank or 0) + 2 * hidden
    routers = _expert_layers(model) * model.experts * hidden
    return layers * (inner * _linear_width(model) + norms * _wide(model)) + routers * _wide(model)


def _linear_width(model: ModelFacts) -> float:
    """Bytes of a weight of linear layers, scales included."""
    if model.quantization is None:
        return float(_wide(model))
    if model.quantization == "fp8" and model.quant_block:
        return 1 + 4 / model.quant_block**2
    return LINEAR_BYTES.get(model.quantization, 2.0)


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
    counted = _expert_layers(model) * model.experts * 3 * model.hidden * model.expert_intermediate
    main = parameter_count(model)
    if model.is_mla and main:
        # Exactly, as their part of what is loaded.
        return min(weights, weights * counted * _linear_width(model) / _bytes(model, main, _main_tables(model)))
    width = LINEAR_BYTES.get(model.quantization or "", _wide(model))
    return min(counted * width, MOST_OF_EXPERTS * weights)


def parameter_count(model: ModelFacts) -> int | None:
    """Parameters of a decoder of this shape, without layers that only propose tokens; None when that is not known."""
    needed = (model.layers, model.hidden, model.intermediate, model.vocab)
    attention = _attention(model)
    if attention is None or any(value is None for value in needed):
        return None
    if model.experts and not model.expert_intermediate:
        return None
    layers, hidden, intermediate, vocab = (value or 0 for value in needed)
    sparse = _expert_layers(model)
    mlps = (layers - sparse) * 3 * hidden * intermediate + sparse * _sparse_mlp(model)
    embeddings = (1 if model.tied else 2) * vocab * hidden
    return layers * (attention + 2 * hidden) + mlps + embeddings + hidden


def mtp_parameters(model: ModelFacts) -> int:
    """Parameters of layers that only propose tokens (DeepSeek V3): each a layer, a projection and tables of its own."""
    attention = _attention(model)
    if not (model.is_mla and model.mtp_layers and model.hidden and model.vocab) or attention is None:
        return 0
    hidden = model.hidden
    layer = attention + 2 * hidden + (_sparse_mlp(model) if model.experts else 3 * hidden * (model.intermediate or 0))
    return model.mtp_layers * (layer + 2 * hidden * hidden + 3 * hidden + 2 * model.vocab * hidden)


def _attention(model: ModelFacts) -> int | None:
    """Parameters of attention in one layer."""
    hidden, heads = model.hidden, model.heads
    if hidden is None or heads is None:
        return None
    if model.kv_lora_rank is None:
        if model.head_dim is None:
            return None
        return 2 * hidden * heads * model.head_dim + 2 * hidden * (model.kv_heads or heads) * model.head_dim
    nope, rope, value = model.nope_head_dim, model.rope_head_dim, model.v_head_dim
    if nope is None or rope is None or value is None:
        return None
    rank, latent = model.q_lora_rank, model.kv_lora_rank
    queries = hidden * heads * (nope + rope) if rank is None else rank * (hidden + 1 + heads * (nope + rope))
    keys = hidden * (latent + rope) + latent * (1 + heads * (nope + value))
    return queries + keys + heads * value * hidden


def _sparse_mlp(model: ModelFacts) -> int:
    """Parameters of a layer's experts: every one is resident, however few of them a token meets; the router's rows."""
    hidden = model.hidden or 0
    return (
        model.experts * (3 * hidden * (model.expert_intermediate or 0) + hidden)
        + 3 * hidden * model.shared_intermediate
    )


def _expert_layers(model: ModelFacts) -> int:
    return max(0, (model.layers or 0) - model.dense_layers) if model.experts else 0


def table_bytes(model: ModelFacts, width: float) -> float:
    """Bytes of the embeddings, and of the output layer where it is one of its own; 0 where their shape is not known.

    They are not quantised; `width` are the bytes of a number as the engine computes.
    """
    return _table(model) * width


def _table(model: ModelFacts) -> int:
    return (model.vocab or 0) * (model.hidden or 0)


def _main_tables(model: ModelFacts) -> int:
    """Parameters of the embeddings and of the output layer."""
    return (1 if model.tied else 2) * _table(model)
