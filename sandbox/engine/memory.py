"""Where the memory of a GPU goes: weights, activations, CUDA graphs, and what is left for the KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.engine.args import EngineArgs
from sandbox.engine.shape import DTYPE_BYTES, ModelShape
from sandbox.nodes import GIB, Gpu

BLOCK = 16
WEIGHT_OVERHEAD = 1.005  # replicated norms, padding
NON_TORCH = {False: 0.15 * GIB, True: 0.45 * GIB}  # one rank; more than one (NCCL)
GRAPH_BYTES = 0.45 * GIB
BIG_GPU = 70 * GIB


@dataclass(frozen=True)
class Limits:
    """What the scheduler may do at once, defaults filled in for the GPU."""

    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each GPU; `blocks` KV blocks of `block_size` tokens, the smallest over the ranks."""

    total: int
    budget: int
    weights: int
    activation: int
    non_torch: int
    graphs: int
    kv_available: int
    kv_bytes_per_token: float
    block_size: int
    blocks: int

    @property
    def tokens(self) -> int:
        """KV cache size in tokens."""
        return self.blocks * self.block_size

    @property
    def used(self) -> int:
        """Bytes the process holds once it serves."""
        return self.weights + self.activation + self.non_torch + self.graphs + max(0, self.kv_available)


def limits(args: EngineArgs, gpu: Gpu) -> Limits:
    """Fill in vLLM's defaults for an API server on this GPU."""
    big = gpu.visible_bytes >= BIG_GPU
    seqs = args.max_num_seqs or (1024 if big else 256)
    tokens = args.max_num_batched_tokens or max(8192 if big else 2048, seqs)
    return Limits(seqs, tokens)


def kv_dtype_bytes(args: EngineArgs, shape: ModelShape) -> float:
    """Bytes of one KV element."""
    kind = "fp8" if args.kv_cache_dtype == "auto" and shape.fp8_cache else args.kv_cache_dtype
    if kind == "auto":
        return DTYPE_BYTES.get(compute_dtype(args, shape), 2)
    if kind.startswith(("fp8", "int8")) or kind == "turboquant_k8v4":
        return 1
    if "4" in kind and "bfloat" not in kind and "float16" not in kind:
        return 0.5
    return 2


def compute_dtype(args: EngineArgs, shape: ModelShape) -> str:
    """The dtype of activations: what was asked for, or the checkpoint's (float32 is run in 16 bits)."""
    if args.dtype != "auto":
        return {"half": "float16", "float": "float32"}.get(args.dtype, args.dtype)
    return "bfloat16" if shape.dtype == "float32" else shape.dtype


def kv_bytes_per_token(args: EngineArgs, shape: ModelShape) -> float:
    """KV bytes of one token on the fullest rank, counted over all its layers."""
    size = kv_dtype_bytes(args, shape)
    layers = -(-shape.layers // args.pipeline_parallel)
    if shape.kv_lora_rank:
        return layers * (656 if args.kv_cache_dtype == "fp8_ds_mla" else (shape.kv_lora_rank + shape.rope_dim) * size)
    heads = max(1, shape.kv_heads // args.tensor_parallel)
    scales = 8 * heads if args.kv_cache_dtype.endswith("per_token_head") else 0
    return layers * (heads * 2 * shape.head_dim * size + scales)


def kv_bytes_needed(args: EngineArgs, shape: ModelShape, tokens: int, batched: int) -> float:
    """KV bytes that one request of `tokens` holds: sliding-window layers keep only their window."""
    per_layer = kv_bytes_per_token(args, shape) / shape.layers
    full = shape.layers
    windowed = 0.0
    if shape.sliding_window is not None:
        full = shape.full_attention_layers
        kept = min(tokens, shape.sliding_window - 1 + batched)
        windowed = (shape.layers - full) * (-(-kept // BLOCK) + 1) * BLOCK * per_layer
    return full * -(-tokens // BLOCK) * BLOCK * per_layer + windowed


def plan(args: EngineArgs, shape: ModelShape, gpu: Gpu, context: int) -> MemoryPlan:
    """Compute the memory of one rank; `kv_available` may be negative."""
    limit = limits(args, gpu)
    ranks = args.tensor_parallel * args.pipeline_parallel
    budget = int(gpu.visible_bytes * args.memory_utilization)
    weights = int(shape.weight_bytes / ranks * WEIGHT_OVERHEAD)
    width = 3 * shape.intermediate // args.tensor_parallel + 4 * shape.hidden
    forward = limit.max_num_batched_tokens * DTYPE_BYTES.get(compute_dtype(args, shape), 2) * width
    sampler = limit.max_num_seqs * shape.vocab * 18
    activation = int(max(forward, sampler))
    non_torch = int(NON_TORCH[ranks > 1])
    graphs = 0 if args.enforce_eager else int(GRAPH_BYTES)
    # Slots for adapters lie beside the weights.
    weights += _slots(args, shape)
    available = budget - weights - activation - non_torch - graphs
    if args.kv_cache_bytes is not None:
        available = args.kv_cache_bytes
    block = args.block_size or BLOCK
    per_token = kv_bytes_per_token(args, shape)
    blocks = max(0, int(available // (per_token * block)))
    if shape.sliding_window is not None and blocks:
        # vLLM reports concurrency × context for hybrid models; windowed layers need fewer blocks per request.
        needed = kv_bytes_needed(args, shape, context, limit.max_num_batched_tokens)
        blocks = max(blocks, int(available / needed * context) // block)
    return MemoryPlan(
        gpu.visible_bytes, budget, weights, activation, non_torch, graphs, available, per_token, block, blocks
    )


def _slots(args: EngineArgs, shape: ModelShape) -> int:
    """Bytes of the slots for LoRA adapters: two narrow matrices in 16 bits for each linear layer."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    widths = 2 * (shape.hidden + queries) + 2 * (shape.hidden + keys) + 3 * (shape.hidden + shape.intermediate)
    return args.max_loras * args.max_lora_rank * widths * shape.layers * 2


def largest_context(args: EngineArgs, shape: ModelShape, memory: MemoryPlan, batched: int) -> int:
    """The longest request whose KV fits, a multiple of the block size."""
    low, high = 0, shape.context + memory.block_size
    while low < high:
        middle = (low + high + 1) // 2
        if kv_bytes_needed(args, shape, middle, batched) <= memory.kv_available:
            low = middle
        else:
            high = middle - 1
    return low // memory.block_size * memory.block_size
